"""Hidden states carried through the blocks one at a time: what searches and compensation share.

A trunk that was computed is not computed again: a cut that begins at block 20 starts from the hidden states before it.
All hidden states of the tokens are held at once, for 128 windows of 2048 tokens of an 8B model 2 GiB in bfloat16.
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
"""Hidden states of all tokens, a batch each, of shape `(samples, tokens, hidden)`."""


@dataclass(frozen=True)
class ProjectionOverride:
    """What stands in an output projection in place of its own parameters.

    Attributes:
        weight: shape `(hidden, columns)`, as wide as the projection that is there; removed columns are zero.
        bias: shape `(hidden,)`; None for the projection's own.
    """

    weight: Tensor
    bias: Tensor | None = None


ProjectionOverrides = Mapping[str, ProjectionOverride]
"""Of one block, by the output projection's path; those not named are as they are."""


@dataclass(frozen=True)
class BlockActivations:
    """What one batch was seen doing inside a block.

    Attributes:
        inputs: of the output projection asked for, shape `(samples, tokens, columns)`.
        added: what each sublayer that was passed added to the residual stream, by its output projection.
        said: that output projection's output, before any norm behind it.
        output: the block's output; None where the run stopped at the output projection asked for.
    """

    inputs: Tensor | None
    added: Mapping[str, Tensor]
    said: Mapping[str, Tensor]
    output: Tensor | None


class _Stop(Exception):
    """All that was asked for has been seen."""


class LayerwiseRunner:
    """Some tokens, and a model whose blocks they are sent through one by one.

    Args:
        decoder: the model; its parameters are exchanged while a block runs and put back behind it.
        token_ids: shape `(samples, tokens)`.
        mask: true where a token counts, same shape; None where all do.
        tokens_a_batch: how many tokens go through at once.
        pairs: the images that belong to the tokens, where they are a model's that sees.
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
        self._predicting = [decoder.loss_mask(*one) for one in zip(self.token_ids, self.masks, strict=True)]
        self.blocks_run = 0.0
        seen = [{} if pairs is None else pairs.of(n * samples, (n + 1) * samples) for n in range(len(self.masks))]
        with torch.inference_mode():
            entered = [decoder.entered(*one) for one in zip(self.token_ids, self.masks, seen, strict=True)]
        self.start: Hidden = [hidden for hidden, _ in entered]
        self._arguments = [arguments for _, arguments in entered]

    @classmethod
    def of(cls, decoder: Decoder, calibration: CalibrationSet) -> LayerwiseRunner:
        """The tokens that are calibrated on."""
        return cls(decoder, calibration.token_ids, calibration.attention_mask, pairs=calibration.pairs)

    def counted(self, batch: int, activations: Tensor) -> Tensor:
        """The tokens of a batch that count, shape `(tokens, channels)`, in float32 or better."""
        mask = self.masks[batch]
        kept = activations.flatten(0, -2) if mask is None else activations[mask]
        return kept if kept.dtype == torch.float64 else kept.float()

    def last(self, batch: int, activations: Tensor) -> Tensor:
        """Every sample's last token that counts, shape `(samples, channels)`, in float32, on the CPU."""
        mask = self.masks[batch]
        if mask is None:
            return activations[:, -1].float().cpu()
        places = torch.arange(mask.shape[1], device=mask.device).where(mask, -1).amax(dim=1)
        return activations[torch.arange(len(places), device=mask.device), places].float().cpu()

    @inference_mode
    def through(self, block: int, hidden: Hidden, overrides: ProjectionOverrides | None = None) -> Hidden:
        """Behind a block, its output projections exchanged."""
        self.blocks_run += 1
        with self.decoder.loaded(block) as module, override_projections(module, overrides or {}):
            return [
                module(states, **arguments[block]) for states, arguments in zip(hidden, self._arguments, strict=True)
            ]

    @inference_mode
    def watch(
        self, block: int, hidden: Hidden, overrides: ProjectionOverrides | None = None, until: str | None = None
    ) -> Iterator[BlockActivations]:
        """Run a block batch by batch and tell what happened inside.

        Args:
            block: its number.
            hidden: before it.
            writers: its output projections in place of its own.
            until: the output projection whose inputs are wanted, and where the run stops; None for the whole block.
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
        said: dict[str, Tensor] = {}

        def stop(_: nn.Module, given: tuple[Any, ...]) -> None:
            inputs.append(given[0])
            raise _Stop

        with ExitStack() as stack:
            for layout in self.decoder.family.layouts():
                output_projection = module.get_submodule(layout.output_projection)
                residual_output = module.get_submodule(self.decoder.family.residual_output(layout.output_projection))
                stack.callback(output_projection.register_forward_hook(_keeping(said, layout.output_projection)).remove)
                stack.callback(residual_output.register_forward_hook(_keeping(added, layout.output_projection)).remove)
                if layout.output_projection == until:
                    stack.callback(output_projection.register_forward_pre_hook(stop).remove)
            try:
                output = module(states, **arguments)
            except _Stop:
                output = None
        return BlockActivations(inputs[0] if inputs else None, added, said, output)

    @inference_mode
    def loss(self, hidden: Hidden) -> float:
        """Mean cross-entropy a predicted token in nats, of the hidden states behind the last block."""
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
        """Mean Kullback-Leibler divergence a token in nats, of predictions from the whole model's.

        Args:
            hidden: behind the last block.
            whole: the same of the whole model.
        """
        total, count = 0.0, 0
        for states, aims, chosen in zip(hidden, whole, self._predicting, strict=True):
            for part, aim in zip(self._final(states[chosen]), self._final(aims[chosen]), strict=True):
                said, wanted = self._logits(part).log_softmax(dim=-1), self._logits(aim).log_softmax(dim=-1)
                total += F.kl_div(said, wanted, reduction="sum", log_target=True).double().item()
                count += len(part)
        return total / count

    def _final(self, states: Tensor) -> Sequence[Tensor]:
        """What the head is given of hidden states of shape `(tokens, hidden)`, in parts whose logits fit."""
        step = max(1, _LOGIT_BYTES // (4 * self.decoder.model.get_output_embeddings().weight.shape[0]))
        parts: Sequence[Tensor] = self.decoder.body.get_submodule("norm")(states).split(step)
        return parts

    def _logits(self, final: Tensor) -> Tensor:
        model = self.decoder.model
        cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
        logits: Tensor = model.get_output_embeddings()(final).float()
        return logits if cap is None else cap * torch.tanh(logits / cap)


def _keeping(where: dict[str, Tensor], name: str) -> Any:
    """A hook that keeps a module's output."""

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        where[name] = output

    return hook


@contextmanager
def override_projections(module: nn.Module, overrides: ProjectionOverrides) -> Iterator[None]:
    """A block with other output projections, for as long as the `with` lasts."""
    before: dict[str, tuple[Any, Any]] = {}
    for path, written in overrides.items():
        output_projection = module.get_submodule(path)
        before[path] = (output_projection.weight, output_projection.bias)
        weight = nn.Parameter(written.weight, requires_grad=False)
        bias = output_projection.bias if written.bias is None else nn.Parameter(written.bias, requires_grad=False)
        output_projection.weight, output_projection.bias = weight, bias
    try:
        yield
    finally:
        for path, own in before.items():
            output_projection = module.get_submodule(path)
            output_projection.weight, output_projection.bias = own
