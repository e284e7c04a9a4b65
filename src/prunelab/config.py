"""The study's configuration: the only YAML schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from prunelab.allocation import Constraints
from prunelab.benchmarks import find_benchmark
from prunelab.benchmarks.base import ChatTemplate
from prunelab.benchmarks.suites import expand
from prunelab.errors import InvalidRequest, UnknownName
from prunelab.files import write_text
from prunelab.loading import short_name
from prunelab.methods import methods
from prunelab.prune import CalibrationOptions, PruningOptions


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelEntry(_Frozen):
    """One model of the grid, with what differs for it.

    Attributes:
        path: a folder, or an id on the hub.
        name: what tables call it; the folder's name if not given.
        dtype: overrides the study's.
        benchmarks: overrides the study's.
    """

    path: str
    name: str | None = None
    dtype: str | None = None
    benchmarks: tuple[str, ...] | None = None


def _entry(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


class CalibrationConfig(_Frozen):
    """Which text to calibrate on; see `draw_calibration_set`."""

    corpus: str = "wikitext2"
    samples: int = Field(default=128, ge=1)
    sequence_length: int = Field(default=2048, ge=2)
    held_out: int = Field(default=16, ge=1)

    def options(self, seed: int) -> CalibrationOptions:
        """The same with a seed."""
        return CalibrationOptions(self.corpus, self.samples, self.sequence_length, self.held_out, seed)


class PruningConfig(_Frozen):
    """How to prune; see `Constraints` and `PruningOptions`."""

    protect_first: int = Field(default=0, ge=0)
    protect_last: int = Field(default=0, ge=0)
    channel_multiple: int = Field(default=1, ge=1)
    drop_sublayers: bool = False
    uniform: bool = False
    compensation: Literal["auto", "bias", "none"] = "auto"

    def options(self, seed: int) -> PruningOptions:
        """The same with a seed."""
        constraints = Constraints(self.protect_first, self.protect_last, self.channel_multiple, self.drop_sublayers)
        return PruningOptions(constraints, self.uniform, self.compensation, seed)


class StudyConfig(_Frozen):
    """A grid: models x methods x ratios x benchmarks.

    Attributes:
        models: what to prune; each is measured whole as well.
        methods: how.
        ratios: shares of the blocks' projection weights.
        benchmarks: what to measure; `text:FILE` is the perplexity of any text, `throughput` the speed.
        seeds: each gives every random method another draw, and every method another calibration if `vary_calibration`.
        vary_calibration: draw the calibration text anew for every seed.
        match_depth: depth moves in whole blocks; give width methods the ratio that depth achieved, so that the two are
            compared at one size.
        suites: named selections of benchmarks, measured before those in `benchmarks`; a suite may set a limit.
        shots: examples in the prompt; several are each measured, none is each benchmark's own number.
        chat_template: whether prompts go through the tokenizer's chat template; see `EvaluationSettings`.
        allow_untrained_punkt: let IFEval do without nltk's trained sentence splitter, and mark the figures.
        allow_code_execution: let HumanEval run generated programs, in a cage.
        completions: HumanEval's, of each problem.
        temperature: of HumanEval's completions; 0 is greedy.
        limit: only so many documents a benchmark.
        window: tokens a perplexity window.
    """

    models: tuple[Annotated[ModelEntry, BeforeValidator(_entry)], ...] = Field(min_length=1)
    methods: tuple[str, ...] = ("shortgpt", "flap", "hybrid")
    ratios: tuple[float, ...] = (0.1, 0.2, 0.3)
    benchmarks: tuple[str, ...] = ("wikitext2", "throughput")
    suites: tuple[str, ...] = ()
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field(default=(0,), min_length=1)
    vary_calibration: bool = False
    match_depth: bool = True
    calibration: CalibrationConfig = CalibrationConfig()
    pruning: PruningConfig = PruningConfig()
    shots: tuple[Annotated[int, Field(ge=0)], ...] = ()
    chat_template: ChatTemplate = "auto"
    allow_untrained_punkt: bool = False
    allow_code_execution: bool = False
    completions: int = Field(default=5, ge=1)
    temperature: float = Field(default=0.8, ge=0)
    limit: int | None = Field(default=None, ge=1)
    window: int = Field(default=2048, ge=2)
    device: str | None = None
    dtype: str | None = None
    datasets_root: Path | None = None
    out: Path = Path("runs/study")

    @model_validator(mode="before")
    @classmethod
    def _with_suites(cls, fields: Any) -> Any:
        """Suites are spelled out; their limit holds where no other is given."""
        if not isinstance(fields, dict) or not fields.get("suites"):
            return fields
        chosen = [fields["suites"]] if isinstance(fields["suites"], str) else fields["suites"]
        for key, names in (("suites", chosen), ("benchmarks", fields.get("benchmarks", ()))):
            if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"{key}: {names!r} is not a list of names")
        try:
            names, limit = expand(chosen, fields.get("benchmarks", ()))
        except UnknownName as error:
            raise ValueError(str(error)) from None
        return {"limit": limit, **fields, "suites": chosen, "benchmarks": names}

    @field_validator("models", "methods", "ratios", "benchmarks", "shots", "seeds", mode="before")
    @classmethod
    def _once(cls, values: Any) -> Any:
        """What is named twice is measured once."""
        if not isinstance(values, list | tuple):
            raise ValueError(f"{values!r} is not a list: give one, such as [{values}]")
        return [value for index, value in enumerate(values) if value not in values[:index]]

    @field_validator("models")
    @classmethod
    def _told_apart(cls, models: tuple[ModelEntry, ...]) -> tuple[ModelEntry, ...]:
        names = [entry.name or short_name(entry.path) for entry in models]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two models are called {name!r}: give one of them a name ({{path: ..., name: ...}})")
        return models

    @field_validator("calibration", mode="before")
    @classmethod
    def _corpus(cls, value: Any) -> Any:
        return {"corpus": value} if isinstance(value, str) else value or {}

    @field_validator("ratios")
    @classmethod
    def _possible(cls, ratios: tuple[float, ...]) -> tuple[float, ...]:
        for ratio in ratios:
            if not 0 < ratio < 1:
                raise ValueError(
                    f"ratio {ratio:g} is not possible: give shares between 0 and 1 (0, dense, is always in)"
                )
        return ratios

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        _each(names, methods.__getitem__)
        return names

    @field_validator("benchmarks")
    @classmethod
    def _known_benchmarks(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        _each(names, find_benchmark)
        return names


def _each(names: tuple[str, ...], look_up: Any) -> None:
    for name in names:
        try:
            look_up(name)
        except UnknownName as error:
            raise ValueError(str(error)) from None


_NESTED: dict[str, type[BaseModel]] = {
    "calibration": CalibrationConfig,
    "pruning": PruningConfig,
    "models": ModelEntry,
}


def study_config(fields: dict[str, Any], source: str = "the study") -> StudyConfig:
    """Check a configuration.

    Raises:
        InvalidRequest: naming the key, what was given and what is allowed.
    """
    try:
        return StudyConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = _NESTED.get(str(first["loc"][0]) if len(first["loc"]) > 1 else "", StudyConfig)
            message = f"no such key; known are {', '.join(known.model_fields)}"
        raise InvalidRequest(f"{source}: {key}: {message}" if key else f"{source}: {message}") from None


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        InvalidRequest: the file is missing, or no YAML mapping.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(
            f"{path} cannot be read ({error.strerror}): give the path of a study's YAML file"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InvalidRequest(f"{path} is not YAML ({reason}): mend it") from None
    if not isinstance(fields, dict):
        raise InvalidRequest(f"{path} holds no keys: a study's YAML file names at least `models`")
    return fields


def write_config(path: Path, config: StudyConfig) -> None:
    """Write the resolved configuration down."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
