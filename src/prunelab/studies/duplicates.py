"""Cuts of different names that arrived at the same model: measured once, and counted once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from prunelab.evaluation.records import Measurement


class CutName(NamedTuple):
    """What a cut is called; its seeds count as one cut."""

    model: str
    method: str
    ratio: float


class Named(Protocol):
    """Whatever is called as a cut is: the report's cuts, the evidence's, a measurement of one."""

    @property
    def model(self) -> str: ...  # noqa: D102

    @property
    def method(self) -> str: ...  # noqa: D102

    @property
    def ratio(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class DuplicateCuts:
    """The cuts of a run that are the same model, seed by seed.

    Attributes:
        first: by the name of a cut that came later, the name of the one that it equals.
    """

    first: Mapping[CutName, CutName]

    @classmethod
    def of(cls, measurements: Iterable[Measurement]) -> DuplicateCuts:
        """Those among a run's cuts, in the run's order."""
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
        """Whether a cut is the same model as one before it."""
        return CutName(cut.model, cut.method, cut.ratio) in self.first

    def sentences(self, model: str) -> list[str]:
        """One a pair of a model's methods: "hybrid at 10%, 20% is the same model as shortgpt"."""
        pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, before in self.first.items():
            if name.model == model:
                where = f" at {before.ratio:.0%}" if before.ratio != name.ratio else ""
                pairs[f"is the same model as {before.method}{where}", name.method].append(f"{name.ratio:.0%}")
        return [f"{method} at {', '.join(ratios)} {same}" for (same, method), ratios in pairs.items()]
