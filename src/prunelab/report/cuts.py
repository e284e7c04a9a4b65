"""What plans removed, read from their files: counts are enough here, and large models' plans name many units.

`Run.plans` checks every plan and spells out every unit, which for hundreds of plans takes longer than all else here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prunelab.fingerprint import content_hash
from prunelab.run import Run

UNITS = ("key_value_groups", "channels")


@dataclass(frozen=True)
class PlannedCut:
    """A plan in numbers.

    Attributes:
        fingerprint: as `PruningPlan.fingerprint`.
        requested_ratio: the share asked for.
        achieved_ratio: the share that goes.
        removed: of every block of the dense model the removed share of its units, by kind of unit.
        removed_blocks: blocks that go whole.
    """

    fingerprint: str
    requested_ratio: float
    achieved_ratio: float
    removed: Mapping[str, tuple[float, ...]]
    removed_blocks: tuple[int, ...]


def planned_cuts(run: Run) -> dict[str, PlannedCut]:
    """The plans of a run's cells, by fingerprint; a file that is no plan is passed over."""
    wanted = {m.plan for m in run.measurements}
    found = {}
    for path in sorted(run.folder.glob("plans/*.json")):
        try:
            cut = _cut(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if cut.fingerprint in wanted:
            found[cut.fingerprint] = cut
    return found


def _cut(plan: Mapping[str, Any]) -> PlannedCut:
    shapes = {block: shape for shape in plan["base"]["shapes"] for block in _spelled_out(shape["blocks"])}
    kept = {one["block"]: one for one in plan["blocks"]}
    removed = {}
    for unit in UNITS:
        whole = [shapes[block][unit] for block in sorted(shapes)]
        left = [_count(kept[block][unit]) if block in kept else 0 for block in sorted(shapes)]
        # A base that was pruned before may have blocks with nothing left to remove.
        removed[unit] = tuple(1 - b / a if a else 0.0 for a, b in zip(whole, left, strict=True))
    gone = tuple(block for block in sorted(shapes) if block not in kept)
    return PlannedCut(_fingerprint(plan), plan["requested_ratio"], plan["achieved_ratio"], removed, gone)


def _fingerprint(plan: Mapping[str, Any]) -> str:
    decisive = {"base": plan["base"]["fingerprint"], "blocks": plan["blocks"], "compensation": plan["compensation"]}
    if plan["compensation"] != "none":
        decisive["calibration"] = plan["provenance"].get("calibration", {}).get("fingerprint")
    return content_hash(decisive)


def _count(ranges: str) -> int:
    """How many units `"0-2,5"` names."""
    edges = (piece.partition("-") for piece in ranges.split(",") if piece)
    return sum(int(last or first) - int(first) + 1 for first, _, last in edges)


def _spelled_out(ranges: str) -> list[int]:
    edges = (piece.partition("-") for piece in ranges.split(",") if piece)
    return [unit for first, _, last in edges for unit in range(int(first), int(last or first) + 1)]
