"""The two key-value caches that sharing needs: a prefix that no forward changes, and one that decoding fills.

The library's own caches grow with every forward, keep one batch size, and forget what slides out of a window;
none of that fits a prefix which many batches stand on. Both caches here take the geometry of each layer from the
tensors they are given, so layers may differ in heads, and a layer without attention may store placeholders.
They hold full-length keys in windowed layers too: the masks apply the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from transformers.cache_utils import Cache

from prunelab.io.lazy import torch

KeysAndValues: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"


class PrefixCache(Cache):  # type: ignore[misc]
    """Keys and values of a prefix, one row that every row of a batch sees.

    A forward gets prefix and new keys together and leaves the prefix as it was. With `record`, what the forward
    computed is kept apart in `recorded`, from which `extended` makes the longer prefix.
    """

    def __init__(self, states: dict[int, KeysAndValues] | None = None, length: int = 0, *, record: bool = False):
        super().__init__(layers=[])
        self.states = states or {}
        self.length = length
        self.record = record
        self.recorded: dict[int, KeysAndValues] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> KeysAndValues:
        """Prefix and new states of one layer, each (rows, heads, prefix + new, head size)."""
        if self.record:
            self.recorded[layer_idx] = (key_states, value_states)
        if layer_idx not in self.states:
            return key_states, value_states
        keys, values = self.states[layer_idx]
        rows = (key_states.shape[0], -1, -1, -1)
        return (
            torch.cat([keys.expand(rows), key_states], dim=2),
            torch.cat([values.expand(rows), value_states], dim=2),
        )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens of the prefix, whatever a layer stores of them."""
        return self.length

    def recording(self) -> PrefixCache:
        """The same prefix, for a forward whose keys and values are to be kept."""
        return PrefixCache(self.states, self.length, record=True)

    def extended(self, new: int) -> PrefixCache:
        """The prefix with the one recorded row of `new` tokens behind it."""
        recorded, self.recorded, self.record = self.recorded, {}, False
        longer = {layer: self.update(*states, layer) for layer, states in recorded.items()}
        return PrefixCache(longer, self.length + new)


class DecodingCache(Cache):  # type: ignore[misc]
    """Keys and values of rows that generate: prefix, prompt, then one column for each new token.

    Rows come and go: those that have finished are dropped, and new ones put their prompt into the first columns, behind
    which they have padding up to the column that is written next. Columns that no row sees any more go as well, so
    that there are never more than the longest prompt and completion need (and `GROWTH`). Buffers grow by `GROWTH`
    columns at a time and are written in place.

    Attributes:
        columns: filled so far, padding included.
        depths: (rows, columns), the position of each key in its row's text; -1 for padding.
    """

    GROWTH = 64

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.columns = 0
        self.depths = torch.empty(0, 0, dtype=torch.long)
        self.buffers: dict[int, list[torch.Tensor]] = {}

    def add(self, prefilled: Sequence[PrefixCache], sources: torch.Tensor, lengths: torch.Tensor, columns: int) -> None:
        """Give each row that begins its own copy of a prompt's keys and values.

        Args:
            prefilled: caches on one prefix that recorded the forwards of the prompts, all padded to one length.
            sources: (rows,), the prompt each row continues, counted over all of `prefilled`.
            lengths: (rows,), tokens of each row's prompt, those of the prefix included.
            columns: tokens of prefix and padded prompt together; once there are rows, no more than theirs.
        """
        self.columns = self.columns or columns
        assert columns <= self.columns
        depths = torch.arange(self.columns, device=lengths.device).repeat(len(lengths), 1)
        depths[depths >= lengths[:, None]] = -1
        self.depths = torch.cat([self.depths, depths]) if self.buffers else depths
        for layer in list(prefilled[0].recorded):
            prefix = prefilled[0].states.get(layer, (None, None))
            recorded = zip(*(cache.recorded.pop(layer) for cache in prefilled), strict=True)
            old = self.buffers.get(layer, [None, None])
            self.buffers[layer] = [
                self._with_rows(buffer, torch.cat(prompts), shared, sources, columns)
                for buffer, prompts, shared in zip(old, recorded, prefix, strict=True)
            ]

    def _with_rows(
        self,
        buffer: torch.Tensor | None,
        prompts: torch.Tensor,
        prefix: torch.Tensor | None,
        sources: torch.Tensor,
        columns: int,
    ) -> torch.Tensor:
        """(rows, heads, columns + room to grow, head size) from the prompts' (prompts, heads, length, head size)."""
        _prompts, heads, length, size = prompts.shape
        width = self.columns + self.GROWTH if buffer is None else buffer.shape[2]
        new = prompts.new_zeros(len(sources), heads, width, size)
        if prefix is not None:
            new[:, :, : columns - length] = prefix
        new[:, :, columns - length : columns] = prompts[sources.to(prompts.device)]
        return new if buffer is None else torch.cat([buffer, new])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> KeysAndValues:
        """Write the new column and return everything up to it, each (rows, heads, columns + 1, head size)."""
        buffers = self.buffers[layer_idx]
        for i, states in enumerate((key_states, value_states)):
            if self.columns == buffers[i].shape[2]:
                rows, heads, _columns, size = states.shape
                buffers[i] = torch.cat([buffers[i], states.new_zeros(rows, heads, self.GROWTH, size)], dim=2)
            buffers[i][:, :, self.columns : self.columns + 1] = states
        return buffers[0][:, :, : self.columns + 1], buffers[1][:, :, : self.columns + 1]

    def advance(self) -> None:
        """The forward is over: the next token goes to the next column."""
        self.columns += 1

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all rows but those at the indices given, and the columns that none of these sees, if they are many."""
        self.depths = self.depths[rows]
        seen = (self.depths >= 0).any(0).nonzero()[:, 0]
        many = self.columns - len(seen) >= self.GROWTH
        if many:
            self.depths, self.columns = self.depths[:, seen], len(seen)
        for buffers in self.buffers.values():
            buffers[:] = [buffer.index_select(0, rows.to(buffer.device)) for buffer in buffers]
            if many:
                buffers[:] = [buffer.index_select(2, seen.to(buffer.device)) for buffer in buffers]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns filled so far, padding included."""
        return self.columns
