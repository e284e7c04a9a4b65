"""The pruning plan: a small readable file that says what is kept, and why.

Base model, plan and statistics together give the pruned model again, to the bit; where compensation is by least
squares, base model, plan and the calibration tokens that the plan names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from prunelab.errors import PlanError, PlanMismatch
from prunelab.io.atomic_write import write_text
from prunelab.io.fingerprint import content_hash
from prunelab.io.html import html_table
from prunelab.models.families import BlockShape, Decoder
from prunelab.pruning.allocation import Kept, achieved_ratio
from prunelab.pruning.compensation import Compensation


def to_ranges(units: Sequence[int]) -> str:
    """Ascending indices as text: `[0, 1, 2, 5]` is `"0-2,5"`."""
    pieces: list[str] = []
    start = previous = None
    for unit in [*units, None]:
        if previous is not None and unit != previous + 1:
            pieces.append(f"{start}" if start == previous else f"{start}-{previous}")
            start = unit
        elif start is None:
            start = unit
        previous = unit
    return ",".join(pieces)


def from_ranges(value: Any) -> Any:
    """What `to_ranges` wrote, as a tuple; any other value is passed on for validation to judge."""
    if not isinstance(value, str):
        return value
    units: list[int] = []
    for piece in filter(None, value.split(",")):
        first, _, last = piece.partition("-")
        units.extend(range(int(first), int(last or first) + 1))
    return tuple(units)


Units = Annotated[tuple[int, ...], BeforeValidator(from_ranges), PlainSerializer(to_ranges, return_type=str)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlannedBlock(_Frozen):
    """One kept block: its number in the base model and what of it stays."""

    block: int = Field(ge=0)
    key_value_groups: Units
    channels: Units


def _group_shapes(shapes: Sequence[BlockShape]) -> list[dict[str, Any]]:
    """Equal shapes written once, with the blocks that have them."""
    different = dict.fromkeys(shapes)
    return [
        {"blocks": to_ranges([i for i, s in enumerate(shapes) if s == shape]), **asdict(shape)} for shape in different
    ]


def _ungroup_shapes(value: Any) -> Any:
    """What `_group_shapes` wrote, one shape a block; any other value is passed on for validation to judge."""
    if not isinstance(value, list) or not all(isinstance(v, dict) and isinstance(v.get("blocks"), str) for v in value):
        return value
    by_block = {
        block: {name: width for name, width in group.items() if name != "blocks"}
        for group in value
        for block in from_ranges(group["blocks"])
    }
    return tuple(by_block[block] for block in sorted(by_block))


Shapes = Annotated[
    tuple[BlockShape, ...],
    BeforeValidator(_ungroup_shapes),
    PlainSerializer(_group_shapes, return_type=list[dict[str, Any]]),
]


class BaseModelRecord(_Frozen):
    """The model that a plan is for."""

    name: str
    family: str
    fingerprint: str
    parameters: int = Field(gt=0)
    shapes: Shapes


def _left(block: PlannedBlock, shape: BlockShape) -> tuple[str, str]:
    """What stays of a block, in words."""
    return (
        f"{len(block.key_value_groups)} of {shape.key_value_groups}",
        f"{len(block.channels):,} of {shape.channels:,}",
    )


class PruningPlan(_Frozen):
    """What is kept of which model.

    Attributes:
        format: version of this file's layout.
        base: the model before the cut.
        method: the method that chose.
        requested_ratio: the share of the blocks' projection weights asked for.
        achieved_ratio: the share that goes; norms and added biases are not counted.
        share_of_model: the removed weights as a share of all the model's parameters.
        blocks: what is kept, block by block.
        compensation: `bias` adds to each output projection what its removed inputs said on average (FLAP);
            `least_squares` and `sequential` fit its kept weights to the calibration tokens as well; `linear_map` puts a
            linear map in place of every run of removed blocks.
        notes: what the user should know, a sentence each.
        provenance: calibration data, seed, options, versions.
    """

    format: Literal["prunelab/plan/1"] = "prunelab/plan/1"
    base: BaseModelRecord
    method: str = Field(pattern=r"^[A-Za-z0-9_ +-]+$")
    requested_ratio: float = Field(ge=0, lt=1)
    achieved_ratio: float = Field(ge=0, lt=1)
    share_of_model: float = Field(ge=0, lt=1)
    blocks: tuple[PlannedBlock, ...]
    compensation: Compensation
    notes: tuple[str, ...] = ()
    provenance: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> PruningPlan:
        shapes = self.base.shapes
        numbers = [b.block for b in self.blocks]
        if not numbers or numbers != sorted(set(numbers)) or numbers[-1] >= len(shapes):
            raise ValueError(f"blocks must be ascending numbers below {len(shapes)}, at least one")
        for b in self.blocks:
            for name, limit in (
                ("key_value_groups", shapes[b.block].key_value_groups),
                ("channels", shapes[b.block].channels),
            ):
                units = getattr(b, name)
                if list(units) != sorted(set(units)) or any(not 0 <= u < limit for u in units):
                    raise ValueError(f"block {b.block}: {name} must be ascending numbers from 0 to {limit - 1}")
        true = achieved_ratio(shapes, self.kept)
        if abs(true - self.achieved_ratio) > 1e-6:
            raise ValueError(f"achieved_ratio says {self.achieved_ratio:g}, what is kept says {true:g}")
        whole = sum(shape.cost for shape in shapes)
        if abs(true * whole / self.base.parameters - self.share_of_model) > 1e-6:
            raise ValueError(f"share_of_model says {self.share_of_model:g}, weights and parameters say otherwise")
        return self

    def __repr__(self) -> str:
        return (
            f"PruningPlan({self.base.name!r}, {self.method!r}, {len(self.blocks)} of {len(self.base.shapes)} blocks "
            f"kept, {self.achieved_ratio:.2%} of the blocks' weights removed)"
        )

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """A row a block, for notebooks."""
        kept = {block.block: block for block in self.blocks}
        rows = [
            (number, *_left(kept[number], shape)) if number in kept else (number, "removed", "removed")
            for number, shape in enumerate(self.base.shapes)
        ]
        return html_table(("block", "key-value groups kept", "MLP channels kept"), rows, repr(self))

    @property
    def kept(self) -> Kept:
        """What stays."""
        return Kept(
            blocks=tuple(b.block for b in self.blocks),
            key_value_groups=tuple(b.key_value_groups for b in self.blocks),
            channels=tuple(b.channels for b in self.blocks),
        )

    @property
    def removed_blocks(self) -> list[int]:
        """Blocks that go."""
        kept = {b.block for b in self.blocks}
        return [block for block in range(len(self.base.shapes)) if block not in kept]

    @property
    def fingerprint(self) -> str:
        """Hash of what the plan does, its story aside; 16 hexadecimal digits."""
        decisive = self.model_dump(mode="json", include={"base", "blocks", "compensation"})
        decisive["base"] = self.base.fingerprint
        if self.compensation != "none":
            decisive["calibration"] = self.provenance.get("calibration", {}).get("fingerprint")
        return content_hash(decisive)

    def require_for(self, name: str, fingerprint: str) -> None:
        """Refuse another model.

        Raises:
            PlanMismatch: naming both fingerprints.
        """
        if fingerprint != self.base.fingerprint:
            raise PlanMismatch(
                f"the plan was made for {self.base.name} (fingerprint {self.base.fingerprint}), {name} is another "
                f"model (fingerprint {fingerprint}): prune that model anew, or give the plan's own"
            )

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"

    def save(self, path: Path) -> None:
        """Write the plan, whole or not at all."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> PruningPlan:
        """Read a plan and check it.

        Raises:
            PlanError: the file is missing, no JSON, or contradicts itself.
        """
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise PlanError(f"{path} cannot be read ({error.strerror}): give the path of a plan file") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise PlanError(f"{path} is not JSON ({error}): give the path of a plan file") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "plan"
            raise PlanError(
                f"{path} is not a valid plan: {where}: {first['msg'].removeprefix('Value error, ')}; make the plan anew"
            ) from None


def make_plan(
    decoder: Decoder,
    kept: Kept,
    *,
    name: str,
    fingerprint: str,
    method: str,
    ratio: float,
    compensation: Compensation = "none",
    notes: Sequence[str] = (),
    provenance: dict[str, Any] | None = None,
) -> PruningPlan:
    """Write down a decision."""
    achieved = achieved_ratio(decoder.shapes, kept)
    widths = zip(kept.blocks, kept.key_value_groups, kept.channels, strict=True)
    return PruningPlan(
        base=BaseModelRecord(
            name=name,
            family=decoder.family.name,
            fingerprint=fingerprint,
            parameters=decoder.parameters,
            shapes=decoder.shapes,
        ),
        method=method,
        requested_ratio=ratio,
        achieved_ratio=achieved,
        share_of_model=achieved * decoder.cost / decoder.parameters,
        blocks=tuple(PlannedBlock(block=b, key_value_groups=g, channels=c) for b, g, c in widths),
        compensation=compensation,
        notes=tuple(notes),
        provenance=provenance or {},
    )
