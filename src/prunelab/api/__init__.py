"""The Python API: what the commands do, for a notebook.

    import prunelab

    model = prunelab.load("pocket-llama")
    pruned = prunelab.prune(model, method="flap", ratio=0.2)
    prunelab.evaluate(pruned, "arc_easy")
    pruned.save("pruned")

Nothing heavy is imported before a function is called. Every function raises `PrunelabError` for what its caller can
mend.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from prunelab.api.results import EvaluationResult, PrunedModel, ReportResult
    from prunelab.models.loading import LanguageModel
    from prunelab.studies.run import Run

PathLike = str | os.PathLike[str]


def _for_the_user(record: logging.LogRecord) -> bool:
    """Not what transformers' own checks of a config with widths per block say of themselves, five lines a model."""
    return not record.getMessage().startswith("Reading global config value")


logging.getLogger("transformers.integrations.heterogeneity.configuration_utils").addFilter(_for_the_user)


def load(model: PathLike, *, device: str | None = None, dtype: str | None = None) -> LanguageModel:
    """Load a checkpoint, whole or pruned.

    Args:
        model: a folder, an id on the hub, or the name of a pocket model.
        device: `cuda`, `cpu`, ...; the best there is if not given.
        dtype: `float32`, `bfloat16` or `float16`; the checkpoint's own if not given.

    Raises:
        CheckpointError: missing, gated, damaged, or weights that are not safetensors.
        UnsupportedModel: an architecture that no family describes.
        InvalidRequest: an unknown device or dtype.
    """
    from prunelab.models.loading import load_model

    return load_model(os.fspath(model), device=device, dtype=dtype)


def prune(
    model: PathLike | LanguageModel,
    method: str = "flap",
    ratio: float = 0.2,
    *,
    calibration: str = "wikitext2",
    samples: int = 128,
    sequence_length: int = 2048,
    seed: int = 0,
    protect_first: int = 0,
    protect_last: int = 0,
    channel_multiple: int = 1,
    drop_sublayers: bool = False,
    competition: Literal["all", "modules", "blocks", "blocks_and_modules"] = "all",
    uniform: bool = False,
    compensation: Literal["auto", "none", "bias", "least_squares", "sequential", "linear_map"] = "auto",
    datasets_root: PathLike | None = None,
) -> PrunedModel:
    """Prune a model; the one given is left as it was.

    Statistics of the calibration pass are kept, so that a second method or ratio costs no second pass.

    Args:
        model: a loaded model, or what `load` takes.
        method: see `prunelab list methods`.
        ratio: share of the blocks' projection weights to remove.
        calibration: `wikitext2`, `c4`, `textvqa` (images with text), or a `.txt` or `.jsonl` file.
        samples: calibration samples.
        sequence_length: tokens a sample, cut to the model's context.
        seed: of the calibration's and a random method's draws.
        protect_first: blocks at the beginning to leave whole.
        protect_last: blocks at the end to leave whole.
        channel_multiple: round pruned MLP widths to a multiple of this.
        drop_sublayers: let a block lose its whole attention or MLP.
        competition: which units compete for one budget in width; see `Constraints`.
        uniform: one width for all blocks, for a stock class.
        compensation: what makes up for removed units; `auto` is the method's own.
        datasets_root: folder with copies of the hub's data sets.

    Raises:
        UnknownName: no such method, corpus, competition or compensation.
        InvalidRequest: the ratio is out of reach, or options contradict each other.
    """
    given = dict(locals())
    from prunelab.api.results import PrunedModel
    from prunelab.pruning.allocation import Constraints, check_ratio
    from prunelab.pruning.apply import (
        CalibrationOptions,
        PruningOptions,
        make_pruning_plan,
        needs_calibration,
        needs_moments,
        pruned_model,
    )
    from prunelab.pruning.methods import methods

    check_ratio(ratio)
    _ = methods[method]
    constraints = Constraints(protect_first, protect_last, channel_multiple, drop_sublayers, competition)
    options = PruningOptions(constraints, uniform, compensation, seed)
    text = CalibrationOptions(calibration, samples, sequence_length, seed=seed)
    base = _loaded(model)
    statistics = drawn = None
    if needs_calibration(method, options):
        statistics, drawn = _calibrated(base, text, datasets_root, needs_moments(method, options))
    plan = make_pruning_plan(base, method, ratio, statistics=statistics, calibration=drawn, options=options)
    return PrunedModel(pruned_model(base, plan, statistics, drawn), plan, _as_typed(base.name, given))


def evaluate(
    model: PathLike | LanguageModel | PrunedModel,
    benchmarks: str | Sequence[str] = (),
    *,
    suites: str | Sequence[str] = (),
    shots: Sequence[int] = (),
    datasets_root: PathLike | None = None,
    **settings: Any,
) -> EvaluationResult:
    """Measure a model, whole or pruned.

    Args:
        model: a loaded or pruned model, or what `load` takes.
        benchmarks: one or more; `text:FILE` is the perplexity of any text.
        suites: one or more of `prunelab list suites`.
        shots: numbers of examples in the prompt, each measured; none for each benchmark's own.
        datasets_root: folder with copies of the hub's data sets.
        settings: fields of `EvaluationSettings`, such as `limit=100` or `allow_code_execution=True`.

    Raises:
        UnknownName: no such benchmark or suite.
        MissingRequirement: something must be installed or allowed first.
        DataError: a benchmark's data are not to be had.
        InvalidRequest: nothing to measure, or a model that cannot be measured so.

    What is missing is said before a checkpoint's weights are loaded, and what the model lacks before anything is
    computed.
    """
    from prunelab.api.results import EvaluationResult, settings_of
    from prunelab.errors import InvalidRequest
    from prunelab.evaluation.benchmarks.suites import expand
    from prunelab.evaluation.runner import benchmark_tasks, checked_model, dense_cell
    from prunelab.evaluation.runner import evaluate as run

    names, limit = expand(_listed(suites), _listed(benchmarks))
    if not names:
        raise InvalidRequest("nothing to evaluate: name a benchmark or a suite (see `prunelab list benchmarks`)")
    given = _given(model)
    chosen = settings_of({"limit": limit, **settings}, _root(datasets_root, given))
    runs = benchmark_tasks(names, chosen, shots)
    loaded = checked_model(runs, given, load)
    cell = dense_cell(loaded)
    return EvaluationResult([m for benchmark, how in runs for m in run(loaded, cell, benchmark, how).measurements])


def study(models: str | Sequence[str] = (), **fields: Any) -> Run:
    """Prune models every way, measure every cut, and compare each with the whole model on the same samples.

    A study that was killed goes on where it was; one that is done is read.

    Args:
        models: folders, ids or pocket models; the pocket study if none.
        fields: of `StudyConfig`, such as `methods=["flap"], ratios=[0.2], benchmarks=["wikitext2"], out="runs/mine"`.

    Raises:
        InvalidRequest: an unknown field or a value that is not possible.
        PrunelabError: what is missing, before anything is computed.
    """
    from prunelab.evaluation.benchmarks.suites import expand
    from prunelab.models.bundled import checkpoint_of
    from prunelab.pocket.study import pocket_study
    from prunelab.reports import write_report
    from prunelab.studies.config import study_config
    from prunelab.studies.runner import run_study

    chosen = _listed(models)
    study_config({**fields, "models": chosen or ["pocket-llama"]})  # what is impossible by itself is said at once
    known: dict[str, Any] = {"models": chosen}
    if all(checkpoint_of(name) for name in chosen):
        named, _ = expand(_listed(fields.get("suites", ())), _listed(fields.get("benchmarks", ())))
        known, _ = pocket_study(chosen or ["pocket-llama"], named)
        if "suites" in fields:
            known.pop("benchmarks", None)
    run = run_study(study_config({**known, **fields}))
    write_report(run)
    return run


def report(run: PathLike | Run) -> ReportResult:
    """Make a run's report again, and show it.

    Args:
        run: what `study` returned, or the folder of a run.

    Raises:
        InvalidRequest: no finished run is there.
    """
    from prunelab.api.results import ReportResult
    from prunelab.reports import write_report
    from prunelab.studies.run import Run, load_run

    found = run if isinstance(run, Run) else load_run(Path(run))
    write_report(found)
    return ReportResult(found)


def _as_typed(model: str, given: Mapping[str, Any]) -> str:
    """A call of `prune`: the method, the ratio, and what is not as it is by default."""
    words = [repr(model)]
    for name, known in list(signature(prune).parameters.items())[1:]:
        value = os.fspath(given[name]) if isinstance(given[name], os.PathLike) else given[name]
        if name in ("method", "ratio") or value != known.default:
            words.append(f"{name}={value!r}")
    return f"prunelab.prune({', '.join(words)})"


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else [os.fspath(name) for name in names]


def _given(model: PathLike | LanguageModel | PrunedModel) -> str | LanguageModel:
    """A model, or where its checkpoint is."""
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    from prunelab.api.results import PrunedModel

    return model.model if isinstance(model, PrunedModel) else model


def _loaded(model: PathLike | LanguageModel | PrunedModel) -> LanguageModel:
    given = _given(model)
    return load(given) if isinstance(given, str) else given


def _root(given: PathLike | None, model: str | LanguageModel) -> Path | None:
    """Where data are read; a pocket model, also pruned, is asked about its own little world."""
    from prunelab.models.bundled import ALL_MODELS
    from prunelab.pocket.data import data_root

    folder = None if given is None else Path(given)
    if isinstance(model, str):
        return data_root(folder, [model])
    own = [name for name in ALL_MODELS if model.name == name or model.name.startswith(f"{name}-")]
    return data_root(folder, own[:1])


def _calibrated(model: LanguageModel, options: Any, datasets_root: PathLike | None, moments: bool) -> tuple[Any, Any]:
    from prunelab.pruning.apply import calibrated, draw_for, statistics_path

    drawn = draw_for(model, options, _root(datasets_root, model))
    return calibrated(model, drawn, statistics_path(model, drawn), moments=moments), drawn
