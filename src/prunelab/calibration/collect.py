"""The calibration pass: run the calibration tokens through the model and collect the statistics of every method.

Hooks on the blocks and on their output projections collect them. `outputs.hidden_states` is not used: its last entry
is taken after the final norm, so that Block Influence computed from it is wrong for the last block.
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
    """Mean and sum of squared deviations of each channel.

    The corrected two-pass algorithm (Chan, Golub and LeVeque 1983): the mean of the centred values is the rounding
    error of the first mean, and corrects both results. Sums over tokens are products with a row of ones, because
    `mean(dim=0)` and `var_mean` are measurably slower on a CPU (`timing/calibration_cost.py`). For the same reason a
    CPU takes as many tokens at a time as its cache holds, and merges the results.

    Args:
        x: activations, shape `(tokens, channels)`.

    Returns:
        Two tensors of shape `(channels,)`, in float32 or float64.
    """
    counted, mean, deviations = 0, x.new_zeros(()), x.new_zeros(())
    for part in in_parts(x):
        values = wide(part)
        ones = values.new_ones(1, len(values))
        part_mean = (ones @ values)[0] / len(values)
        # In place, unless `values` is the model's own tensor.
        centred = torch.sub(values, part_mean, out=None if values is part else values)
        error = (ones @ centred)[0] / len(values)
        part_deviations = ((ones @ centred.square_())[0] - len(values) * error**2).clamp_min(0)
        part_mean += error
        if not counted:
            counted, mean, deviations = len(values), part_mean, part_deviations
            continue
        total = counted + len(values)
        shift = part_mean - mean
        mean = mean + shift * (len(values) / total)
        deviations = deviations + part_deviations + shift**2 * (counted * len(values) / total)
        counted = total
    return mean, deviations


def cosines(before: Tensor, after: Tensor) -> Tensor:
    """Cosine between two hidden states of each token, shapes `(tokens, hidden)` to `(tokens,)`."""
    norms: Tensor = torch.linalg.vector_norm(before, dim=-1) * torch.linalg.vector_norm(after, dim=-1)
    # A hidden state of exactly zero has no direction: its cosine counts as 0, as in F.cosine_similarity.
    return (before * after).sum(dim=-1) / norms.clamp_min(1e-30)


def in_parts(x: Tensor) -> Sequence[Tensor]:
    """Split activations along tokens into parts that fit a CPU's cache; on an accelerator, a single part."""
    parts: Sequence[Tensor] = x.split(TOKENS_AT_ONCE) if x.device.type == "cpu" else (x,)
    return parts


def wide(x: Tensor) -> Tensor:
    """The tensor in float32, or unchanged if it is float64."""
    return x if x.dtype == torch.float64 else x.float()


class Collector:
    """Hooks that sum up one batch by block, and the running statistics that `join` adds the sums to.

    Args:
        decoder: the model.
        moments: whether to collect second moments as well.
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
        """The activations of unmasked tokens, shape `(tokens, channels)`."""
        return activations.flatten(0, -2) if self.mask is None else activations[self.mask]

    def on_writer(self, block: int, unit: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        """A forward pre-hook for an output projection: mean, deviations and second moments of its input."""

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            x = self.flat(inputs[0])
            self._batch[block, unit] = mean_and_deviations(x)
            if self.second:
                self.second[block, unit].add(wide(x))

        return hook

    def on_block(self, block: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        """A forward hook for a block: the sum of cosines between its input and its output."""

        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            parts = zip(in_parts(self.flat(inputs[0])), in_parts(self.flat(output)), strict=True)
            self._cosines[block] = torch.cat([cosines(wide(before), wide(after)) for before, after in parts]).sum()

        return hook

    def join(self, tokens: int) -> None:
        """Add the sums of a batch to the running statistics.

        Args:
            tokens: unmasked tokens in the batch.

        Raises:
            NonFiniteValue: an activation is NaN or infinite; names the first such module.
        """
        for block, cosine in self._cosines.items():
            for layout in self.decoder.family.layouts():
                if (block, layout.unit) in self._batch:
                    mean, deviations = self._batch[block, layout.unit]
                    # To the CPU first: not every device supports float64.
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
        """Register the hooks of some blocks, and remove them at the end of the `with` block."""
        with ExitStack() as stack:
            for block, layout, module in self.decoder.writers():
                if block in blocks:
                    stack.callback(module.register_forward_pre_hook(self.on_writer(block, layout.unit)).remove)
            for block in blocks:
                stack.callback(self.decoder.blocks[block].register_forward_hook(self.on_block(block)).remove)
            yield

    def statistics(self, calibration: CalibrationSet) -> ActivationStatistics:
        """The statistics, once every block has processed every token."""
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
            f"NaN or infinity in {where}: the weights may be damaged or the dtype too narrow; try --dtype float32"
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
        decoder: the model; the output head is not run.
        calibration: the tokens.
        tokens_a_batch: tokens in a batch; the result depends on it by rounding only.
        progress: called with the number of samples done.
        moments: whether to collect the second moments of all output projections' inputs as well, in memory.

    Raises:
        NonFiniteValue: an activation is NaN or infinite; names the module.
        DataError: a token id has no row in the model's embedding.
        InvalidRequest: samples with images are longer than the length up to which rotary frequencies are fixed.
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
            image_inputs = {} if calibration.pairs is None else calibration.pairs.of(start, start + samples)
            decoder.run(ids, collector.mask, image_inputs)
            collector.join(ids.numel() if mask is None else int(mask.sum()))
            if progress is not None:
                progress(min(start + samples, len(calibration.token_ids)))
    return collector.statistics(calibration)
