"""Models pruned from one dense model, run side by side: common leading blocks run once per batch.

A depth-pruned model computes the same hidden states as its dense parent up to the first removed block. Two blocks are
equal if their tensors are the same memory; it does not matter how the models were made. Every model's own forward runs,
with its blocks wrapped in caching ones: masks, positions, norms and heads come from the stock code, so the results are
bit-identical to those of the models run separately.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from prunelab.io.lazy import nn, torch
from prunelab.models.families import Decoder, decoder_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.cache_utils import Cache

Result = TypeVar("Result")
Path = tuple[int, ...]
"""The blocks of a model in order, each numbered by its identity and that of all blocks before it."""


class SharedPrefixModels:
    """Runs several models on the same inputs; shared blocks run once.

    Attributes:
        models: the models, in the given order.
    """

    def __init__(self, models: Sequence[PreTrainedModel]) -> None:
        """Wrap models in evaluation mode.

        Raises:
            UnsupportedModel: no family covers the class of a model.
        """
        self.models = tuple(models)
        decoders = [decoder_of(model) for model in models]
        paths = _paths(decoders)
        # Neighbours in this order share the longest prefixes, which minimises the number of cached outputs.
        self._order = sorted(range(len(paths)), key=lambda index: paths[index])
        self._reused = dict.fromkeys(range(len(paths)), 0)
        for before, after in pairwise(self._order):
            self._reused[after] = _common(paths[before], paths[after])
        self._paths = paths
        self._places = [(decoder.body, decoder.family.blocks) for decoder in decoders]
        self._blocks = [
            nn.ModuleList(_CachedBlock(block, node) for block, node in zip(decoder.blocks, path, strict=True))
            for decoder, path in zip(decoders, paths, strict=True)
        ]

    @property
    def shared_blocks(self) -> int:
        """Number of blocks that a pass saves: the models' blocks minus those that run."""
        return sum(self._reused.values())

    def run(self, forward: Callable[[PreTrainedModel], Result]) -> Iterator[tuple[int, Result]]:
        """Each model's index and the result of `forward`, which must use the same inputs for all models.

        A cache among the inputs must store keys and values under arbitrary layer numbers, as `PrefixCache` does: blocks
        are numbered over all models.
        """
        kept: dict[int, torch.Tensor] = {}
        for place, index in enumerate(self._order):
            reused = self._reused[index]
            following = self._order[place + 1 :]
            wanted = {self._paths[other][self._reused[other] - 1] for other in following if self._reused[other]}
            with self._remembering(index, reused, kept, wanted):
                result = forward(self.models[index])
            for node in kept.keys() - wanted:
                del kept[node]
            yield index, result

    @contextmanager
    def _remembering(self, index: int, reused: int, kept: dict[int, torch.Tensor], wanted: set[int]) -> Iterator[None]:
        """Replace the model's blocks by caching ones; the outputs of the first `reused` are cached already."""
        body, name = self._places[index]
        blocks = getattr(body, name)
        for position, block in enumerate(self._blocks[index]):
            assert isinstance(block, _CachedBlock)
            block.skipped, block.kept, block.wanted = position < reused - 1, kept, wanted
        setattr(body, name, self._blocks[index])
        try:
            yield
        finally:
            setattr(body, name, blocks)


class _CachedBlock(nn.Module):
    """A block in one model's list.

    Attributes:
        node: its number among the blocks of all models.
        skipped: a later block's output is cached, so this block's output is not needed.
        kept: cached outputs, by node.
        wanted: nodes whose outputs later models need.
    """

    def __init__(self, block: nn.Module, node: int) -> None:
        super().__init__()
        # In a list, so that it is not registered as a submodule: the block belongs to its model.
        self._block = [block]
        self.node = node
        self.skipped = False
        self.kept: dict[int, torch.Tensor] = {}
        self.wanted: set[int] = set()

    def forward(self, hidden_states: torch.Tensor, *, past_key_values: Cache | None = None, **rest: Any) -> Any:
        """The block's output, computed or cached."""
        if self.skipped:
            return hidden_states
        if self.node in self.kept:
            return self.kept[self.node]
        numbered = None if past_key_values is None else _RemappedCache(past_key_values, self.node)
        output = self._block[0](hidden_states, past_key_values=numbered, **rest)
        if self.node in self.wanted:
            self.kept[self.node] = output
        return output


class _RemappedCache:
    """A cache that stores a block's keys and values under its node."""

    def __init__(self, cache: Cache, node: int) -> None:
        self.cache = cache
        self.node = node

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """As the wrapped cache's `update`, with the node in place of the block's layer number."""
        return self.cache.update(key_states, value_states, self.node)


def _paths(decoders: Sequence[Decoder]) -> list[Path]:
    """Each model's blocks, numbered so that equal blocks after equal blocks have the same number."""
    numbers: dict[tuple[Any, ...], int] = {}
    paths = []
    for decoder in decoders:
        types = getattr(decoder.model.config.get_text_config(), "layer_types", None) or [""] * len(decoder.shapes)
        embeddings = decoder.model.get_input_embeddings().weight
        path: list[int] = []
        for block, kind in zip(decoder.blocks, types, strict=True):
            tensors = tuple((name, t.data_ptr(), tuple(t.shape)) for name, t in block.state_dict().items())
            key = (path[-1] if path else embeddings.data_ptr(), bool(path), kind, tensors)
            path.append(numbers.setdefault(key, len(numbers)))
        paths.append(tuple(path))
    return paths


def _common(left: Path, right: Path) -> int:
    """Number of common leading blocks of two paths."""
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
