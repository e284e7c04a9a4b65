"""A run's plans in numbers: counts are enough for tables and maps, and large models' plans name many units.

`PruningPlan.load` checks every plan and spells out every unit, which for hundreds of plans of a large model takes
minutes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prunelab.io.fingerprint import content_hash
from prunelab.pruning.plan import to_ranges

UNITS = ("key_value_groups", "channels")


@dataclass(frozen=True)
class PlannedCut:
    """A plan in numbers.

    Attributes:
        path: its file.
        fingerprint: as `PruningPlan.fingerprint`.
        model: the base model's name.
        family: the base model's.
        parameters: the base model's.
        requested_ratio: the share asked for.
        achieved_ratio: the share that goes.
        removed: of every block of the dense model the removed share of its units, by kind of unit.
        removed_groups: of every block of the dense model the key-value groups that go, as text such as `0-1,5`.
        removed_blocks: blocks that go whole.
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
    """The plans in a folder that have one of these fingerprints; a file that is no plan is passed over."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            cut = _cut(path, json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
        if cut.fingerprint in wanted:
            found[cut.fingerprint] = cut
    return found


def _cut(path: Path, plan: Mapping[str, Any]) -> PlannedCut:
    base = plan["base"]
    shapes = {block: shape for shape in base["shapes"] for block in _spelled_out(shape["blocks"])}
    kept = {one["block"]: one for one in plan["blocks"]}
    blocks = sorted(shapes)
    removed = {}
    for unit in UNITS:
        whole = [shapes[block][unit] for block in blocks]
        left = [_count(kept[block][unit]) if block in kept else 0 for block in blocks]
        # A base that was pruned before may have blocks with nothing left to remove.
        removed[unit] = tuple(1 - b / a if a else 0.0 for a, b in zip(whole, left, strict=True))
    groups = "key_value_groups"
    gone = tuple(_others(kept[block][groups] if block in kept else "", shapes[block][groups]) for block in blocks)
    return PlannedCut(
        path,
        _fingerprint(plan),
        base["name"],
        base["family"],
        base["parameters"],
        plan["requested_ratio"],
        plan["achieved_ratio"],
        removed,
        gone,
        tuple(block for block in blocks if block not in kept),
    )


def _fingerprint(plan: Mapping[str, Any]) -> str:
    decisive = {"base": plan["base"]["fingerprint"], "blocks": plan["blocks"], "compensation": plan["compensation"]}
    if plan["compensation"] != "none":
        decisive["calibration"] = plan["provenance"].get("calibration", {}).get("fingerprint")
    return content_hash(decisive)


def _count(ranges: str) -> int:
    """How many units `"0-2,5"` names; the end of a range is read as a negative number."""
    if not ranges:
        return 0
    numbers = np.fromstring(ranges.replace("-", ",-"), dtype=np.int64, sep=",")
    ends = np.flatnonzero(numbers < 0)
    return int(len(numbers) - len(ends) - (numbers[ends] + numbers[ends - 1]).sum())


def _spelled_out(ranges: str) -> list[int]:
    edges = (piece.partition("-") for piece in ranges.split(",") if piece)
    return [unit for first, _, last in edges for unit in range(int(first), int(last or first) + 1)]


def _others(ranges: str, of: int) -> str:
    """Those of so many units that are not named."""
    named = set(_spelled_out(ranges))
    return to_ranges([unit for unit in range(of) if unit not in named])
