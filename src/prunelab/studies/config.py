"""The configuration of a study, the only YAML schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator, model_validator

from prunelab.errors import InvalidRequest, UnknownName
from prunelab.errors.text import one_line
from prunelab.evaluation.benchmarks import find_benchmark
from prunelab.evaluation.benchmarks.base import ChatTemplate
from prunelab.evaluation.benchmarks.suites import expand
from prunelab.inference.runtimes import Runtime
from prunelab.io import bounds, yaml_text
from prunelab.io.atomic_write import write_text
from prunelab.io.paths import LocalPath
from prunelab.io.structured import read_yaml_mapping
from prunelab.io.yaml_lines import line_of
from prunelab.pruning.allocation import Competition, Constraints
from prunelab.pruning.apply import CalibrationOptions, PruningOptions
from prunelab.pruning.methods import methods
from prunelab.studies.model_entry import (
    Frozen,
    ModelEntry,
    Ratios,
    Shots,
    checked_dtype,
    checked_memory,
    checked_ratios,
    each_known,
    each_once,
)
from prunelab.studies.trackers import trackers


def _entry(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class CalibrationConfig(Frozen):
    """The calibration set; see `draw_calibration_set`."""

    corpus: str = "wikitext2"
    samples: Annotated[int, bounds.SAMPLES.field] = 128
    sequence_length: Annotated[int, bounds.SEQUENCE_LENGTH.field] = 2048
    held_out: Annotated[int, bounds.SAMPLES.field] = 16

    def options(self, seed: int) -> CalibrationOptions:
        """These options with a seed."""
        return CalibrationOptions(self.corpus, self.samples, self.sequence_length, self.held_out, seed)


class PruningConfig(Frozen):
    """Pruning options; see `Constraints` and `PruningOptions`."""

    protect_first: Annotated[int, bounds.BLOCKS.field] = 0
    protect_last: Annotated[int, bounds.BLOCKS.field] = 0
    channel_multiple: Annotated[int, bounds.MULTIPLE.field] = 1
    drop_sublayers: bool = False
    competition: Competition = "all"
    uniform: bool = False
    compensation: Literal["auto", "none", "bias", "least_squares", "sequential", "linear_map"] = "auto"

    def options(self, seed: int) -> PruningOptions:
        """These options with a seed."""
        constraints = Constraints(
            self.protect_first, self.protect_last, self.channel_multiple, self.drop_sublayers, self.competition
        )
        return PruningOptions(constraints, self.uniform, self.compensation, seed)


class RayConfig(Frozen):
    """How cells run as Ray tasks.

    Attributes:
        address: address of a cluster, `HOST:PORT`, `ray://HOST:PORT` or `auto`; by default Ray is started locally.
        workers: cells to run in parallel if Ray is started locally; by default the number of CPU cores.
        cpus_a_cell: CPU cores per cell.
        gpus_a_cell: GPUs per cell, or a fraction of one.
        memory_a_cell: memory per cell, such as `20GB`; by default not limited.
        share_trunk: score the dense model and its depth-pruned models in one pass in a single task, as the local engine
            does, which computes less. If false, each cell is a separate task, which is faster with more workers than
            cells.
    """

    address: str | None = None
    workers: Annotated[int, bounds.WORKERS.field] | None = None
    cpus_a_cell: Annotated[float, bounds.CPUS.field] = 1
    gpus_a_cell: Annotated[float, bounds.PROCESSORS.field] = 0
    memory_a_cell: str | None = None
    share_trunk: bool = True

    @field_validator("memory_a_cell")
    @classmethod
    def _amount(cls, memory: str | None) -> str | None:
        return checked_memory(memory, "memory_a_cell")


class StudyConfig(Frozen):
    """A grid: models x methods x ratios x benchmarks.

    Attributes:
        models: models to prune; the dense models are measured as well.
        methods: pruning methods.
        ratios: shares of the blocks' projection weights to remove.
        benchmarks: benchmarks to run; `text:FILE` measures perplexity on a text file, `throughput` the speed.
        seeds: random seeds for random methods, and for the calibration set if `vary_calibration` is true.
        vary_calibration: draw a different calibration set for every seed.
        match_depth: depth methods remove complete blocks; give width methods the ratio that depth achieved, so that
            both are compared at the same size.
        suites: named sets of benchmarks, run before those in `benchmarks`; a suite may set a limit.
        shots: numbers of few-shot examples, each measured; by default the standard number of each benchmark.
        chat_template: whether to apply the tokenizer's chat template to prompts; see `EvaluationSettings`.
        allow_untrained_punkt: accepted for compatibility with older configurations; has no effect.
        allow_code_execution: allow HumanEval to run generated programs in a sandbox.
        completions: number of HumanEval completions per problem.
        temperature: sampling temperature of HumanEval completions; 0 is greedy decoding.
        limit: maximum number of documents per benchmark.
        window: tokens per perplexity window.
        memory: memory limit per model, such as `8GB`; by default the free memory. Larger models are pruned block by
            block and run from disk.
        runtime: how throughput runs the models, `eager` or `compiled`.
        engine: where cells run, `local` or `ray`.
        ray: options of the `ray` engine.
        trackers: services to send the figures to; see `prunelab.studies.trackers`.
    """

    models: tuple[Annotated[ModelEntry, BeforeValidator(_entry)], ...] = Field(min_length=1)
    methods: tuple[str, ...] = ("shortgpt", "flap", "hybrid")
    ratios: Ratios = (0.1, 0.2, 0.3)
    benchmarks: tuple[str, ...] = ("wikitext2", "throughput")
    suites: tuple[str, ...] = ()
    seeds: tuple[Annotated[int, bounds.SEED.field], ...] = Field(default=(0,), min_length=1)
    vary_calibration: bool = False
    match_depth: bool = True
    calibration: CalibrationConfig = CalibrationConfig()
    pruning: PruningConfig = PruningConfig()
    shots: tuple[Shots, ...] = ()
    chat_template: ChatTemplate = "auto"
    allow_untrained_punkt: bool = False
    allow_code_execution: bool = False
    completions: Annotated[int, bounds.COMPLETIONS.field] = 5
    temperature: Annotated[float, bounds.TEMPERATURE.field] = 0.8
    limit: Annotated[int, bounds.LIMIT.field] | None = None
    window: Annotated[int, bounds.WINDOW.field] = 2048
    runtime: Runtime = "eager"
    device: str | None = None
    dtype: str | None = None
    memory: str | None = None
    datasets_root: LocalPath | None = None
    out: LocalPath = Path("runs/study")
    engine: Literal["local", "ray"] = "local"
    ray: RayConfig = RayConfig()
    trackers: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _with_suites(cls, fields: Any) -> Any:
        """Expand suites into benchmarks; the limit of a suite applies if no other is given."""
        if not isinstance(fields, dict) or not fields.get("suites"):
            return fields
        chosen = [fields["suites"]] if isinstance(fields["suites"], str) else fields["suites"]
        for key, names in (("suites", chosen), ("benchmarks", fields.get("benchmarks", ()))):
            if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"{key}: {names!r} is not a list of names")
        try:
            names, limit = expand(chosen, fields.get("benchmarks", ()))
        except UnknownName as error:
            raise ValueError(f"suites: {error}") from None
        return {"limit": limit, **fields, "suites": chosen, "benchmarks": names}

    @field_validator("models", "methods", "ratios", "benchmarks", "shots", "seeds", "trackers", mode="before")
    @classmethod
    def _once(cls, values: Any) -> Any:
        return each_once(values)

    @field_validator("models")
    @classmethod
    def _distinct_names(cls, models: tuple[ModelEntry, ...]) -> tuple[ModelEntry, ...]:
        names = [entry.title for entry in models]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"two models are named {name!r}: give one of them another name ({{path: ..., name: ...}})"
                )
        return models

    @field_validator("calibration", mode="before")
    @classmethod
    def _corpus(cls, value: Any) -> Any:
        return {"corpus": value} if isinstance(value, str) else value or {}

    @field_validator("ratios")
    @classmethod
    def _possible(cls, ratios: Ratios) -> Ratios:
        return checked_ratios(ratios)

    @field_validator("memory")
    @classmethod
    def _amount(cls, memory: str | None) -> str | None:
        return checked_memory(memory, "--memory")

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, dtype: str | None) -> str | None:
        return checked_dtype(dtype)

    @field_validator("trackers")
    @classmethod
    def _known_trackers(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        each_known(names, trackers.__getitem__)
        return names

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        each_known(names, methods.__getitem__)
        return names

    @field_validator("benchmarks")
    @classmethod
    def _known_benchmarks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        each_known(names, find_benchmark)
        return names


_NESTED: dict[str, type[BaseModel]] = {
    "calibration": CalibrationConfig,
    "pruning": PruningConfig,
    "ray": RayConfig,
    "models": ModelEntry,
}


def study_config(fields: dict[str, Any], source: str = "the study", file: Path | None = None) -> StudyConfig:
    """Check a configuration.

    Args:
        fields: the given fields.
        source: name of the configuration for messages.
        file: YAML file of the fields, used to report line numbers.

    Raises:
        InvalidRequest: with the line, the key, the given value and what is allowed.
    """
    try:
        return StudyConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place: tuple[int | str, ...] = first["loc"]
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = _NESTED.get(str(place[0]) if len(place) > 1 else "", StudyConfig)
            message = f"unknown key; allowed keys are {', '.join(known.model_fields)}"
        key = ".".join(str(part) for part in place)
        text = f"{key}: {message}" if key else message
        where = _line(file, place or (text.split(":")[0],), fields) if file is not None else ""
        raise InvalidRequest(f"{source}{where}: {one_line(text, 1000)}") from None


def _line(file: Path, place: Sequence[int | str], fields: Mapping[str, Any]) -> str:
    """Describe the line of a key; empty if its value does not come from the file."""
    key = str(place[0])
    written = read_config(file)
    if key not in written or written[key] != fields.get(key):
        return ""
    return f", line {line_of(file.read_text(encoding='utf-8'), _narrowed(place, fields))}"


def _narrowed(place: Sequence[int | str], fields: Mapping[str, Any]) -> Sequence[int | str]:
    """The place of the invalid item, if the value at `place` is a list."""
    copy = deepcopy(dict(fields))
    above: Any = copy
    try:
        for part in place[:-1]:
            above = above[part]
        items = above[place[-1]]
    except (KeyError, IndexError, TypeError):
        return place
    for number, item in enumerate(items if isinstance(items, list) else ()):
        above[place[-1]] = [item]
        try:
            StudyConfig.model_validate(copy)
        except ValidationError as error:
            first = error.errors()[0]
            if (first["loc"] or (first["msg"].removeprefix("Value error, ").split(":")[0],))[: len(place)] == tuple(
                place
            ):
                return (*place, number)
    return place


def read_config(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
        InvalidRequest: the file is missing or not a YAML mapping.
    """
    remedy = "give the YAML file of a study, with at least the key `models`"
    return read_yaml_mapping(path, error=InvalidRequest, remedy=remedy)


def write_config(path: Path, config: StudyConfig) -> None:
    """Write the resolved configuration to a file."""
    write_text(path, yaml_text.dump(config.model_dump(mode="json")))
