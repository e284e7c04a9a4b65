"""The pruning plan: a small readable file that says what is kept, and why.

Base model, plan and statistics together give the pruned model again, to the bit; where compensation is by least
squares, base model, plan and the calibration tokens that the plan names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from prunelab.errors import PlanError, PlanMismatch
from prunelab.errors.text import one_line
from prunelab.io.atomic_write import write_text
from prunelab.io.fingerprint import content_hash
from prunelab.io.html import html_table
from prunelab.io.structured import read_json_object
from prunelab.pruning.allocation import KeptUnits, achieved_ratio
from prunelab.pruning.compensation import Compensation
from prunelab.pruning.plan_records import BaseModelRecord, Frozen, PlanProvenance
from prunelab.pruning.unit_ranges import count_in, from_ranges, to_ranges

if TYPE_CHECKING:
    from prunelab.models.families import BlockShape, Decoder

__all__ = ["BaseModelRecord", "PlannedBlock", "PruningPlan", "from_ranges", "make_plan", "to_ranges"]

MOST_IN_ALL = 1 << 24
"""Units that one plan names, at most; those of Llama-3.1-405B are 6.8 million."""

Units = Annotated[tuple[int, ...], BeforeValidator(from_ranges), PlainSerializer(to_ranges, return_type=str)]


class PlannedBlock(Frozen):
    """One kept block: its number in the base model and what of it stays."""

    block: int = Field(ge=0)
    key_value_groups: Units
    channels: Units


def _left(block: PlannedBlock, shape: BlockShape) -> tuple[str, str]:
    """What stays of a block, in words."""
    return (
        f"{len(block.key_value_groups)} of {shape.key_value_groups}",
        f"{len(block.channels):,} of {shape.channels:,}",
    )


class PruningPlan(Frozen):
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

    @field_validator("blocks", mode="before")
    @classmethod
    def _countable(cls, blocks: Any) -> Any:
        """Refuse more units than any model has before they are spelled out."""
        rows = blocks if isinstance(blocks, list | tuple) else []
        texts = [value for row in rows if isinstance(row, dict) for value in row.values() if isinstance(value, str)]
        try:
            units = sum(map(count_in, texts))
        except ValueError:  # which is said of the block that it stands in
            return blocks
        if units > MOST_IN_ALL:
            raise ValueError(f"{units:,} units are named, more than {MOST_IN_ALL:,}")
        return blocks

    @field_validator("provenance")
    @classmethod
    def _known_provenance(cls, provenance: dict[str, Any]) -> dict[str, Any]:
        PlanProvenance.model_validate(provenance)
        return provenance

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
    def kept(self) -> KeptUnits:
        """What stays."""
        return KeptUnits(
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
            decisive["calibration"] = (self.provenance.get("calibration") or {}).get("fingerprint")
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
        fields = read_json_object(path, error=PlanError, remedy="give the path of a plan file")
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "plan"
            what = one_line(f"{where}: {first['msg'].removeprefix('Value error, ')}", 400)
            raise PlanError(f"{path} is not a valid plan: {what}; make the plan anew") from None


def make_plan(
    decoder: Decoder,
    kept: KeptUnits,
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
