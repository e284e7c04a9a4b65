"""Forwards of a model over a partitioned prefix tree: frozen prefixes, and the rows after them."""

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
"""Called with the numbers of finished and of all requests."""

PAIR = 6.0
"""Multiply-adds of one query-key pair divided by the hidden size: two, at a third of the speed of a matrix product."""

PREFIX_KEY = 500.0
"""Cost of copying one key and value of a prefix, in multiply-adds divided by the hidden size."""


@dataclass
class ScoringStatistics:
    """Counts of a scorer or sampler.

    Attributes:
        requests: continuations scored, or completions generated.
        truncated: requests longer than the context, which were truncated on the left.
        distinct_tokens: nodes of the prefix trees, the minimum that must be computed.
        computed_tokens: tokens that the model processed, padding included.
        forwards: forwards of the model.
    """

    requests: int = 0
    truncated: int = 0
    distinct_tokens: int = 0
    computed_tokens: int = 0
    forwards: int = 0


class TreeRunner:
    """Runs batches of packed rows on a causal language model of transformers, with counts."""

    def __init__(self, model: Any) -> None:
        """Wrap a model in evaluation mode.

        Raises:
            InvalidRequest, UnsupportedModel: the model does not accept custom attention masks.
        """
        self.model = model
        self.style = MaskStyle.of(model)
        self.statistics = ScoringStatistics()

    @property
    def device(self) -> torch.device:
        """The device of the model's inputs."""
        device: torch.device = self.model.get_input_embeddings().weight.device
        return device

    def walk(self, tree: PrefixTree, root: Group) -> Iterator[tuple[PrefixCache, Group]]:
        """Each group that has rows, with its frozen prefix; a prefix is freed when all groups after it are done.

        The order is depth-first and begins with the path to the heaviest row, so that peak memory is reached first.
        """
        from prunelab.inference.kv_cache import PrefixCache

        stack = [(root, PrefixCache(), False)]
        while stack:
            group, prefix, entered = stack.pop()
            if entered:
                yield prefix, group
                continue
            prefix = self._extended(tree, group, prefix)
            here = [(group, prefix, True)] if group.rows else []
            below = [(child, prefix, False) for child in reversed(group.children)]
            here_first = not below or group.longest > group.children[0].longest
            stack += below + here if here_first else here + below

    def _extended(self, tree: PrefixTree, group: Group, parent: PrefixCache) -> PrefixCache:
        """The group's frozen prefix: its parent's, extended by one forward over the tokens between."""
        if group.length == parent.length:
            return parent
        tokens = tree.sequences[group.inputs[0]][parent.length : group.length].astype(np.int64)
        recording = parent.recording()
        for _ in self.forwards(make_batch([chain(tokens, parent.length)], parent.length, self.device), recording):
            pass
        return recording.extended(len(tokens))

    def forwards(self, batch: Batch, prefix: PrefixCache) -> Iterator[tuple[int, torch.Tensor]]:
        """The model's index, always 0, and its logits."""
        yield 0, self.forward(batch, prefix)

    def forward(self, batch: Batch, prefix: PrefixCache) -> torch.Tensor:
        """Logits of the batch's scored nodes, (scored, vocabulary)."""
        arguments = self.arguments(batch, prefix)
        logits: torch.Tensor = self.model(**arguments).logits
        return logits

    def arguments(self, batch: Batch, prefix: PrefixCache) -> dict[str, Any]:
        """The model's arguments for a batch; counts the batch as run."""
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
        """Logits of one more token per row, (rows, vocabulary).

        Args:
            ids, depths: (rows, 1), the tokens and their positions.
            keys: (rows, columns), the depth of each key after the token is added, -1 for padding.
            deepest: the greatest of `depths`.
            cache: extended by the tokens' keys and values.
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
    """Runs batches on several models pruned from one; their common blocks run once."""

    def __init__(self, together: SharedPrefixModels) -> None:
        """Wrap the models."""
        super().__init__(together.models[0])
        self.together = together
        # Depth pruning may have removed all layers of one type.
        windows = {kind: window for model in together.models for kind, window in MaskStyle.of(model).windows.items()}
        self.style = replace(self.style, windows=windows)

    def forwards(self, batch: Batch, prefix: PrefixCache) -> Iterator[tuple[int, torch.Tensor]]:
        """Each model's index and its logits of the scored nodes, (scored, vocabulary)."""
        arguments = self.arguments(batch, prefix)
        yield from self.together.run(lambda model: model(**arguments).logits)


CALL = defaultdict(lambda: 512.0, cpu=32.0)
"""By type of device: cost of one more forward, in tokens; small batches underuse a device."""


def costs_of(model: Any, steps: int = 1) -> Costs:
    """Costs on this model, in tokens through its blocks' matrices.

    Args:
        model: a causal language model.
        steps: forwards per batch; more than one if rows generate.
    """
    call = CALL[model.get_input_embeddings().weight.device.type]
    vocabulary = model.get_input_embeddings().weight
    embeddings = {id(vocabulary), id(model.get_output_embeddings().weight)}
    # Only matrices count, so a model and its depth-pruned versions have the same costs and batches.
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1 and id(p) not in embeddings)
    unit = vocabulary.shape[1] * model.config.get_text_config().num_hidden_layers / max(weights, 1)
    return Costs(PAIR * unit, PREFIX_KEY * unit, call=call, apart=steps * call, pack=steps == 1)
