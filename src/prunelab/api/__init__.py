"""The Python API: the functions behind the commands, for scripts and notebooks.

    import prunelab

    model = prunelab.load("pocket-llama")
    pruned = prunelab.prune(model, method="flap", ratio=0.2)
    prunelab.evaluate(pruned, "arc_easy")
    pruned.save("pruned")

Heavy libraries are imported only when a function is called. Every function raises `PrunelabError` for errors that its
caller can fix.
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
    """Drop the messages that transformers logs for each config with per-block widths, five lines per model."""
    return not record.getMessage().startswith("Reading global config value")


logging.getLogger("transformers.integrations.heterogeneity.configuration_utils").addFilter(_for_the_user)


def load(model: PathLike, *, device: str | None = None, dtype: str | None = None) -> LanguageModel:
    """Load a dense or pruned checkpoint.

    Args:
        model: a folder, a hub id, or the name of a pocket model.
        device: `cuda`, `cpu`, ...; by default the best available.
        dtype: `float32`, `bfloat16` or `float16`; by default that of the checkpoint.

    Raises:
        CheckpointError: the checkpoint is missing, gated, damaged, or not in safetensors format.
        UnsupportedModel: the architecture is not supported.
        InvalidRequest: the device or dtype is unknown.
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
    """Prune a model; the given model is not changed.

    Calibration statistics are cached, so that a second method or ratio needs no second calibration pass.

    Args:
        model: a loaded model, or what `load` takes.
        method: see `prunelab list methods`.
        ratio: share of the blocks' projection weights to remove.
        calibration: `wikitext2`, `c4`, `textvqa` (images with text), or a `.txt` or `.jsonl` file.
        samples: number of calibration samples.
        sequence_length: tokens per sample, at most the model's context length.
        seed: random seed of the calibration sample and of random methods.
        protect_first: number of blocks at the start to leave unpruned.
        protect_last: number of blocks at the end to leave unpruned.
        channel_multiple: round pruned MLP widths to a multiple of this.
        drop_sublayers: allow removing the entire attention or MLP of a block.
        competition: which units are ranked together in width pruning; see `Constraints`.
        uniform: prune all blocks to the same width, which standard transformers classes can load.
        compensation: how to compensate for removed units; `auto` is the default of the method.
        datasets_root: folder with local copies of data sets.

    Raises:
        UnknownName: the method, corpus, competition or compensation does not exist.
        InvalidRequest: the ratio cannot be reached, or options contradict each other.
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
    """Evaluate a dense or pruned model on benchmarks.

    Args:
        model: a loaded or pruned model, or what `load` takes.
        benchmarks: one or more names; `text:FILE` measures perplexity on a text file.
        suites: one or more names from `prunelab list suites`.
        shots: numbers of few-shot examples, each measured; by default the benchmark's standard number.
        datasets_root: folder with local copies of data sets.
        settings: fields of `EvaluationSettings`, such as `limit=100` or `allow_code_execution=True`.

    Raises:
        UnknownName: the benchmark or suite does not exist.
        MissingRequirement: something must be installed or allowed first.
        DataError: the data of a benchmark are not available.
        InvalidRequest: no benchmark is given, or the model does not support one.

    Missing requirements are reported before weights are loaded, and unsupported benchmarks before anything is computed.
    """
    from prunelab.api.results import EvaluationResult, settings_of
    from prunelab.errors import InvalidRequest
    from prunelab.evaluation.benchmarks.suites import expand
    from prunelab.evaluation.runner import benchmark_tasks, checked_model, dense_cell
    from prunelab.evaluation.runner import evaluate as run

    names, limit = expand(_listed(suites), _listed(benchmarks))
    if not names:
        raise InvalidRequest("nothing to evaluate: name a benchmark or a suite (see `prunelab list benchmarks`)")
    source = _given(model)
    chosen = settings_of({"limit": limit, **settings}, _root(datasets_root, source))
    runs = benchmark_tasks(names, chosen, shots)
    loaded = checked_model(runs, source, load)
    cell = dense_cell(loaded)
    return EvaluationResult([m for benchmark, how in runs for m in run(loaded, cell, benchmark, how).measurements])


def study(models: str | Sequence[str] = (), **fields: Any) -> Run:
    """Prune models with every method and ratio, measure each, and compare it with the dense model on the same samples.

    An interrupted study resumes; a finished one is read from its folder.

    Args:
        models: folders, hub ids or pocket models; by default the pocket study.
        fields: fields of `StudyConfig`: `methods=["flap"], ratios=[0.2], benchmarks=["wikitext2"], out="runs/mine"`.

    Raises:
        InvalidRequest: a field is unknown or has an invalid value.
        PrunelabError: a requirement is missing; raised before anything is computed.
    """
    from prunelab.evaluation.benchmarks.suites import expand
    from prunelab.models.bundled import checkpoint_of
    from prunelab.pocket.study import pocket_study
    from prunelab.reports import write_report
    from prunelab.studies.config import study_config
    from prunelab.studies.runner import run_study

    chosen = _listed(models)
    study_config({**fields, "models": chosen or ["pocket-llama"]})  # refuse invalid fields early
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
    """Write a run's report again and return it for display.

    Args:
        run: the result of `study`, or the folder of a run.

    Raises:
        InvalidRequest: the folder does not hold a finished run.
    """
    from prunelab.api.results import ReportResult
    from prunelab.reports import write_report
    from prunelab.studies.run import Run, load_run

    finished_run = run if isinstance(run, Run) else load_run(Path(run))
    write_report(finished_run)
    return ReportResult(finished_run)


def _as_typed(model: str, given: Mapping[str, Any]) -> str:
    """The call of `prune` as code, with the method, the ratio and every argument that differs from its default."""
    words = [repr(model)]
    for name, known in list(signature(prune).parameters.items())[1:]:
        value = os.fspath(given[name]) if isinstance(given[name], os.PathLike) else given[name]
        if name in ("method", "ratio") or value != known.default:
            words.append(f"{name}={value!r}")
    return f"prunelab.prune({', '.join(words)})"


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else [os.fspath(name) for name in names]


def _given(model: PathLike | LanguageModel | PrunedModel) -> str | LanguageModel:
    """A model, or the path of its checkpoint."""
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    from prunelab.api.results import PrunedModel

    return model.model if isinstance(model, PrunedModel) else model


def _loaded(model: PathLike | LanguageModel | PrunedModel) -> LanguageModel:
    source = _given(model)
    return load(source) if isinstance(source, str) else source


def _root(given: PathLike | None, model: str | LanguageModel) -> Path | None:
    """The folder to read data from; pocket models, also pruned, use the miniature data sets bundled with them."""
    from prunelab.models.bundled import ALL_MODELS
    from prunelab.pocket.data import data_root

    folder = None if given is None else Path(given)
    if isinstance(model, str):
        return data_root(folder, [model])
    pocket_names = [name for name in ALL_MODELS if model.name == name or model.name.startswith(f"{name}-")]
    return data_root(folder, pocket_names[:1])


def _calibrated(model: LanguageModel, options: Any, datasets_root: PathLike | None, moments: bool) -> tuple[Any, Any]:
    from prunelab.pruning.apply import calibrated, draw_for, statistics_path

    drawn = draw_for(model, options, _root(datasets_root, model))
    return calibrated(model, drawn, statistics_path(model, drawn), moments=moments), drawn
