"""The one pass: run the calibration tokens through the model and remember what every method needs.

Hooks sit on the blocks and on their output projections. `outputs.hidden_states` would not do: its last entry is taken
behind the final norm, and Block Influence read from there is wrong for the last block.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from prunelab.calibration.joint_moments import JointMoments
from prunelab.calibration.statistics import ActivationStatistics, Moments
from prunelab.errors import NonFiniteValue
from prunelab.io.lazy import inference_mode, nn, torch
from prunelab.models.rotary import RotaryLengths
from prunelab.models.tokenizer_validation import check_ids

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.calibration.corpus import CalibrationSet
    from prunelab.models.families import Decoder

TOKENS_A_BATCH, TOKENS_AT_ONCE = 4096, 128


def mean_and_deviations(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and sum of squared deviations of channels, shape `(tokens, channels)` to two of `(channels,)`.

    The corrected two-pass algorithm (Chan, Golub and LeVeque 1983): what rounding left of the mean is found as the mean
    of the centred values, and taken out of both. Sums over tokens are products with a row of ones: on a CPU
    `mean(dim=0)` and `var_mean` are slow enough to be seen in `timing/calibration_cost.py`. So are tokens that leave
    the processor's cache between the two passes: there they are taken some at a time, and what is found is merged.
    """
    counted, mean, deviations = 0, x.new_zeros(()), x.new_zeros(())
    for part in in_parts(x):
        values = wide(part)
        ones = values.new_ones(1, len(values))
        own_mean = (ones @ values)[0] / len(values)
        # In place of the values, unless these are the model's own.
        centred = torch.sub(values, own_mean, out=None if values is part else values)
        rest = (ones @ centred)[0] / len(values)
        own = ((ones @ centred.square_())[0] - len(values) * rest**2).clamp_min(0)
        own_mean += rest
        if not counted:
            counted, mean, deviations = len(values), own_mean, own
            continue
        both = counted + len(values)
        shift = own_mean - mean
        mean = mean + shift * (len(values) / both)
        deviations = deviations + own + shift**2 * (counted * len(values) / both)
        counted = both
    return mean, deviations


def cosines(before: Tensor, after: Tensor) -> Tensor:
    """Of each token's hidden states, shape `(tokens, hidden)` twice to `(tokens,)`."""
    norms: Tensor = torch.linalg.vector_norm(before, dim=-1) * torch.linalg.vector_norm(after, dim=-1)
    # A hidden state of exactly zero has no direction: its cosine counts as 0, as in F.cosine_similarity.
    return (before * after).sum(dim=-1) / norms.clamp_min(1e-30)


def in_parts(x: Tensor) -> Sequence[Tensor]:
    """Some tokens after the other, as many as a processor's cache holds; on an accelerator all at once."""
    parts: Sequence[Tensor] = x.split(TOKENS_AT_ONCE) if x.device.type == "cpu" else (x,)
    return parts


def wide(x: Tensor) -> Tensor:
    """In float32 or better."""
    return x if x.dtype == torch.float64 else x.float()


class Collector:
    """Sums of one batch, by block; joined to the running statistics when the batch is through.

    Args:
        decoder: the model.
        moments: collect second moments as well.
    """

    def __init__(self, decoder: Decoder, moments: bool = False) -> None:
        self.decoder = decoder
        blocks = len(decoder.shapes)
        self.mask: Tensor | None = None
        self.tokens = 0
        self.cosine_sum = torch.zeros(blocks, dtype=torch.float64)
        self.moments = {
            (block, layout.unit): Moments.none(shape.units(layout.part) * shape.rows(layout.part))
            for block, shape in enumerate(decoder.shapes)
            for layout in decoder.family.layouts()
        }
        self.second: dict[tuple[int, str], JointMoments] = {
            (block, layout.unit): JointMoments.none(len(self.moments[block, layout.unit].mean), 0)
            for block, layout, _ in (decoder.writers() if moments else ())
        }
        self._batch: dict[tuple[int, str], tuple[Tensor, Tensor]] = {}
        self._cosines: dict[int, Tensor] = {}
        self._squares: tuple[Tensor, Tensor] | None = None

    def flat(self, activations: Tensor) -> Tensor:
        """Tokens that count, shape `(tokens, channels)`."""
        return activations.flatten(0, -2) if self.mask is None else activations[self.mask]

    def on_writer(self, block: int, unit: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        """Hook before an output projection."""

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = self.flat(inputs[0])
            self._batch[block, unit] = mean_and_deviations(x)
            if self.second:
                self.second[block, unit].add(wide(x))

        return hook

    def on_block(self, block: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        """Hook behind a block."""

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            parts = zip(in_parts(self.flat(inputs[0])), in_parts(self.flat(output)), strict=True)
            self._cosines[block] = torch.cat([cosines(wide(before), wide(after)) for before, after in parts]).sum()

        return hook

    def join(self, tokens: int) -> None:
        """Take the batch's sums over.

        Raises:
            NonFiniteValue: naming the first module in whose activations NaN or infinity arose.
        """
        for block, cosine in self._cosines.items():
            for layout in self.decoder.family.layouts():
                if (block, layout.unit) in self._batch:
                    mean, deviations = self._batch[block, layout.unit]
                    # To the CPU first: not every device knows float64.
                    batch = Moments(tokens, mean.cpu().double(), deviations.cpu().double())
                    _require_finite(
                        batch.deviations, f"the input of {self.decoder.prefix}{block}.{layout.output_projection}"
                    )
                    self.moments[block, layout.unit] = self.moments[block, layout.unit].merge(batch)
            _require_finite(cosine, f"the output of {self.decoder.prefix}{block}")
            self.cosine_sum[block] += cosine.cpu().double()
        self.tokens += tokens
        self._batch.clear()
        self._cosines.clear()

    @contextmanager
    def attached(self, blocks: Collection[int]) -> Iterator[None]:
        """The hooks of some blocks in place, for as long as the `with` lasts."""
        with ExitStack() as stack:
            for block, layout, module in self.decoder.writers():
                if block in blocks:
                    stack.callback(module.register_forward_pre_hook(self.on_writer(block, layout.unit)).remove)
            for block in blocks:
                stack.callback(self.decoder.blocks[block].register_forward_hook(self.on_block(block)).remove)
            yield

    def statistics(self, calibration: CalibrationSet) -> ActivationStatistics:
        """What was collected, when every block has seen every token."""
        blocks = range(len(self.decoder.shapes))
        return ActivationStatistics(
            tokens=self.tokens,
            cosine_sum=self.cosine_sum,
            attention=tuple(self.moments[block, "key_value_group"] for block in blocks),
            mlp=tuple(self.moments[block, "channel"] for block in blocks),
            second=self.second,
            provenance={
                "calibration": calibration.provenance(),
                "dtype": str(self.decoder.model.dtype).removeprefix("torch."),
            },
        )


def _require_finite(values: Tensor, where: str) -> None:
    if not torch.isfinite(values).all():
        raise NonFiniteValue(
            f"NaN or infinity in {where}: the weights may be damaged, or the dtype too narrow (try --dtype float32)"
        )


@inference_mode
def calibrate(
    decoder: Decoder,
    calibration: CalibrationSet,
    *,
    tokens_a_batch: int = TOKENS_A_BATCH,
    progress: Callable[[int], None] | None = None,
    moments: bool = False,
) -> ActivationStatistics:
    """Collect the statistics of every method in one pass.

    Args:
        decoder: the model; it is only run up to its last block, the output head is not needed.
        calibration: the tokens.
        tokens_a_batch: how many tokens go through at once; the result depends on it by rounding only.
        progress: called with the number of samples done.
        moments: collect the second moments of all output projections' inputs as well, and hold them in memory.

    Raises:
        NonFiniteValue: naming the module in which NaN or infinity arose.
    """
    check_ids(decoder.model, int(calibration.token_ids.max()), "the calibration text")
    if calibration.pairs is not None:
        RotaryLengths([decoder.model]).require_one_class(
            "the model", calibration.sequence_length, "questions with images are padded to one length"
        )
    collector = Collector(decoder, moments)
    device = next(decoder.body.parameters()).device
    samples = max(1, tokens_a_batch // calibration.sequence_length)
    with collector.attached(range(len(decoder.shapes))):
        for start in range(0, len(calibration.token_ids), samples):
            ids = calibration.token_ids[start : start + samples].to(device)
            mask = calibration.mask_of(start, start + samples)
            collector.mask = None if mask is None else mask.to(device)
            seen = {} if calibration.pairs is None else calibration.pairs.of(start, start + samples)
            decoder.run(ids, collector.mask, seen)
            collector.join(ids.numel() if mask is None else int(mask.sum()))
            if progress is not None:
                progress(min(start + samples, len(calibration.token_ids)))
    return collector.statistics(calibration)
