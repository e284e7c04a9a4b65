"""What a pruning method is: something that turns statistics and weights into a decision of what to keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from prunelab.errors import InvalidRequest
from prunelab.pruning.allocation import Constraints, KeptUnits, allocate_depth, allocate_uniform, allocate_width
from prunelab.pruning.compensation.second_moments import ProjectionPosition, second_moments
from prunelab.pruning.scores import ImportanceScores, width_scores
from prunelab.pruning.search.layerwise import LayerwiseRunner
from prunelab.pruning.search.prefix_reuse import PrefixCachedLoss

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.calibration import ActivationStatistics, CalibrationSet
    from prunelab.calibration.joint_moments import JointMoments
    from prunelab.models.families import Decoder
    from prunelab.models.layout import UnitLayout
    from prunelab.pruning.compensation import Compensation

Strategy = Literal["depth", "width", "hybrid"]
T = TypeVar("T")


class Shared:
    """What is found once for a model and its calibration, and serves every method and ratio."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._found

    def once(self, key: Hashable, find: Callable[[], T]) -> T:
        """What was found under this key, or is now.

        Args:
            key: everything that decides it, besides the model and its calibration.
            find: looks for it.
        """
        if key not in self._found:
            self._found[key] = find()
        found: T = self._found[key]
        return found


@dataclass(frozen=True)
class MethodInputs:
    """What a method may look at.

    Attributes:
        decoder: weights and widths of the model.
        collected: statistics of the calibration pass; None where no calibration was made.
        seed: for methods that draw at random.
        loss_of: mean loss a token, on held-out calibration text, of the model cut to what is kept and compensated so.
        divergence_of: the same of how far its predictions are from the whole model's.
        calibration: the tokens themselves, for methods that run the model.
        compensation: what the cut will be compensated by.
        shared: what was found of this model and calibration for other methods and ratios.
    """

    decoder: Decoder
    collected: ActivationStatistics | None = None
    seed: int = 0
    loss_of: Callable[[KeptUnits, Compensation], float] | None = None
    divergence_of: Callable[[KeptUnits, Compensation], float] | None = None
    calibration: CalibrationSet | None = None
    compensation: Compensation = "none"
    shared: Shared = field(default_factory=Shared)

    def loss(self, kept: KeptUnits) -> float:
        """The cut's loss on held-out calibration text, compensated as it will be."""
        if self.loss_of is None:
            raise InvalidRequest("this method compares losses on held-out calibration text: give some")
        measure, how = self.loss_of, self.compensation
        return self.shared.once(("loss", kept, how), lambda: measure(kept, how))

    def divergence(self, kept: KeptUnits, compensation: Compensation) -> float:
        """How far the cut's predictions on held-out calibration text are from the whole model's."""
        if self.divergence_of is None:
            raise InvalidRequest("this method compares predictions on held-out calibration text: give some")
        measure = self.divergence_of
        return self.shared.once(("divergence", kept, compensation), lambda: measure(kept, compensation))

    @property
    def held_out(self) -> Tensor | CalibrationSet:
        """Held-out windows of the calibration text, or held-out images with text, for a method that runs the model."""
        held_out = None if self.calibration is None else self.calibration.held_out_samples
        if held_out is None:
            raise InvalidRequest("this method compares losses on held-out calibration text: give some")
        return held_out

    @property
    def walk(self) -> LayerwiseRunner:
        """The calibration tokens before the first block, for a method that sends them through."""
        return LayerwiseRunner.of(self.decoder, self._tokens)

    def second_moments(self, places: Sequence[ProjectionPosition]) -> Iterator[JointMoments]:
        """Of the inputs of output projections, in the blocks' order, from the calibration pass or one of their own."""
        return second_moments(self.decoder, places, self._tokens, self.collected)

    @property
    def _tokens(self) -> CalibrationSet:
        if self.calibration is None:
            raise InvalidRequest("this method runs the calibration tokens: give some")
        return self.calibration

    @property
    def trunk(self) -> PrefixCachedLoss:
        """The held-out windows under any choice of blocks and sublayers that go; what was measured is remembered."""
        return self.shared.once("trunk", lambda: PrefixCachedLoss(self.decoder, self.held_out))

    @property
    def statistics(self) -> ActivationStatistics:
        """The statistics, for a method that cannot do without."""
        if self.collected is None:
            raise InvalidRequest("this method needs calibration statistics: calibrate first")
        return self.collected


@dataclass(frozen=True)
class Budget:
    """How much to remove and what to respect.

    Attributes:
        ratio: share of the blocks' projection weights.
        constraints: see `Constraints`.
        group_counts: for uniform widths, the numbers of key-value groups that the stock class accepts; None for free
            widths.
    """

    ratio: float
    constraints: Constraints = field(default_factory=Constraints)
    group_counts: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Decision:
    """What a method decided, and what it has to say about it.

    Attributes:
        kept: what stays.
        notes: what the user should know, a sentence each.
        details: for the plan's provenance.
        compensation: where the method chose that as well.
    """

    kept: KeptUnits
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    compensation: Compensation | None = None


class PruningMethod(ABC):
    """One way to choose what to remove.

    Attributes:
        name: what the user calls it.
        strategy: what it removes.
        summary: one line for lists.
        source: the paper, or why it is here.
        needs_statistics: it looks at the calibration pass.
        needs_loss: it compares losses on held-out calibration text.
        runs_model: it sends the calibration tokens through the model by itself.
        needs_moments: it looks at second moments, of the calibration pass or of one of their own.
        is_random: another seed gives another plan.
        compensation: what makes up for what it removes unless the user says otherwise.
    """

    name: ClassVar[str]
    strategy: ClassVar[Strategy]
    summary: ClassVar[str]
    source: ClassVar[str]
    needs_statistics: ClassVar[bool] = True
    needs_loss: ClassVar[bool] = False
    runs_model: ClassVar[bool] = False
    needs_moments: ClassVar[bool] = False
    is_random: ClassVar[bool] = False
    compensation: ClassVar[Compensation | None] = None

    @abstractmethod
    def decide(self, evidence: MethodInputs, budget: Budget) -> Decision:
        """Choose what to keep within the budget."""


class ScoringMethod(PruningMethod):
    """A method that is a score: the ranking and the budget do the rest."""

    @abstractmethod
    def score(self, evidence: MethodInputs) -> ImportanceScores:
        """Importance of every unit that the method may remove; higher = keep."""

    def decide(self, evidence: MethodInputs, budget: Budget) -> Decision:
        """Remove the lowest scores until the budget is met."""
        shapes, scores = evidence.decoder.shapes, self.score(evidence)
        if scores.blocks is not None:
            return Decision(allocate_depth(shapes, scores.blocks, budget.ratio, budget.constraints))
        if budget.group_counts is not None:
            kept = allocate_uniform(shapes, scores, budget.ratio, budget.group_counts, budget.constraints)
        else:
            kept = allocate_width(shapes, scores, budget.ratio, budget.constraints)
        return Decision(kept)


class WidthMethod(ScoringMethod):
    """A width method that is one number for each input channel of an output projection.

    Numbers are standardised for each block and module, so that all units of all blocks compete in one ranking; a
    key-value group's is the mean over its channels, which with grouped-query attention are those of all its query heads
    (FLAP, Eq. 3).
    """

    strategy: ClassVar[Strategy] = "width"

    @abstractmethod
    def raw(self, evidence: MethodInputs, block: int, layout: UnitLayout) -> Tensor:
        """How much each input channel of an output projection matters, shape `(channels,)`; higher = keep."""

    def score(self, evidence: MethodInputs) -> ImportanceScores:
        """The standardised numbers."""
        attention, mlp = evidence.decoder.family.layouts()
        return width_scores(
            evidence.decoder.shapes,
            lambda block: self.raw(evidence, block, attention),
            lambda block: self.raw(evidence, block, mlp),
        )
