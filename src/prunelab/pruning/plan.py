"""The pruning plan: a small readable file that records what is kept, and why.

Dense model, plan and statistics determine the pruned model bit for bit; for least squares, dense model, plan and the
calibration tokens that the plan names.
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
"""Largest number of units in one plan; Llama-3.1-405B has 6.8 million."""

Units = Annotated[tuple[int, ...], BeforeValidator(from_ranges), PlainSerializer(to_ranges, return_type=str)]


class PlannedBlock(Frozen):
    """One kept block: its index in the dense model and its kept units."""

    block: int = Field(ge=0)
    key_value_groups: Units
    channels: Units


def _left(block: PlannedBlock, shape: BlockShape) -> tuple[str, str]:
    """Kept and total counts of a block, formatted."""
    return (
        f"{len(block.key_value_groups)} of {shape.key_value_groups}",
        f"{len(block.channels):,} of {shape.channels:,}",
    )


class PruningPlan(Frozen):
    """The units of a model that are kept.

    Attributes:
        format: version of the file's layout.
        base: the dense model.
        method: method that made the decision.
        requested_ratio: requested share of the blocks' projection weights.
        achieved_ratio: removed share; norms and added biases are not counted.
        share_of_model: removed weights as a share of all parameters of the model.
        blocks: kept blocks and their units.
        compensation: `bias` adds to each output projection the mean contribution of its removed inputs (FLAP);
            `least_squares` and `sequential` also refit its kept weights on the calibration tokens; `linear_map` puts a
            linear map in place of every run of removed blocks.
        notes: remarks for the user, one sentence each.
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
        """Check the number of units before the ranges are expanded."""
        rows = blocks if isinstance(blocks, list | tuple) else []
        texts = [value for row in rows if isinstance(row, dict) for value in row.values() if isinstance(value, str)]
        try:
            units = sum(map(count_in, texts))
        except ValueError:  # the validator of that block reports it
            return blocks
        if units > MOST_IN_ALL:
            raise ValueError(f"{units:,} units are listed; a plan may list at most {MOST_IN_ALL:,}")
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
            raise ValueError(f"achieved_ratio is {self.achieved_ratio:g}, but the kept units give {true:g}")
        total = sum(shape.cost for shape in shapes)
        if abs(true * total / self.base.parameters - self.share_of_model) > 1e-6:
            raise ValueError(f"share_of_model is {self.share_of_model:g}, which contradicts weights and parameters")
        return self

    def __repr__(self) -> str:
        return (
            f"PruningPlan({self.base.name!r}, {self.method!r}, {len(self.blocks)} of {len(self.base.shapes)} blocks "
            f"kept, {self.achieved_ratio:.2%} of the blocks' weights removed)"
        )

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """One table row per block, for notebooks."""
        kept = {block.block: block for block in self.blocks}
        rows = [
            (number, *_left(kept[number], shape)) if number in kept else (number, "removed", "removed")
            for number, shape in enumerate(self.base.shapes)
        ]
        return html_table(("block", "key-value groups kept", "MLP channels kept"), rows, repr(self))

    @property
    def kept(self) -> KeptUnits:
        """The kept units."""
        return KeptUnits(
            blocks=tuple(b.block for b in self.blocks),
            key_value_groups=tuple(b.key_value_groups for b in self.blocks),
            channels=tuple(b.channels for b in self.blocks),
        )

    @property
    def removed_blocks(self) -> list[int]:
        """Removed blocks, ascending."""
        kept = {b.block for b in self.blocks}
        return [block for block in range(len(self.base.shapes)) if block not in kept]

    @property
    def fingerprint(self) -> str:
        """Hash of the fields that determine the pruned model, notes excluded; 16 hexadecimal digits."""
        decisive = self.model_dump(mode="json", include={"base", "blocks", "compensation"})
        decisive["base"] = self.base.fingerprint
        if self.compensation != "none":
            decisive["calibration"] = (self.provenance.get("calibration") or {}).get("fingerprint")
        return content_hash(decisive)

    def require_for(self, name: str, fingerprint: str) -> None:
        """Check that the plan was made for this model.

        Raises:
            PlanMismatch: it was made for another model; the message gives both fingerprints.
        """
        if fingerprint != self.base.fingerprint:
            raise PlanMismatch(
                f"the plan was made for {self.base.name} (fingerprint {self.base.fingerprint}), but {name} has "
                f"fingerprint {fingerprint}: make a new plan for this model, or give the model of the plan"
            )

    def to_json(self) -> str:
        """The plan as JSON text."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"

    def save(self, path: Path) -> None:
        """Write the plan atomically."""
        write_text(path, self.to_json())

    @classmethod
    def load(cls, path: Path) -> PruningPlan:
        """Read and validate a plan.

        Raises:
            PlanError: the file is missing, is not JSON, or contradicts itself.
        """
        fields = read_json_object(path, error=PlanError, remedy="give the path of a plan file")
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "plan"
            what = one_line(f"{where}: {first['msg'].removeprefix('Value error, ')}", 400)
            raise PlanError(f"{path} is not a valid plan: {what}; make a new plan with `prunelab prune`") from None


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
    """Make the plan of a decision."""
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
