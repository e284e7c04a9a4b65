"""The configurations that come with the project: they parse, and hold the grids that they say they do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from prunelab.errors import CheckpointError
from prunelab.studies.config import StudyConfig, read_config, study_config
from prunelab.studies.dry_run import dry_run
from prunelab.studies.grid import study_grid

FOLDER = Path(__file__).parents[2] / "configs"


def config(name: str) -> StudyConfig:
    path = FOLDER / f"{name}.yaml"
    return study_config(read_config(path), name, path)


def test_the_papers_grid() -> None:
    cells = study_grid(config("paper"))
    # A dense model each; three methods at three ratios, at two for the small instruction-tuned one.
    assert Counter(cell.model for cell in cells) == {
        "LLaMA-3-8B": 10, "Gemma-2-9B": 10, "Gemma-2-2B": 10, "Qwen2-1.5B": 10, "LLaMA-3-8B-Instruct": 10,
        "Gemma-2-2B-it": 7, "Idefics3-8B": 7,
    }  # fmt: skip
    measured = Counter(run[0].name for cell in cells for run in cell.runs)
    everywhere = dict.fromkeys(("arc_easy", "arc_challenge", "boolq", "winogrande", "mmlu", "gsm8k", "wikitext2"), 40)
    # Two models: dense and three methods at 10 and 20 %.
    assert measured == {
        **everywhere,
        "humaneval": 14,
        "stereoset": 14,
        "throughput": 20,
        "ifeval": 17,
        "pope": 7,
        "textvqa": 7,
        "mmmu": 7,
    }
    assert {cell.cut.ratio for cell in cells if cell.cut} == {0.1, 0.2, 0.3}
    assert {(run[1].completions, run[1].temperature) for cell in cells for run in cell.runs} == {(5, 0.8)}


def test_the_quick_grid() -> None:
    cells = study_grid(config("one_gpu"))
    assert len(cells) == 1 + 3 * 2
    assert {run[1].limit for cell in cells for run in cell.runs} == {100}


def test_the_papers_dry_run_without_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def out_of_reach(path: str) -> None:
        raise CheckpointError(f"{path} is not a local folder, and the download from the hub failed: download it")

    monkeypatch.setattr("prunelab.studies.dry_run.load_outline", out_of_reach)
    monkeypatch.setattr("prunelab.studies.dry_run.identity_of", lambda run: {})
    found = dry_run(config("paper").model_copy(update={"out": tmp_path / "run"}))
    assert len(found.cells) == 64
    assert sum(len(one.missing) for one in found.cells) == 366
    assert not any(one.done or one.tokens or one.weight_bytes for one in found.cells)
    assert sum("tokens and bytes are unknown" in note for note in found.notes) == 7
    assert found.calibration_tokens["Qwen2-1.5B"] == 128 * 2048
    assert not (tmp_path / "run").exists()


def test_the_arena() -> None:
    cells = study_grid(config("arena"))
    # A dense model each; fifteen methods at three ratios with three draws of the calibration text.
    assert Counter(cell.model for cell in cells) == dict.fromkeys(
        ("pocket-llama", "pocket-qwen2", "pocket-gemma2"), 136
    )
