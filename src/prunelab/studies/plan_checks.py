"""Check whether a plan in a run's folder is the one that the study requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunelab.pruning.methods import methods
from prunelab.pruning.plan_summary import CONTENT, plan_content
from prunelab.pruning.planner import PruningOptions, options_record
from prunelab.studies.store import ResultsStore, StoredResult, read_stored

if TYPE_CHECKING:
    from prunelab.models.loading import LanguageModel
    from prunelab.pruning.plan import PruningPlan

REQUEST = "request"
"""Provenance key: hash of the study's request; `CONTENT` is the hash of all other content of the plan."""


@dataclass(frozen=True)
class Asked:
    """The request that a plan must match.

    Attributes:
        model: the dense model.
        method: the pruning method.
        ratio: the requested ratio.
        options: constraints, compensation and seed.
        calibration: fingerprint of the calibration set; None if the method needs none.
        request: hash of everything that determines the plan.
    """

    model: LanguageModel
    method: str
    ratio: float
    options: PruningOptions
    calibration: str | None
    request: str

    def fault(self, plan: PruningPlan) -> str | None:
        """Why a plan does not match the request; None if it does."""
        if plan.base.fingerprint != self.model.fingerprint:
            return f"it belongs to another model ({plan.base.name}, fingerprint {plan.base.fingerprint})"
        provenance: Mapping[str, Any] = plan.provenance
        calibrated = provenance.get("calibration")
        compared = {
            "method": (plan.method, self.method),
            "ratio": (plan.requested_ratio, self.ratio),
            "number format": (provenance.get("dtype"), self.model.dtype),
            "seed": (provenance.get("seed"), self.options.seed if methods[self.method].is_random else None),
            "options": (provenance.get("options"), options_record(self.options)),
            "calibration": (calibrated.get("fingerprint") if isinstance(calibrated, dict) else None, self.calibration),
        }
        for name, (actual, requested) in compared.items():
            if actual != requested:
                return f"it belongs to another cut ({name} {actual}, not {requested})"
        if CONTENT in provenance and provenance.get(REQUEST) != self.request:
            return "it belongs to another cut (different options)"
        if CONTENT in provenance and provenance[CONTENT] != plan_content(plan.model_dump(mode="json")):
            return "it was modified after it was written"
        return None


def with_content(plan: PruningPlan, request: str) -> PruningPlan:
    """Add the hashes of the request and of the content to a plan's provenance."""
    plan = plan.model_copy(update={"provenance": {**plan.provenance, REQUEST: request}})
    content = plan_content(plan.model_dump(mode="json"))
    return plan.model_copy(update={"provenance": {**plan.provenance, CONTENT: content}})


def is_proven(plan: PruningPlan, store: ResultsStore) -> bool:
    """Whether a plan is verified, by its hash or by measurements of the same plan.

    Earlier versions wrote plans without a hash, but stored the plan's fingerprint with the measurements.
    """
    if CONTENT in plan.provenance:
        return True
    for folder in sorted(store.run.glob("cells/*")):
        stored = next(
            (stored for path in sorted(folder.glob("*.json")) if isinstance(stored := read_stored(path), StoredResult)),
            None,
        )
        if stored is not None and stored.cell.plan == plan.fingerprint and stored.cell.method == plan.method:
            return True
    return False
