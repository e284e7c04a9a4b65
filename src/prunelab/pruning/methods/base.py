"""Base classes of pruning methods: a method maps statistics and weights to the units that are kept."""

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
    """Cache of intermediate results that all methods and ratios share for one model and calibration."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._found

    def once(self, key: Hashable, find: Callable[[], T]) -> T:
        """The cached value of a key; computed on the first call.

        Args:
            key: everything that determines the value besides the model and its calibration.
            find: computes the value.
        """
        if key not in self._found:
            self._found[key] = find()
        value: T = self._found[key]
        return value


@dataclass(frozen=True)
class MethodInputs:
    """Inputs of a method.

    Attributes:
        decoder: weights and widths of the model.
        collected: calibration statistics; None without calibration.
        seed: seed of methods that draw at random.
        loss_of: mean loss per token on held-out calibration text after pruning to the given units with the given
            compensation.
        divergence_of: the same for the divergence from the dense model's predictions.
        calibration: the calibration tokens, for methods that run the model.
        compensation: the compensation that will be applied.
        shared: intermediate results shared with other methods and ratios.
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
        """Loss on held-out calibration text after pruning and compensation, in nats per token."""
        if self.loss_of is None:
            raise InvalidRequest(
                "this method compares losses on held-out calibration text and none was given: calibrate first"
            )
        measure, how = self.loss_of, self.compensation
        return self.shared.once(("loss", kept, how), lambda: measure(kept, how))

    def divergence(self, kept: KeptUnits, compensation: Compensation) -> float:
        """Divergence from the dense model's predictions on held-out calibration text, in nats per token."""
        if self.divergence_of is None:
            raise InvalidRequest(
                "this method compares predictions on held-out calibration text and none was given: calibrate first"
            )
        measure = self.divergence_of
        return self.shared.once(("divergence", kept, compensation), lambda: measure(kept, compensation))

    @property
    def held_out(self) -> Tensor | CalibrationSet:
        """Held-out windows of the calibration text, or held-out images with text, for a method that runs the model."""
        held_out = None if self.calibration is None else self.calibration.held_out_samples
        if held_out is None:
            raise InvalidRequest(
                "this method compares losses on held-out calibration text and none was given: calibrate first"
            )
        return held_out

    @property
    def walk(self) -> LayerwiseRunner:
        """The calibration tokens before the first block, for a method that runs the model on them."""
        return LayerwiseRunner.of(self.decoder, self._tokens)

    def second_moments(self, places: Sequence[ProjectionPosition]) -> Iterator[JointMoments]:
        """Second moments of output projections' inputs in ascending order of blocks, collected if they are missing."""
        return second_moments(self.decoder, places, self._tokens, self.collected)

    @property
    def _tokens(self) -> CalibrationSet:
        if self.calibration is None:
            raise InvalidRequest(
                "this method runs the model on calibration tokens and none were given: calibrate first"
            )
        return self.calibration

    @property
    def trunk(self) -> PrefixCachedLoss:
        """Cached losses of the held-out windows for any removal of blocks and sublayers."""
        return self.shared.once("trunk", lambda: PrefixCachedLoss(self.decoder, self.held_out))

    @property
    def statistics(self) -> ActivationStatistics:
        """The calibration statistics; raises InvalidRequest without calibration."""
        if self.collected is None:
            raise InvalidRequest("this method needs calibration statistics: calibrate first")
        return self.collected


@dataclass(frozen=True)
class Budget:
    """How much to remove, and the constraints.

    Attributes:
        ratio: share of the blocks' projection weights to remove.
        constraints: see `Constraints`.
        group_counts: for uniform widths, the numbers of key-value groups that the stock class accepts; None for free
            widths.
    """

    ratio: float
    constraints: Constraints = field(default_factory=Constraints)
    group_counts: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Decision:
    """The decision of a method.

    Attributes:
        kept: the kept units.
        notes: remarks for the user, one sentence each.
        details: further keys of the plan's provenance.
        compensation: set if the method also chose the compensation.
    """

    kept: KeptUnits
    notes: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    compensation: Compensation | None = None


class PruningMethod(ABC):
    """A rule that chooses what to remove.

    Attributes:
        name: name on the command line.
        strategy: what it removes.
        summary: one line for lists.
        source: the paper, or the method's role.
        needs_statistics: it uses calibration statistics.
        needs_loss: it compares losses on held-out calibration text.
        runs_model: it runs the model on the calibration tokens.
        needs_moments: it uses second moments, from the calibration pass or from a separate one.
        is_random: the plan depends on the seed.
        compensation: default compensation; None is bias for width methods and none for depth methods.
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
    """A method defined by importance scores; the allocation does the rest."""

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
    """A width method defined by one number per input channel of an output projection.

    The numbers are standardised per block and module, so that all units of all blocks compete in one ranking. A
    key-value group's score is the mean over its channels, which with grouped-query attention are the channels of all
    its query heads (FLAP, Eq. 3).
    """

    strategy: ClassVar[Strategy] = "width"

    @abstractmethod
    def raw(self, evidence: MethodInputs, block: int, layout: UnitLayout) -> Tensor:
        """Importance of each input channel of an output projection, shape `(channels,)`; higher = keep."""

    def score(self, evidence: MethodInputs) -> ImportanceScores:
        """The standardised scores."""
        attention, mlp = evidence.decoder.family.layouts()
        return width_scores(
            evidence.decoder.shapes,
            lambda block: self.raw(evidence, block, attention),
            lambda block: self.raw(evidence, block, mlp),
        )
