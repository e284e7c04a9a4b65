"""Figures are believed only where they were checked: each way of tampering with a run is refused or set aside."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import Ran, byte_tokenizer, tiny_model
from miniature_hub import write_hub
from small_study import figures, files, small_study
from small_study import run as run_study
from test_outputs_kept import refused, unchanged

from prunelab.errors import InvalidRequest
from prunelab.evaluation.benchmarks.generation import WorkspaceCompletions, keep_completions, kept_completions
from prunelab.inference.sampler import Completion
from prunelab.io.fingerprint import content_hash
from prunelab.pruning.allocation import achieved_ratio
from prunelab.pruning.plan import PlannedBlock, PruningPlan
from prunelab.studies.run import load_run
from prunelab.studies.store import CellId, StoredResult, place_of, read_stored, samples_beside

CheckpointOf = Callable[[str], Path]
Command = Callable[..., Ran]
Json = dict[str, Any]
EARLIER = Path(__file__).parents[1] / "earlier" / "run"


@pytest.fixture(scope="module")
def fields(
    tiny_checkpoint: CheckpointOf, corpus: Path, miniature: Path, tmp_path_factory: pytest.TempPathFactory
) -> Json:
    """A study of two benchmarks and three cells, done once."""
    given = small_study(tiny_checkpoint("llama"), corpus, miniature, tmp_path_factory.mktemp("original") / "run")
    run_study(given)
    return given


@pytest.fixture
def given(fields: Json, tmp_path: Path) -> Json:
    """A copy of it."""
    shutil.copytree(fields["out"], tmp_path / "run")
    return {**fields, "out": str(tmp_path / "run")}


def cell_file(run: Path, method: str, benchmark: str) -> Path:
    (found,) = run.glob(f"cells/*-{method}-*/{benchmark}-*.json")
    return found


def edited(path: Path, change: Callable[[Json], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rehashed(content: Json) -> None:
    """As an earlier version would have written it: the hash is of the figures alone."""
    content.pop("format", None)
    content["hash"] = content_hash({"measurements": content["measurements"]})


def other_cell(run: Path) -> None:
    for suffix in (".json", ".samples.parquet"):
        dense, flap = (cell_file(run, method, "boolq").with_suffix(suffix) for method in ("dense", "flap"))
        shutil.copy(dense, flap)


def other_benchmark(run: Path) -> None:
    for suffix in (".json", ".samples.parquet"):
        boolq, text = (cell_file(run, "flap", name).with_suffix(suffix) for name in ("boolq", "text*"))
        shutil.copy(text, boolq)


def other_value(run: Path) -> None:
    edited(cell_file(run, "shortgpt", "boolq"), lambda c: c["measurements"][0].update(value=0.99))


def no_hash(run: Path) -> None:
    edited(cell_file(run, "shortgpt", "boolq"), lambda c: c.pop("hash"))


def value_without_hash(run: Path) -> None:
    def change(content: Json) -> None:
        content["measurements"][0]["value"] = 0.99
        del content["hash"]

    edited(cell_file(run, "flap", "boolq"), change)


def called_otherwise(run: Path) -> None:
    """The dense model's figures under the cut's name, hashed as earlier versions did."""

    def change(content: Json) -> None:
        rows = json.loads(cell_file(run, "dense", "boolq").read_text())["measurements"]
        content["measurements"] = rows
        rehashed(content)

    edited(cell_file(run, "flap", "boolq"), change)


def other_identity(run: Path) -> None:
    def change(content: Json) -> None:
        content["identity"]["limit"] = 3
        rehashed(content)

    edited(cell_file(run, "flap", "boolq"), change)


def other_weights(run: Path) -> None:
    def change(content: Json) -> None:
        content["cell"]["fingerprint"] = "0" * 32
        rehashed(content)

    edited(cell_file(run, "dense", "boolq"), change)


def without_records(run: Path) -> None:
    """Paired tests would vanish without a word."""

    def change(content: Json) -> None:
        content["samples"] = None
        rehashed(content)

    edited(cell_file(run, "dense", "boolq"), change)


def no_primary(run: Path) -> None:
    def change(content: Json) -> None:
        for row in content["measurements"]:
            row["primary"] = False
        rehashed(content)

    edited(cell_file(run, "dense", "boolq"), change)


def other_kind(run: Path) -> None:
    path = cell_file(run, "flap", "boolq")
    path.unlink()
    os.mkfifo(path)


def a_folder(run: Path) -> None:
    path = cell_file(run, "flap", "boolq")
    path.unlink()
    path.mkdir()


def null(run: Path) -> None:
    cell_file(run, "flap", "boolq").write_text("null")


def deep(run: Path) -> None:
    cell_file(run, "flap", "boolq").write_text("[" * 100_000)


def wrong_types(run: Path) -> None:
    cell_file(run, "flap", "boolq").write_text(json.dumps({"cell": [], "measurements": {"a": 1}, "hash": 3}))


TAMPERED = [
    other_cell, other_benchmark, other_value, no_hash, value_without_hash, called_otherwise, other_identity,
    other_weights, without_records, no_primary, other_kind, a_folder, null, deep, wrong_types,
]  # fmt: skip


@pytest.mark.parametrize("tamper", TAMPERED)
def test_figures_that_are_not_believed(
    tamper: Callable[[Path], None], fields: Json, given: Json, command: Command
) -> None:
    run = Path(given["out"])
    tamper(run)
    with unchanged(run.parent):
        with pytest.raises(InvalidRequest, match="run the study again"):
            load_run(run)
        if tamper in (other_cell, value_without_hash, other_kind):
            refused(command("results", run), "run the study again")
            refused(command("recommend", run))
            refused(command("report", run))
            refused(command("compare", run, fields["out"]))
            refused(command("merge", run, fields["out"], "--out", run.parent / "merged"))
    with pytest.warns(UserWarning, match=r"renamed to .*damaged and measured again"):
        again = run_study(given)
    assert figures(again) == figures(load_run(Path(fields["out"])))
    assert list(run.glob("cells/*/*.damaged"))
    assert len(load_run(run).differences) == 4


def another_cells(run: Path) -> None:
    (flap,), (shortgpt,) = run.glob("plans/*flap*"), run.glob("plans/*shortgpt*")
    shutil.copy(shortgpt, flap)


def hand_edited(run: Path) -> None:
    """One channel less, and both shares as they then are: the file does not contradict itself."""
    (path,) = run.glob("plans/*flap*")
    plan = PruningPlan.load(path)
    first = plan.blocks[0]
    blocks = (
        PlannedBlock(block=first.block, key_value_groups=first.key_value_groups, channels=first.channels[1:]),
        *plan.blocks[1:],
    )
    changed = plan.model_copy(update={"blocks": blocks})
    share = achieved_ratio(plan.base.shapes, changed.kept)
    whole = sum(shape.cost for shape in plan.base.shapes)
    shares = {"achieved_ratio": share, "share_of_model": share * whole / plan.base.parameters}
    changed.model_copy(update=shares).save(path)
    PruningPlan.load(path)


def hand_edited_without_its_hashes(run: Path) -> None:
    hand_edited(run)
    (path,) = run.glob("plans/*flap*")
    edited(path, lambda plan: [plan["provenance"].pop(key) for key in ("content", "request")])


def another_models(run: Path) -> None:
    (path,) = run.glob("plans/*flap*")
    edited(path, lambda plan: plan["base"].update(fingerprint="0" * 32))


def other_options(run: Path) -> None:
    (path,) = run.glob("plans/*flap*")
    edited(path, lambda plan: plan["provenance"]["options"].update(protect_first=1))


def other_calibration(run: Path) -> None:
    (path,) = run.glob("plans/*flap*")
    edited(path, lambda plan: plan["provenance"]["calibration"].update(fingerprint="0" * 16))


PLANS = [
    another_cells, hand_edited, hand_edited_without_its_hashes, another_models, other_options, other_calibration,
]  # fmt: skip


@pytest.mark.parametrize("tamper", PLANS)
def test_plans_that_are_not_believed(tamper: Callable[[Path], None], fields: Json, given: Json) -> None:
    run = Path(given["out"])
    tamper(run)
    with pytest.warns(
        UserWarning, match=r"plans/.*flap.* (is not valid|differs from).*: renamed to .*damaged and computed again"
    ):
        again = run_study(given)
    assert figures(again) == figures(load_run(Path(fields["out"])))
    assert files(run).keys() - files(Path(fields["out"])).keys() == {
        str(path.relative_to(run)) for path in run.glob("plans/*.damaged")
    }, "no cell was measured by that plan"


def test_statistics_of_another_model_in_the_run(given: Json, tiny_checkpoint: CheckpointOf, fields: Json) -> None:
    run = Path(given["out"])
    other = run_study({**given, "models": [str(tiny_checkpoint("mistral"))], "out": str(run.parent / "other")})
    (foreign,) = other.folder.glob("statistics/*")
    (own,) = run.glob("statistics/*")
    shutil.copy(foreign, own)
    for path in (*run.glob("plans/*flap*"), *run.glob("cells/*flap*/*")):
        path.unlink()
    with pytest.warns(UserWarning, match=r"belongs to another model or to other tokens: renamed to .* collected again"):
        assert figures(run_study(given)) == figures(load_run(Path(fields["out"])))


@pytest.mark.parametrize(
    "name",
    ["../victim", "/etc/hostname", "cells/../../victim", "cells/x/../../../victim", "study.yaml", "", ".", "cells/a\0b",
     "http://example.org/x.json", "x" * 400, "plans/x.json", "cells/link/victim.json"],
)  # fmt: skip
def test_an_index_names_files_of_its_run_only(name: str, given: Json, fields: Json, command: Command) -> None:
    run = Path(given["out"])
    victims = [run.parent / "victim", run.parent / "outside" / "victim.json"]
    victims[1].parent.mkdir()
    for victim in victims:
        victim.write_text("mine")
    (run / "cells" / "link").symlink_to(victims[1].parent)
    index = run / "index.json"
    for hashed in (True, False):
        names = [*json.loads(index.read_text())["files"][:2], name]
        index.write_text(json.dumps({"files": names, **({"hash": content_hash({"files": names})} if hashed else {})}))
        with unchanged(run.parent):
            for words in (("results",), ("report",), ("recommend",), ("compare", fields["out"])):
                refused(command(words[0], run, *words[1:]), "index")
            refused(command("merge", run, fields["out"], "--out", run.parent / "merged"), "index")
            refused(command("push", run, "--to", "a/b", "--run", run, "--dry-run"), "index")
        index.write_text(json.dumps({"files": names[:2]}))


def emptied(run: Path) -> None:
    (run / "comparisons.csv").write_text((run / "comparisons.csv").read_text().splitlines()[0] + "\n")


def gone(run: Path) -> None:
    (run / "comparisons.csv").unlink()


def made_up(run: Path) -> None:
    frame = pd.read_csv(run / "comparisons.csv")
    frame["p"], frame["p_holm"], frame["significant"], frame["pruned"] = 1e-9, 1e-9, True, 0.0
    frame.to_csv(run / "comparisons.csv", index=False)


def a_waiting_pipe(run: Path) -> None:
    (run / "comparisons.csv").unlink()
    os.mkfifo(run / "comparisons.csv")


def other_results(run: Path) -> None:
    (run / "results.csv").write_text("model,value\nm,1\n")
    (run / "results.parquet").write_text("")


@pytest.mark.parametrize("tamper", [emptied, gone, made_up, a_waiting_pipe, other_results])
def test_what_follows_from_measurements_is_not_read(
    tamper: Callable[[Path], None], given: Json, fields: Json, command: Command
) -> None:
    run, whole = Path(given["out"]), load_run(Path(fields["out"]))
    tables = {
        path.name: path.read_bytes()
        for path in (whole.folder / "report" / "tables").iterdir()
        if "made" not in path.stem
    }
    tamper(run)
    found = load_run(run)
    assert list(found.differences) == list(whole.differences)
    assert len(found.differences) == 4
    if tamper is not a_waiting_pipe:
        assert command("report", run).code == 0
        assert {name: (run / "report" / "tables" / name).read_bytes() for name in tables} == tables


@pytest.mark.parametrize("text", ['{"files": [', "", "null", '{"files": 3}', "[]", '{"files": [1]}', "{" * 9999])
def test_an_index_that_is_damaged_is_made_again_from_the_measurements(text: str, given: Json, fields: Json) -> None:
    run = Path(given["out"])
    (run / "index.json").write_text(text)
    with unchanged(run.parent), pytest.warns(UserWarning, match="index.json is damaged"):
        found = load_run(run)
    whole = load_run(Path(fields["out"]))
    assert found.measurements == whole.measurements
    assert list(found.differences) == list(whole.differences)


def test_an_index_from_which_a_cell_was_taken(given: Json, fields: Json) -> None:
    run = Path(given["out"])
    edited(run / "index.json", lambda index: index["files"].pop())
    with pytest.warns(UserWarning, match="index.json is damaged"):
        assert load_run(run).measurements == load_run(Path(fields["out"])).measurements
    run_study({**given, "limit": 3})  # now two files of each benchmark: the study's settings tell them apart
    assert {m.n for m in load_run(run).measurements if m.benchmark == "boolq"} == {3}
    edited(run / "index.json", lambda index: index["files"].pop())
    with pytest.warns(UserWarning, match="damaged"):
        assert {m.n for m in load_run(run).measurements if m.benchmark == "boolq"} == {3}
    first, second = run.glob("cells/*-dense-*/boolq-*.json")
    of_other_data(
        first if json.loads(first.read_text())["identity"]["limit"] == 3 else second, run
    )  # only the index tells these two apart
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(InvalidRequest, match="is not the only file of"):
        load_run(run)


def of_other_data(path: Path, run: Path) -> None:
    """The same measurements again, as of another version of the data."""
    content = json.loads(path.read_text())
    content["identity"]["data"] = "0" * 16
    place = run / "cells" / place_of(CellId.model_validate(content["cell"]), "boolq", content["identity"])
    content["hash"] = content_hash({name: value for name, value in content.items() if name != "hash"})
    place.write_text(json.dumps(content))
    shutil.copy(samples_beside(path), samples_beside(place))


@pytest.mark.parametrize("hashed", [True, False])
def test_an_index_that_names_a_file_twice(hashed: bool, given: Json, fields: Json) -> None:
    index = Path(given["out"]) / "index.json"
    names = json.loads(index.read_text())["files"]
    names.append(names[-1])
    index.write_text(json.dumps({"files": names, **({"hash": content_hash({"files": names})} if hashed else {})}))
    with pytest.warns(UserWarning, match="index.json is damaged"):
        assert load_run(Path(given["out"])).measurements == load_run(Path(fields["out"])).measurements


@pytest.mark.parametrize(("name", "value"), [("limit", 1000), ("window", 77)])
def test_a_study_that_says_other_settings_than_its_figures(
    name: str, value: object, given: Json, fields: Json, command: Command
) -> None:
    run = Path(given["out"])
    study = yaml.safe_load((run / "study.yaml").read_text())
    (run / "study.yaml").write_text(yaml.safe_dump({**study, name: value}))
    with unchanged(run):
        refused(command("results", run), f"was measured with {name} ")
        refused(command("report", run), f"study.yaml says {value}")
    run_study(given)
    assert load_run(run).measurements == load_run(Path(fields["out"])).measurements


def test_a_plan_that_was_changed_is_not_drawn(given: Json) -> None:
    """Its fingerprint, by which measurements name it, does not cover the shapes that shares are taken of."""
    run = Path(given["out"])
    (path,) = run.glob("plans/*flap*")
    assert path in {cut.path for cut in load_run(run).planned.values()}
    edited(path, lambda plan: plan["base"]["shapes"][0].update(channels=2 * plan["base"]["shapes"][0]["channels"]))
    assert path not in {cut.path for cut in load_run(run).planned.values()}


@pytest.mark.parametrize("change", ["text", "type", "no hash", "cut short"])
def test_completions_of_a_study_that_was_killed(change: str, tmp_path: Path) -> None:
    path = tmp_path / "gsm8k-0.json"
    written = WorkspaceCompletions([Completion("0", 0, "#### 3", 5, "stop")], 512, None)
    keep_completions(path, written)
    assert kept_completions(path) == written
    text = path.read_text()
    changed = {"text": text.replace("#### 3", "#### 4"), "type": text.replace("512", '"512"'), "cut short": text[:-9]}
    fields = json.loads(text)
    path.write_text(changed.get(change) or json.dumps({name: fields[name] for name in fields if name != "hash"}))
    with pytest.warns(UserWarning, match="generating its completions again"):
        assert kept_completions(path) is None


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"cell": 1, "error": "x", "fault": false}]', "null", "[", ""])
def test_failures_that_are_no_failures(text: str, given: Json, command: Command) -> None:
    (Path(given["out"]) / "failures.json").write_text(text)
    refused(command("results", given["out"]), "failures.json")


def test_a_run_of_an_earlier_version_is_read_and_goes_on(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(EARLIER, "run")
    tiny_model("llama").save_pretrained("tiny-llama")
    byte_tokenizer().save_pretrained("tiny-llama")
    shutil.copy(corpus, "corpus.txt")
    write_hub(Path("hub"))
    with unchanged(tmp_path):
        before = load_run(Path("run"))
    assert [m.method for m in before.measurements if m.primary] == ["dense", "shortgpt", "flap"]
    assert len(before.differences) == 2
    for one in before.measured:
        kept = read_stored(one.path)
        assert isinstance(kept, StoredResult)
        assert samples_beside(one.path).exists()
    fields = before.config.model_dump(mode="json")
    again = run_study(fields)
    values = [(m.method, m.metric, m.value) for m in again.measurements]
    assert values == [(m.method, m.metric, m.value) for m in before.measurements]
    assert not list(Path("run").rglob("*.damaged"))
    assert not [str(w.message) for w in recwarn if "renamed to" in str(w.message)]
