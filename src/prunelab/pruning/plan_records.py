"""Records inside a plan: the dense model that it is for, and the calibration text that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from prunelab.models.families import BlockShape
from prunelab.pruning.unit_ranges import MOST_UNITS, blocks_in, to_ranges

MOST_PARAMETERS = 1 << 50


class Frozen(BaseModel):
    """A part of a plan: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _group_shapes(shapes: Sequence[BlockShape]) -> list[dict[str, Any]]:
    """Each distinct shape once, with the blocks that have it."""
    different = dict.fromkeys(shapes)
    return [
        {"blocks": to_ranges([i for i, s in enumerate(shapes) if s == shape]), **asdict(shape)} for shape in different
    ]


def _ungroup_shapes(value: Any) -> Any:
    """Inverse of `_group_shapes`: one shape per block; other values are returned unchanged for validation to reject."""
    if not isinstance(value, list) or not all(isinstance(v, dict) and isinstance(v.get("blocks"), str) for v in value):
        return value
    numbers = blocks_in([group["blocks"] for group in value])
    by_block = {
        block: {name: width for name, width in group.items() if name != "blocks"}
        for group, blocks in zip(value, numbers, strict=True)
        for block in blocks
    }
    return tuple(by_block[block] for block in range(len(by_block)))


def _possible(shapes: tuple[BlockShape, ...]) -> tuple[BlockShape, ...]:
    """Return the shapes; raise ValueError for a width that is out of bounds."""
    for shape in dict.fromkeys(shapes):
        for name, width in asdict(shape).items():
            least = 0 if name in ("key_value_groups", "channels") else 1
            if not least <= width <= MOST_UNITS:
                raise ValueError(f"{name} {width} is not possible: give {least} to {MOST_UNITS:,}")
    if not any(shape.cost for shape in shapes):
        raise ValueError("no block has any weights")
    return shapes


Shapes = Annotated[
    tuple[BlockShape, ...],
    BeforeValidator(_ungroup_shapes),
    AfterValidator(_possible),
    PlainSerializer(_group_shapes, return_type=list[dict[str, Any]]),
]


class BaseModelRecord(Frozen):
    """The dense model of a plan."""

    name: str
    family: str
    fingerprint: str
    parameters: int = Field(gt=0, lt=MOST_PARAMETERS)
    shapes: Shapes


class CalibrationRecord(BaseModel):
    """The calibration text of a plan; further keys are allowed."""

    corpus: str = ""
    split: str = ""
    samples: int = Field(default=2, ge=1, lt=2**31)
    sequence_length: int = Field(default=2, ge=2, lt=2**31)
    seed: int = Field(default=2, ge=0, lt=2**63)
    fingerprint: str = ""


class PlanProvenance(BaseModel):
    """The part of a plan's provenance that is read back; further keys are allowed."""

    calibration: CalibrationRecord | None = None
