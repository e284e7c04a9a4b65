"""Models cut out of one, run side by side: the blocks that they begin with in common run once a batch.

A model that lost blocks computes what its dense parent computes up to the first one that is gone. Which blocks two
models share is told by their tensors, not by how they were made: two blocks are one where they hold the same memory.
Every model's own forward is run as it is, with its blocks replaced by ones that remember: masks, positions, norms and
heads are the stock code's, so the numbers are those of the models one by one, to the bit.
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
"""The blocks of a model from the first on, each numbered by what it and all before it are."""


class SharedPrefixModels:
    """Runs models on the same inputs, what they share once.

    Attributes:
        models: in the order given.
    """

    def __init__(self, models: Sequence[PreTrainedModel]) -> None:
        """Take models in evaluation mode.

        Raises:
            UnsupportedModel: no family covers the class of one.
        """
        self.models = tuple(models)
        decoders = [decoder_of(model) for model in models]
        paths = _paths(decoders)
        # Neighbours in this order share the longest beginnings, so that little has to be remembered at a time.
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
        """Blocks that a pass saves: the models' blocks less those that run."""
        return sum(self._reused.values())

    def run(self, forward: Callable[[PreTrainedModel], Result]) -> Iterator[tuple[int, Result]]:
        """Each model's index and what `forward`, on inputs that are the same for all, makes of it.

        A cache among the inputs must be one that keeps what it is given under any number, such as `PrefixCache`: its
        numbers are those of the blocks' places among all models, not a model's own.
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
        """The model with blocks that remember, the first `reused` of them remembered already."""
        body, name = self._places[index]
        own = getattr(body, name)
        for position, block in enumerate(self._blocks[index]):
            assert isinstance(block, _CachedBlock)
            block.skipped, block.kept, block.wanted = position < reused - 1, kept, wanted
        setattr(body, name, self._blocks[index])
        try:
            yield
        finally:
            setattr(body, name, own)


class _CachedBlock(nn.Module):
    """A block in one model's list.

    Attributes:
        node: its number among the blocks of all models.
        skipped: what it computes is known to a later block, which does not look at its input.
        kept: outputs that later models will use, by node.
        wanted: the nodes whose outputs they are.
    """

    def __init__(self, block: nn.Module, node: int) -> None:
        super().__init__()
        # Not a child: the block belongs to its model.
        self._block = [block]
        self.node = node
        self.skipped = False
        self.kept: dict[int, torch.Tensor] = {}
        self.wanted: set[int] = set()

    def forward(self, hidden_states: torch.Tensor, *, past_key_values: Cache | None = None, **rest: Any) -> Any:
        """The block's output, computed or remembered."""
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
    """A cache in which a block's keys and values are kept under its node."""

    def __init__(self, cache: Cache, node: int) -> None:
        self.cache = cache
        self.node = node

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """As the cache's own, whatever number the block gives itself."""
        return self.cache.update(key_states, value_states, self.node)


def _paths(decoders: Sequence[Decoder]) -> list[Path]:
    """Each model's blocks, numbered so that two have one number where they and all before them are the same."""
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


def _common(one: Path, two: Path) -> int:
    """How many blocks two paths begin with in common."""
    return next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two)))
