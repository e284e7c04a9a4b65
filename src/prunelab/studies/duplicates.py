"""Duplicate cuts: different requests that result in the same pruned model, measured and counted once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from prunelab.evaluation.records import Measurement


class CutName(NamedTuple):
    """Name of a cut; all its seeds count as one cut."""

    model: str
    method: str
    ratio: float


class Named(Protocol):
    """Any object that is named like a cut, such as a measurement."""

    @property
    def model(self) -> str: ...  # noqa: D102

    @property
    def method(self) -> str: ...  # noqa: D102

    @property
    def ratio(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class DuplicateCuts:
    """The cuts of a run that are the same model for every seed.

    Attributes:
        first: name of the earlier, equal cut, by the name of the duplicate.
    """

    first: Mapping[CutName, CutName]

    @classmethod
    def of(cls, measurements: Iterable[Measurement]) -> DuplicateCuts:
        """Find the duplicates among the cuts of a run, in its order."""
        plans: dict[CutName, dict[int | None, str | None]] = defaultdict(dict)
        for m in measurements:
            if m.method != "dense":
                plans[CutName(m.model, m.method, m.ratio)][m.seed] = m.plan
        first: dict[CutName, CutName] = {}
        seen: dict[tuple[str, frozenset[tuple[int | None, str | None]]], CutName] = {}
        for name, by_seed in plans.items():
            if None not in by_seed.values():
                before = seen.setdefault((name.model, frozenset(by_seed.items())), name)
                if before != name:
                    first[name] = before
        return cls(first)

    def has(self, cut: Named) -> bool:
        """Whether a cut is the same model as an earlier one."""
        return CutName(cut.model, cut.method, cut.ratio) in self.first

    def sentences(self, model: str) -> list[str]:
        """One sentence per pair of a model's methods: "hybrid at 10%, 20% is the same model as shortgpt"."""
        pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, before in self.first.items():
            if name.model == model:
                where = f" at {before.ratio:.0%}" if before.ratio != name.ratio else ""
                pairs[f"is the same model as {before.method}{where}", name.method].append(f"{name.ratio:.0%}")
        return [f"{method} at {', '.join(ratios)} {same}" for (same, method), ratios in pairs.items()]
