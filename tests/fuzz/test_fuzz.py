"""500 inputs that were made worse, of every kind: none ends in a traceback, hangs, crashes or changes another file."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import fuzz_targets
from fuzz_materials import Materials
from fuzz_targets import TARGETS
from fuzz_worker import GOOD, _one, fuzz, inputs, snapshot
from run import table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the materials."""
    root = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNELAB_CACHE", str(root / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.chdir(root)
        Materials(root / "materials").make()
        yield root


@pytest.fixture(scope="module")
def materials(folder: Path) -> Materials:
    """What inputs are made from."""
    return Materials(folder / "materials")


def test_500_inputs(materials: Materials, folder: Path) -> None:
    before = snapshot(materials.root)
    findings = fuzz(materials, folder, inputs(500), 0, say=lambda line: None)
    assert not findings.bad, table(findings)
    assert sum(counts.total() for counts in findings.counts.values()) >= 490
    assert all(counts["refused"] for counts in findings.counts.values()), table(findings)
    assert snapshot(materials.root) == before


@pytest.mark.parametrize("kind", [kind for kind in TARGETS if kind not in ("command lines", "environment")])
def test_what_is_not_made_worse_is_accepted(
    kind: str, materials: Materials, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("worse_text", "worse_bytes", "worse_value", "_worse_tensors"):
        monkeypatch.setattr(fuzz_targets, name, lambda given, chance: given)
        monkeypatch.setattr(f"fuzz_mutations.{name}", lambda given, chance: given, raising=False)
    monkeypatch.setattr("fuzz_mutations.as_json", lambda value, chance: json.dumps(value))
    monkeypatch.setattr(fuzz_targets, "as_json", lambda value, chance: json.dumps(value))
    if kind == "calibration files":  # the suffix decides what it is
        monkeypatch.setattr(random.Random, "choice", lambda chance, options: options[0])
        monkeypatch.setattr(random.Random, "random", lambda chance: 0.0)
    if kind == "statistics":
        monkeypatch.setattr(random.Random, "random", lambda chance: 0.0)
    assert _one(materials, folder, kind, 0, 0) == ("accepted", "")


def test_a_traceback_a_hang_a_crash_and_a_changed_file_are_seen(
    materials: Materials, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(materials: Materials, place: Path, chance: random.Random) -> fuzz_targets.Read:
        number = int(place.name.rpartition("-")[2])
        victim = materials.root / "victim"

        def endless() -> None:
            while True:
                pass

        ways: list[fuzz_targets.Read] = [
            lambda: int("x"),
            lambda: victim.write_text("x"),
            victim.unlink,
            lambda: (place / "out.txt").write_text("x"),
            os.abort,
            endless,
            lambda: None,
        ]
        return ways[number]

    monkeypatch.setitem(TARGETS, "odd", (read, 7))
    monkeypatch.setattr("fuzz_worker.HANG", 0.5)
    findings = fuzz(materials, folder, inputs(7, ["odd"]), 0, say=lambda line: None)
    outcomes = {row["number"]: row["outcome"] for row in findings.bad}
    assert outcomes == {0: "traceback", 1: "files changed", 2: "files changed", 4: "crash", 5: "hang"}
    assert findings.counts["odd"]["accepted"] == 2
    assert set(findings.counts["odd"]) >= set(GOOD[:1])


def test_the_same_seed_gives_the_same_inputs(materials: Materials, tmp_path: Path) -> None:
    for kind in ("configurations", "plans", "calibration files"):
        made: list[dict[str, bytes]] = []
        for number in (1, 1, 2):
            place = tmp_path / f"{kind}{len(made)}"
            place.mkdir()
            TARGETS[kind][0](materials, place, random.Random(f"0 {kind} {number}"))
            made.append({path.name: path.read_bytes() for path in place.iterdir()})
        assert made[0] == made[1] != made[2]
