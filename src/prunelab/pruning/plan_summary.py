"""Summaries of a run's plans: unit counts are enough for tables and maps.

`PruningPlan.load` validates every plan and expands every unit, which takes minutes for hundreds of plans of a large
model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from prunelab.errors import DataError
from prunelab.io.fingerprint import content_hash
from prunelab.io.structured import read_json_object
from prunelab.pruning.plan_records import PlanProvenance
from prunelab.pruning.unit_ranges import MOST_UNITS, blocks_in, count_in, edges_of, spelled_out, to_ranges

UNITS = ("key_value_groups", "channels")
CONTENT = "content"
"""Key in a plan's provenance: hash of all the rest of the plan, as a study writes it."""


@dataclass(frozen=True)
class PlannedCut:
    """Summary of a plan.

    Attributes:
        path: the plan's file.
        fingerprint: as `PruningPlan.fingerprint`.
        model: name of the dense model.
        family: family of the dense model.
        parameters: number of parameters of the dense model.
        requested_ratio: requested share of the blocks' projection weights.
        achieved_ratio: removed share.
        removed: by kind of unit, the removed share of the units of each block of the dense model.
        removed_groups: for each block of the dense model, the removed key-value groups as text such as `0-1,5`.
        removed_blocks: blocks that are removed entirely.
    """

    path: Path
    fingerprint: str
    model: str
    family: str
    parameters: int
    requested_ratio: float
    achieved_ratio: float
    removed: Mapping[str, tuple[float, ...]]
    removed_groups: tuple[str, ...]
    removed_blocks: tuple[int, ...]


def planned_cuts(folder: Path, wanted: Collection[str | None]) -> dict[str, PlannedCut]:
    """The plans in a folder that have one of the wanted fingerprints.

    Files that are not plans, or that were changed after a study wrote them, are skipped.
    """
    plans = {}
    for path in sorted(folder.glob("*.json")):
        try:
            cut = _cut(path, read_json_object(path))
        except (DataError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
            continue
        if cut.fingerprint in wanted:
            plans[cut.fingerprint] = cut
    return plans


class _Base(BaseModel):
    name: str
    family: str
    fingerprint: str
    parameters: int
    shapes: list[dict[str, Any]]


class _Block(BaseModel):
    block: int
    key_value_groups: str
    channels: str


class _Numbers(BaseModel):
    """The fields of a plan file that are read; unit ranges are not expanded."""

    base: _Base
    blocks: list[_Block]
    requested_ratio: float = Field(allow_inf_nan=False)
    achieved_ratio: float = Field(allow_inf_nan=False)
    compensation: str
    provenance: PlanProvenance = PlanProvenance()


def plan_content(fields: Mapping[str, Any]) -> str:
    """Hash of a plan's fields as they are written, without the hash itself."""
    made = {key: value for key, value in fields["provenance"].items() if key != CONTENT}
    return content_hash({**fields, "provenance": made})


def _cut(path: Path, fields: Mapping[str, Any]) -> PlannedCut:
    plan = _Numbers.model_validate(fields)
    made = fields.get("provenance", {})
    if CONTENT in made and made[CONTENT] != plan_content(fields):
        raise ValueError("it was changed after it was made")
    named = blocks_in([shape["blocks"] for shape in plan.base.shapes])
    shapes = {block: shape for shape, indices in zip(plan.base.shapes, named, strict=True) for block in indices}
    kept = {planned.block: planned for planned in plan.blocks}
    blocks = sorted(shapes)
    removed = {}
    for unit in UNITS:
        totals = [_possible(shapes[block][unit]) for block in blocks]
        kept_counts = [count_in(getattr(kept[block], unit)) if block in kept else 0 for block in blocks]
        # An earlier pruning may have left blocks without units.
        removed[unit] = tuple(1 - b / a if a else 0.0 for a, b in zip(totals, kept_counts, strict=True))
    removed_groups = tuple(
        _others(kept[block].key_value_groups if block in kept else "", shapes[block]["key_value_groups"])
        for block in blocks
    )
    return PlannedCut(
        path,
        _fingerprint(fields, plan),
        plan.base.name,
        plan.base.family,
        plan.base.parameters,
        plan.requested_ratio,
        plan.achieved_ratio,
        removed,
        removed_groups,
        tuple(block for block in blocks if block not in kept),
    )


def _fingerprint(fields: Mapping[str, Any], plan: _Numbers) -> str:
    decisive = {"base": plan.base.fingerprint, "blocks": fields["blocks"], "compensation": plan.compensation}
    if plan.compensation != "none":
        decisive["calibration"] = (fields.get("provenance", {}).get("calibration") or {}).get("fingerprint")
    return content_hash(decisive)


def _possible(units: Any) -> int:
    if not isinstance(units, int) or not 0 <= units <= MOST_UNITS:
        raise ValueError(f"{units!r} units are not possible: give 0 to {MOST_UNITS:,}")
    return units


def _others(ranges: str, of: int) -> str:
    """The units below `of` that the ranges do not contain."""
    edges = edges_of(ranges)
    if edges and edges[-1][1] >= of:
        raise ValueError(f"unit {edges[-1][1]} is out of range: the block has {of} units")
    named = set(spelled_out(ranges))
    return to_ranges([unit for unit in range(of) if unit not in named])
