"""The Python API: its names, what it costs to import, and what its objects show."""

from __future__ import annotations

import inspect
import logging
import pkgutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, assert_type, cast

import pandas as pd
import pytest
import transformers

import prunelab
from prunelab.api.results import EvaluationResult, PrunedModel, ReportResult
from prunelab.checkpoint.gguf.export import Exported
from prunelab.errors import DataError, InvalidRequest, MissingRequirement, UnknownName
from prunelab.evaluation.records import Measurement
from prunelab.models.loading import LanguageModel
from prunelab.pruning.plan import PruningPlan
from prunelab.studies.run import Run


@pytest.fixture(autouse=True)
def _own_cache(_pocket_cache: None) -> None:
    """Statistics go where they go."""


def test_the_names_are_frozen() -> None:
    assert prunelab.__all__ == ["PrunelabError", "__version__", "evaluate", "load", "prune", "report", "study"]
    arguments = {name: list(inspect.signature(getattr(prunelab, name)).parameters) for name in prunelab.__all__[2:]}
    assert arguments == {
        "evaluate": ["model", "benchmarks", "suites", "shots", "datasets_root", "settings"],
        "load": ["model", "device", "dtype"],
        "prune": [
            "model", "method", "ratio", "calibration", "samples", "sequence_length", "seed", "protect_first",
            "protect_last", "channel_multiple", "drop_sublayers", "competition", "uniform", "compensation",
            "datasets_root",
        ],
        "report": ["run"],
        "study": ["models", "fields"],
    }  # fmt: skip


def test_what_their_objects_offer_is_frozen() -> None:
    offered = {
        kind: {f.name for f in fields(kind)} | set(vars(kind))
        for kind in (PrunedModel, EvaluationResult, ReportResult, Run, Exported)
    }
    assert {kind.__name__: {name for name in names if name[0] != "_"} for kind, names in offered.items()} == {
        "PrunedModel": {"model", "plan", "call", "save", "to_gguf"},
        "EvaluationResult": {"measurements", "table"},
        "ReportResult": {"run", "path"},
        "Run": {
            "folder", "config", "measured", "differences", "failures", "measurements", "planned", "duplicates", "write",
        },
        "Exported": {"path", "architecture", "size", "notes"},
    }  # fmt: skip
    assert all("_repr_html_" in names for names in offered.values()), "each shows itself in a notebook"


def test_importing_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, prunelab; print([m for m in ('torch', 'transformers', 'pandas', 'lm_eval') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_mixed_width_cut_is_made_without_advice_from_below(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The pond was still. A frog sat on a leaf and waited for the rain. " * 40)
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener, logger = Listener(), logging.getLogger("transformers")
    before = logger.level
    transformers.utils.logging.warning_once.cache_clear()
    logger.addHandler(listener)
    logger.setLevel(logging.WARNING)
    try:
        prunelab.prune("pocket-llama", method="flap", ratio=0.2, calibration=str(text), samples=2, sequence_length=16)
    finally:
        logger.removeHandler(listener)
        logger.setLevel(before)
    assert not said


def test_no_module_takes_the_name_of_a_function() -> None:
    """A submodule that is imported becomes an attribute of the package, in place of a function of that name."""
    modules = {module.name for module in pkgutil.iter_modules(prunelab.__path__)}
    assert not modules & set(prunelab.__all__)


def test_modules_of_earlier_versions_are_served_under_their_old_names() -> None:
    code = (
        "import warnings; warnings.simplefilter('error', DeprecationWarning)\n"
        "try:\n    from prunelab.datasets import read_documents\n"
        "except DeprecationWarning as warning:\n    print(warning)\n"
        "warnings.simplefilter('ignore')\n"
        "from prunelab.scoring.encoding import Encoder; from prunelab.plan import PruningPlan\n"
        "import prunelab.inference.tokenization as tokenization, prunelab.pruning.plan as plan\n"
        "print(Encoder is tokenization.Encoder, PruningPlan is plan.PruningPlan, plan.__spec__.name)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [
        "prunelab.datasets is now prunelab.io.datasets: import it from there",
        "True True prunelab.pruning.plan",
    ]


def test_prune_evaluate_save_and_load(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="needs pip install 'prunelab[gguf]'")
    model = assert_type(prunelab.load("pocket-llama", device="cpu"), LanguageModel)
    pruned = prunelab.prune(model, method="flap", ratio=0.2, calibration=str(corpus), samples=4, sequence_length=32)
    assert_type(pruned, PrunedModel)
    assert_type(pruned.plan, PruningPlan)
    assert repr(pruned) == "PrunedModel('pocket-llama', 'flap', 20.00% of the blocks' weights removed)"
    assert "MLP channels in total" in pruned._repr_html_()
    assert str(pruned.plan) == (
        "PruningPlan('pocket-llama', 'flap', 10 of 10 blocks kept, 20.00% of the blocks' weights removed)"
    )
    kept = len(pruned.plan.blocks[0].channels)
    assert f"<td style='text-align:left'>{kept} of 384</td>" in pruned.plan._repr_html_()
    assert "pocket-llama" in model._repr_html_()
    found = assert_type(prunelab.evaluate(pruned, ["arc_easy", f"text:{corpus}"], limit=4), EvaluationResult)
    assert 0 <= assert_type(found["arc_easy"], float) <= 1
    assert_type(next(iter(found)), Measurement)
    assert_type(found.table, pd.DataFrame)
    assert "arc_easy" in found._repr_html_()
    assert len(found.table) == len(list(found))
    with pytest.raises(UnknownName, match="did you mean 'arc_easy'"):
        found["arc_esy"]
    again = prunelab.load(pruned.save(tmp_path / "pruned"), device="cpu")
    assert again.fingerprint == pruned.model.fingerprint
    card = (tmp_path / "pruned" / "README.md").read_text()
    (call,) = (line for line in card.splitlines() if line.startswith("prunelab.prune("))
    options = f"calibration={str(corpus)!r}, samples=4, sequence_length=32"
    assert call == f"prunelab.prune('pocket-llama', method='flap', ratio=0.2, {options})"
    names: dict[str, object] = {"prunelab": prunelab}
    exec(f"made = {call}", names)
    assert cast(PrunedModel, names["made"]).plan.fingerprint == pruned.plan.fingerprint, (
        "the card's call makes the same cut"
    )
    written = pruned.to_gguf(tmp_path / "pruned.gguf", "q8_0")
    assert f"<td style='text-align:right'>{written.path.stat().st_size:,}</td>" in written._repr_html_()


def test_study_and_report(corpus: Path, tmp_path: Path) -> None:
    calibration = {"corpus": str(corpus), "samples": 4, "sequence_length": 32}
    run = prunelab.study(
        "pocket-llama", methods=["magnitude_depth"], ratios=[0.2], benchmarks=[f"text:{corpus}"],
        calibration=calibration, out=tmp_path / "run", device="cpu",
    )  # fmt: skip
    assert "magnitude_depth" in run._repr_html_()
    assert_type(run, Run)
    made = assert_type(prunelab.report(tmp_path / "run"), ReportResult)
    assert made.path.exists()
    assert made._repr_html_().startswith(run._repr_html_())
    assert f"<a href='{made.path}'>" in made._repr_html_()
    assert repr(prunelab.report(run)) == f"ReportResult('{tmp_path / 'run' / 'report' / 'index.html'}')"


def test_what_the_caller_can_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName, match="did you mean 'flap'"):
        prunelab.prune("pocket-llama", method="flapp")
    for wrong, said in (
        ({"compensation": "least_square"}, "did you mean 'least_squares'"),
        ({"competition": "module"}, "did you mean 'modules'"),
        ({"channel_multiple": 0}, "channel_multiple 0 is not possible"),
        ({"protect_last": -1}, "protect_last -1 is not possible"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            prunelab.prune("pocket-llama", **cast(Any, wrong))
    with pytest.raises(InvalidRequest, match="ratio 2 is not possible"):
        prunelab.prune("pocket-llama", ratio=2)
    with pytest.raises(InvalidRequest, match="nothing to evaluate"):
        prunelab.evaluate("pocket-llama")
    with pytest.raises(UnknownName, match="did you mean 'limit'"):
        prunelab.evaluate("pocket-llama", "arc_easy", limits=3)
    monkeypatch.setattr("prunelab.pocket.study.pocket_study", fail)
    with pytest.raises(InvalidRequest, match="method: unknown key"):
        prunelab.study("pocket-llama", method="flap")
    assert issubclass(UnknownName, prunelab.PrunelabError)


def fail(*_: object, **__: object) -> None:
    pytest.fail("too early")


def test_what_is_missing_is_said_before_weights_are_loaded(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunelab.models.loading.load_model", fail)
    with pytest.raises(MissingRequirement, match="--allow-code-execution"):
        prunelab.evaluate("pocket-llama", ["arc_easy", "humaneval"])
    with pytest.raises(DataError, match=r"none\.txt does not exist"):
        prunelab.evaluate("pocket-llama", [f"text:{corpus}", f"text:{tmp_path / 'none.txt'}"])
    with pytest.raises(InvalidRequest, match="pocket-llama is a llama, a language model, and pope needs images"):
        prunelab.evaluate("pocket-llama", ["arc_easy", "pope"])


def test_what_a_loaded_model_lacks_is_said_before_anything_is_computed(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = prunelab.load("pocket-llama", device="cpu")
    monkeypatch.setattr("prunelab.evaluation.benchmarks.text.TextPerplexity.evaluate", fail)
    text = f"text:{corpus}"
    with pytest.raises(MissingRequirement, match="--allow-code-execution"):
        prunelab.evaluate(model, [text, "humaneval"])
    with pytest.raises(DataError, match=r"none\.txt does not exist"):
        prunelab.evaluate(model, [text, f"text:{tmp_path / 'none.txt'}"])
    with pytest.raises(InvalidRequest, match="pope needs images"):
        prunelab.evaluate(model, [text, "pope"])
    model.tokenizer.chat_template = None
    with pytest.raises(InvalidRequest, match="no chat template"):
        prunelab.evaluate(model, [text, "arc_easy"], chat_template="always")
