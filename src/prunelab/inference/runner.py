"""Forwards of a model over a cut prefix tree: frozen prefixes, and the rows that stand on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from prunelab.inference.batch_planning import Costs, Group
from prunelab.inference.packing import Batch, MaskStyle, chain, make_batch, tree_masks
from prunelab.io.lazy import np

if TYPE_CHECKING:
    import torch

    from prunelab.inference.kv_cache import DecodingCache, PrefixCache
    from prunelab.inference.prefix_tree import PrefixTree
    from prunelab.inference.shared_blocks import SharedPrefixModels

Progress = Callable[[int, int], None]
"""Told how many requests are done, and of how many."""

PAIR = 6.0
"""Multiply-adds of one query-key pair relative to the hidden size: two, at a third of a matrix's speed."""

PREFIX_KEY = 500.0
"""Copying one key and value of a prefix, in multiply-adds relative to the hidden size."""


@dataclass
class ScoringStatistics:
    """What a scorer or sampler has done so far.

    Attributes:
        requests: continuations scored, or completions generated.
        truncated: requests that lost tokens on the left because they were longer than the context.
        distinct_tokens: nodes of the prefix trees, the least that could be computed.
        computed_tokens: tokens that went through the model, padding included.
        forwards: calls of the model.
    """

    requests: int = 0
    truncated: int = 0
    distinct_tokens: int = 0
    computed_tokens: int = 0
    forwards: int = 0


class TreeRunner:
    """Runs batches of packed rows on a causal language model of transformers, and counts what it runs."""

    def __init__(self, model: Any) -> None:
        """Take a model in evaluation mode.

        Raises:
            InvalidRequest, UnsupportedModel: the model cannot be given masks of ours.
        """
        self.model = model
        self.style = MaskStyle.of(model)
        self.statistics = ScoringStatistics()

    @property
    def device(self) -> torch.device:
        """Where the model takes its token ids."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    def walk(self, tree: PrefixTree, root: Group) -> Iterator[tuple[PrefixCache, Group]]:
        """Each group that has rows, with its frozen prefix; a prefix lives only while something stands on it.

        Depth first, and the way to the heaviest row before all else, so that memory is first needed where most is.
        """
        from prunelab.inference.kv_cache import PrefixCache

        stack = [(root, PrefixCache(), False)]
        while stack:
            group, prefix, entered = stack.pop()
            if entered:
                yield prefix, group
                continue
            prefix = self._extended(tree, group, prefix)
            own = [(group, prefix, True)] if group.rows else []
            below = [(child, prefix, False) for child in reversed(group.children)]
            own_first = not below or group.longest > group.children[0].longest
            stack += below + own if own_first else own + below

    def _extended(self, tree: PrefixTree, group: Group, parent: PrefixCache) -> PrefixCache:
        """The group's frozen prefix: its parent's, and one forward over the tokens between."""
        if group.length == parent.length:
            return parent
        tokens = tree.sequences[group.inputs[0]][parent.length : group.length].astype(np.int64)
        recording = parent.recording()
        for _ in self.forwards(make_batch([chain(tokens, parent.length)], parent.length, self.device), recording):
            pass
        return recording.extended(len(tokens))

    def forwards(self, batch: Batch, prefix: PrefixCache) -> Iterator[tuple[int, torch.Tensor]]:
        """The model's index, which is 0, and its logits."""
        yield 0, self.forward(batch, prefix)

    def forward(self, batch: Batch, prefix: PrefixCache) -> torch.Tensor:
        """Logits of the batch's scored nodes, (scored, vocabulary)."""
        arguments = self.arguments(batch, prefix)
        logits: torch.Tensor = self.model(**arguments).logits
        return logits

    def arguments(self, batch: Batch, prefix: PrefixCache) -> dict[str, Any]:
        """What the model is given for a batch, which counts as run."""
        self.statistics.forwards += 1
        self.statistics.computed_tokens += batch.ids.numel()
        arguments: dict[str, Any] = {}
        if prefix.length or prefix.record:
            arguments["past_key_values"] = prefix
        if arguments or not batch.plain:
            arguments["attention_mask"] = tree_masks(self.style, batch, prefix.length)
            arguments["position_ids"] = batch.depths
        return {"input_ids": batch.ids, "use_cache": False, "logits_to_keep": batch.scored, **arguments}

    def decode(
        self, ids: torch.Tensor, depths: torch.Tensor, keys: torch.Tensor, deepest: int, cache: DecodingCache
    ) -> torch.Tensor:
        """Logits of one more token a row, (rows, vocabulary).

        Args:
            ids, depths: (rows, 1), the tokens and their positions.
            keys: (rows, columns), the depth of each key once the token has been added, -1 for padding.
            deepest: the greatest of `depths`.
            cache: filled with the token's keys and values.
        """
        self.statistics.forwards += 1
        self.statistics.computed_tokens += ids.numel()
        masks = self.style.masks((keys >= 0)[:, None], depths, keys, deepest)
        output = self.model(
            input_ids=ids, attention_mask=masks, position_ids=depths, past_key_values=cache, use_cache=False
        )
        cache.advance()
        logits: torch.Tensor = output.logits[:, -1]
        return logits


class TogetherRunner(TreeRunner):
    """Runs batches on several models cut out of one, their common blocks once."""

    def __init__(self, together: SharedPrefixModels) -> None:
        """Take the models."""
        super().__init__(together.models[0])
        self.together = together
        # A cut in depth may have lost the layers of one type.
        windows = {kind: window for model in together.models for kind, window in MaskStyle.of(model).windows.items()}
        self.style = replace(self.style, windows=windows)

    def forwards(self, batch: Batch, prefix: PrefixCache) -> Iterator[tuple[int, torch.Tensor]]:
        """Each model's index and its logits of the scored nodes, (scored, vocabulary)."""
        arguments = self.arguments(batch, prefix)
        yield from self.together.run(lambda model: model(**arguments).logits)


CALL = defaultdict(lambda: 512.0, cpu=32.0)
"""By type of device: what one more forward costs, in tokens, as small batches leave a device idle."""


def costs_of(model: Any, steps: int = 1) -> Costs:
    """What work costs on this model, in tokens through its blocks' matrices.

    Args:
        model: a causal language model.
        steps: forwards that each batch takes; more than one where rows go on to generate.
    """
    call = CALL[model.get_input_embeddings().weight.device.type]
    vocabulary = model.get_input_embeddings().weight
    embeddings = {id(vocabulary), id(model.get_output_embeddings().weight)}
    # Matrices alone: so a model and its cuts in depth have the same costs, and their requests the same batches.
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1 and id(p) not in embeddings)
    unit = vocabulary.shape[1] * model.config.get_text_config().num_hidden_layers / max(weights, 1)
    return Costs(PAIR * unit, PREFIX_KEY * unit, call=call, apart=steps * call, pack=steps == 1)
