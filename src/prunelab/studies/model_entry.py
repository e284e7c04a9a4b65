"""One model of a study with its overrides, and validators shared by the configuration classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from prunelab.errors import InvalidRequest, UnknownName
from prunelab.evaluation.benchmarks import find_benchmark
from prunelab.evaluation.benchmarks.base import ChatTemplate
from prunelab.io.bounds import RATIO, SHOTS
from prunelab.models.loading import parse_dtype, short_name
from prunelab.models.memory import parse_memory


class Frozen(BaseModel):
    """Base class of configurations: immutable, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Shots = Annotated[int, SHOTS.field]
Ratios = tuple[float, ...]


class ModelEntry(Frozen):
    """One model of the grid, with its overrides.

    Attributes:
        path: a folder or a hub id.
        name: name in tables; by default the folder's name.
        dtype: overrides the study's.
        device: overrides the study's.
        benchmarks: overrides the study's.
        ratios: overrides the study's.
        benchmark_ratios: restricts a benchmark to some ratios besides the dense model; other benchmarks are run at all
            ratios.
        shots: overrides the study's.
        chat_template: overrides the study's.
    """

    path: str
    name: str | None = None
    dtype: str | None = None
    device: str | None = None
    benchmarks: tuple[str, ...] | None = None
    ratios: Ratios | None = None
    benchmark_ratios: dict[str, Ratios] = Field(default_factory=dict)
    shots: tuple[Shots, ...] | None = None
    chat_template: ChatTemplate | None = None

    @property
    def title(self) -> str:
        """Name in tables."""
        return self.name or short_name(self.path)

    @field_validator("benchmarks", "ratios", "shots", mode="before")
    @classmethod
    def _once(cls, values: Any) -> Any:
        return values if values is None else each_once(values)

    @field_validator("dtype")
    @classmethod
    def _known_dtype(cls, dtype: str | None) -> str | None:
        return checked_dtype(dtype)

    @field_validator("benchmarks")
    @classmethod
    def _known_benchmarks(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        each_known(names or (), find_benchmark)
        return names

    @field_validator("ratios")
    @classmethod
    def _possible(cls, ratios: Ratios | None) -> Ratios | None:
        return ratios if ratios is None else checked_ratios(ratios)

    @field_validator("benchmark_ratios")
    @classmethod
    def _possible_ofeach(cls, ratios: dict[str, Ratios]) -> dict[str, Ratios]:
        each_known(tuple(ratios), find_benchmark)
        return {name: checked_ratios(allowed) for name, allowed in ratios.items()}


def each_once(values: Any) -> Any:
    """Validate that `values` is a list, and remove duplicates."""
    if not isinstance(values, list | tuple):
        raise ValueError(f"{values!r} is not a list: give a list, such as [{values}]")
    return [value for index, value in enumerate(values) if value not in values[:index]]


def checked_ratios(ratios: Ratios) -> Ratios:
    """Validate ratios; raises ValueError for an invalid one."""
    for ratio in ratios:
        if not RATIO.holds(ratio) or ratio == 0:
            raise ValueError(
                f"ratio {ratio:g} is not possible: give shares between 0 and 1 (the dense model, 0, is always included)"
            )
    return ratios


def checked_dtype(dtype: str | None) -> str | None:
    """Validate a number format; raises ValueError for an unknown one."""
    try:
        parse_dtype(dtype)
    except InvalidRequest as error:
        raise ValueError(str(error)) from None
    return dtype


def checked_memory(memory: str | None, called: str) -> str | None:
    """Validate an amount of memory; raises ValueError for an invalid one."""
    try:
        parse_memory(memory, called)
    except InvalidRequest as error:
        raise ValueError(str(error)) from None
    return memory


def each_known(names: tuple[str, ...], look_up: Callable[[str], object]) -> None:
    """Look up every name; raises ValueError with the known names for an unknown one."""
    for name in names:
        try:
            look_up(name)
        except UnknownName as error:
            raise ValueError(str(error)) from None
