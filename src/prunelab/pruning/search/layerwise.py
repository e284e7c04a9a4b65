"""Hidden states propagated block by block, for searches and compensation.

Computed prefixes are reused: a candidate that differs from block 20 on starts from the hidden states before block 20.
The hidden states of all tokens are in memory at once: 2 GiB in bfloat16 for 128 windows of 2048 tokens of an 8B model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from prunelab.io.lazy import F, inference_mode, nn, torch

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.calibration.corpus import CalibrationSet, Pairs
    from prunelab.models.families import Decoder

TOKENS_A_BATCH = 4096
_LOGIT_BYTES = 1 << 28

Hidden: TypeAlias = "Sequence[Tensor]"
"""Hidden states of all tokens, one tensor per batch, of shape `(samples, tokens, hidden)`."""


@dataclass(frozen=True)
class ProjectionOverride:
    """Parameters that replace those of an output projection.

    Attributes:
        weight: shape `(hidden, columns)`, as wide as the original projection; removed columns are zero.
        bias: shape `(hidden,)`; None keeps the projection's bias.
    """

    weight: Tensor
    bias: Tensor | None = None


ProjectionOverrides = Mapping[str, ProjectionOverride]
"""For one block, by path of the output projection; other projections are not changed."""


@dataclass(frozen=True)
class BlockActivations:
    """Activations of one batch inside a block.

    Attributes:
        inputs: inputs of the requested output projection, shape `(samples, tokens, columns)`.
        added: what each sublayer added to the residual stream, by output projection.
        said: output of each output projection, before any norm after it.
        output: output of the block; None if the run stopped at the requested output projection.
    """

    inputs: Tensor | None
    added: Mapping[str, Tensor]
    said: Mapping[str, Tensor]
    output: Tensor | None


class _Stop(Exception):
    """Stops a block's forward after the requested activations."""


class LayerwiseRunner:
    """Token batches and a model whose blocks are run on them one by one.

    Args:
        decoder: the model; its parameters are replaced while a block runs and restored afterwards.
        token_ids: shape `(samples, tokens)`.
        mask: true for tokens that count, same shape; None if all count.
        tokens_a_batch: number of tokens per batch.
        pairs: the images that belong to the tokens of a vision-language model.
    """

    def __init__(
        self,
        decoder: Decoder,
        token_ids: Tensor,
        mask: Tensor | None = None,
        tokens_a_batch: int = TOKENS_A_BATCH,
        pairs: Pairs | None = None,
    ) -> None:
        self.decoder = decoder
        device = decoder.device_of(0)
        samples = max(1, tokens_a_batch // token_ids.shape[1])
        self.token_ids = [ids.to(device) for ids in token_ids.split(samples)]
        masks = [None] * len(self.token_ids) if mask is None else [m.bool().to(device) for m in mask.split(samples)]
        self.masks: list[Tensor | None] = list(masks)
        self._predicting = [decoder.loss_mask(*batch) for batch in zip(self.token_ids, self.masks, strict=True)]
        self.blocks_run = 0.0
        images = [{} if pairs is None else pairs.of(n * samples, (n + 1) * samples) for n in range(len(self.masks))]
        with torch.inference_mode():
            entered = [decoder.entered(*batch) for batch in zip(self.token_ids, self.masks, images, strict=True)]
        self.start: Hidden = [hidden for hidden, _ in entered]
        self._arguments = [arguments for _, arguments in entered]

    @classmethod
    def of(cls, decoder: Decoder, calibration: CalibrationSet) -> LayerwiseRunner:
        """A runner on the calibration tokens."""
        return cls(decoder, calibration.token_ids, calibration.attention_mask, pairs=calibration.pairs)

    def counted(self, batch: int, activations: Tensor) -> Tensor:
        """The counted tokens of a batch, shape `(tokens, channels)`, in float32 or better."""
        mask = self.masks[batch]
        kept = activations.flatten(0, -2) if mask is None else activations[mask]
        return kept if kept.dtype == torch.float64 else kept.float()

    def last(self, batch: int, activations: Tensor) -> Tensor:
        """The last counted token of every sample, shape `(samples, channels)`, in float32, on the CPU."""
        mask = self.masks[batch]
        if mask is None:
            return activations[:, -1].float().cpu()
        places = torch.arange(mask.shape[1], device=mask.device).where(mask, -1).amax(dim=1)
        return activations[torch.arange(len(places), device=mask.device), places].float().cpu()

    @inference_mode
    def through(self, block: int, hidden: Hidden, overrides: ProjectionOverrides | None = None) -> Hidden:
        """Hidden states after a block, with overridden output projections."""
        self.blocks_run += 1
        with self.decoder.loaded(block) as module, override_projections(module, overrides or {}):
            return [
                module(states, **arguments[block]) for states, arguments in zip(hidden, self._arguments, strict=True)
            ]

    @inference_mode
    def watch(
        self, block: int, hidden: Hidden, overrides: ProjectionOverrides | None = None, until: str | None = None
    ) -> Iterator[BlockActivations]:
        """Run a block batch by batch and yield its activations.

        Args:
            block: index of the block.
            hidden: hidden states before the block.
            overrides: parameters that replace those of the block's output projections.
            until: output projection whose inputs are recorded and at which the run stops; None runs the whole block.
        """
        self.blocks_run += 1
        with self.decoder.loaded(block) as module, override_projections(module, overrides or {}):
            for states, arguments in zip(hidden, self._arguments, strict=True):
                yield self._seen(module, states, arguments[block], until)

    def _seen(
        self, module: nn.Module, states: Tensor, arguments: Mapping[str, Any], until: str | None
    ) -> BlockActivations:
        inputs: list[Tensor] = []
        added: dict[str, Tensor] = {}
        outputs: dict[str, Tensor] = {}

        def stop(_: nn.Module, arguments_: tuple[Any, ...]) -> None:
            inputs.append(arguments_[0])
            raise _Stop

        with ExitStack() as stack:
            for layout in self.decoder.family.layouts():
                output_projection = module.get_submodule(layout.output_projection)
                residual_output = module.get_submodule(self.decoder.family.residual_output(layout.output_projection))
                stack.callback(
                    output_projection.register_forward_hook(_keeping(outputs, layout.output_projection)).remove
                )
                stack.callback(residual_output.register_forward_hook(_keeping(added, layout.output_projection)).remove)
                if layout.output_projection == until:
                    stack.callback(output_projection.register_forward_pre_hook(stop).remove)
            try:
                output = module(states, **arguments)
            except _Stop:
                output = None
        return BlockActivations(inputs[0] if inputs else None, added, outputs, output)

    @inference_mode
    def loss(self, hidden: Hidden) -> float:
        """Mean cross-entropy per predicted token in nats, from the hidden states after the last block."""
        total, count = 0.0, 0
        for states, ids, mask, loss_mask in zip(hidden, self.token_ids, self.masks, self._predicting, strict=True):
            chosen = loss_mask[:, :-1] if mask is None else loss_mask[:, :-1] & mask[:, 1:]
            targets = ids[:, 1:][chosen]
            parts = self._final(states[:, :-1][chosen])
            for part, target in zip(parts, targets.split(len(parts[0])), strict=True):
                total += F.cross_entropy(self._logits(part), target, reduction="sum").double().item()
            count += len(targets)
        return total / count

    @inference_mode
    def divergence(self, hidden: Hidden, whole: Hidden) -> float:
        """Mean Kullback-Leibler divergence per token, in nats, from the dense model's predictions.

        Args:
            hidden: hidden states after the last block.
            whole: hidden states of the dense model after its last block.
        """
        total, count = 0.0, 0
        for states, reference_states, chosen in zip(hidden, whole, self._predicting, strict=True):
            for part, reference_part in zip(
                self._final(states[chosen]), self._final(reference_states[chosen]), strict=True
            ):
                log_probabilities, reference = (
                    self._logits(part).log_softmax(dim=-1),
                    self._logits(reference_part).log_softmax(dim=-1),
                )
                total += F.kl_div(log_probabilities, reference, reduction="sum", log_target=True).double().item()
                count += len(part)
        return total / count

    def _final(self, states: Tensor) -> Sequence[Tensor]:
        """Final-norm output of hidden states `(tokens, hidden)`, split so that the logits of a part fit into memory."""
        step = max(1, _LOGIT_BYTES // (4 * self.decoder.model.get_output_embeddings().weight.shape[0]))
        parts: Sequence[Tensor] = self.decoder.body.get_submodule("norm")(states).split(step)
        return parts

    def _logits(self, final: Tensor) -> Tensor:
        model = self.decoder.model
        cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        logits: Tensor = model.get_output_embeddings()(final).float()
        return logits if cap is None else cap * torch.tanh(logits / cap)


def _keeping(where: dict[str, Tensor], name: str) -> Any:
    """A hook that stores a module's output."""

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        where[name] = output

    return hook


@contextmanager
def override_projections(module: nn.Module, overrides: ProjectionOverrides) -> Iterator[None]:
    """Replace a block's output projections inside the `with` block."""
    originals: dict[str, tuple[Any, Any]] = {}
    for path, override in overrides.items():
        output_projection = module.get_submodule(path)
        originals[path] = (output_projection.weight, output_projection.bias)
        weight = nn.Parameter(override.weight, requires_grad=False)
        bias = output_projection.bias if override.bias is None else nn.Parameter(override.bias, requires_grad=False)
        output_projection.weight, output_projection.bias = weight, bias
    try:
        yield
    finally:
        for path, parameters in originals.items():
            output_projection = module.get_submodule(path)
            output_projection.weight, output_projection.bias = parameters
