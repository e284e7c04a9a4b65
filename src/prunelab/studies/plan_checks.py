"""Whether a plan that lies in a run's folder is the one that the study asks for."""

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
"""Key in a plan's provenance: hash of what a study asked for; `CONTENT` is that of all the rest of the plan."""


@dataclass(frozen=True)
class Asked:
    """What a plan must be of.

    Attributes:
        model: the dense model.
        method: the pruning method.
        ratio: asked for.
        options: constraints, compensation and seed.
        calibration: fingerprint of the calibration set; None where the method needs none.
        request: hash of all that decides the plan.
    """

    model: LanguageModel
    method: str
    ratio: float
    options: PruningOptions
    calibration: str | None
    request: str

    def fault(self, plan: PruningPlan) -> str | None:
        """In what a plan is not the one asked for; None where it is."""
        if plan.base.fingerprint != self.model.fingerprint:
            return f"it is of another model ({plan.base.name}, fingerprint {plan.base.fingerprint})"
        made: Mapping[str, Any] = plan.provenance
        calibrated = made.get("calibration")
        wanted = {
            "method": (plan.method, self.method),
            "ratio": (plan.requested_ratio, self.ratio),
            "number format": (made.get("dtype"), self.model.dtype),
            "seed": (made.get("seed"), self.options.seed if methods[self.method].is_random else None),
            "options": (made.get("options"), options_record(self.options)),
            "calibration": (calibrated.get("fingerprint") if isinstance(calibrated, dict) else None, self.calibration),
        }
        for name, (found, asked) in wanted.items():
            if found != asked:
                return f"it is of another cut ({name} {found}, not {asked})"
        if CONTENT in made and made.get(REQUEST) != self.request:
            return "it is of another cut (other options)"
        if CONTENT in made and made[CONTENT] != plan_content(plan.model_dump(mode="json")):
            return "it was changed after it was made"
        return None


def with_content(plan: PruningPlan, request: str) -> PruningPlan:
    """The plan with the hashes of what was asked for and of its contents in its provenance."""
    plan = plan.model_copy(update={"provenance": {**plan.provenance, REQUEST: request}})
    content = plan_content(plan.model_dump(mode="json"))
    return plan.model_copy(update={"provenance": {**plan.provenance, CONTENT: content}})


def is_proven(plan: PruningPlan, store: ResultsStore) -> bool:
    """Whether a plan is known to be as it was made: by its hash, or by measurements of just this cut.

    Earlier versions wrote plans without a hash; what they measured names the plan's fingerprint.
    """
    if CONTENT in plan.provenance:
        return True
    for folder in sorted(store.run.glob("cells/*")):
        kept = next(
            (kept for path in sorted(folder.glob("*.json")) if isinstance(kept := read_stored(path), StoredResult)),
            None,
        )
        if kept is not None and kept.cell.plan == plan.fingerprint and kept.cell.method == plan.method:
            return True
    return False
