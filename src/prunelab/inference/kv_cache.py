"""Two key-value caches: a frozen prefix that no forward changes, and the growing cache of decoding.

The caches of transformers grow with every forward, keep one batch size, and drop what slides out of a window; a prefix
that many batches share needs none of these. Both caches take the geometry of each layer from the tensors they receive,
so layers may differ in their number of heads, and a layer without attention may store placeholders. Windowed layers
store full-length keys too: the masks apply the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from transformers.cache_utils import Cache

from prunelab.io.lazy import torch

KeysAndValues: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"


class PrefixCache(Cache):  # type: ignore[misc]
    """Keys and values of a prefix, one row that every row of a batch attends to.

    A forward receives prefix and new keys concatenated; the prefix does not change. With `record`, the forward's keys
    and values are stored in `recorded`, from which `extended` makes the longer prefix.
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
        """Number of tokens of the prefix."""
        return self.length

    def recording(self) -> PrefixCache:
        """The same prefix, for a forward whose keys and values are recorded."""
        return PrefixCache(self.states, self.length, record=True)

    def extended(self, new: int) -> PrefixCache:
        """The prefix extended by the recorded row of `new` tokens."""
        recorded, self.recorded, self.record = self.recorded, {}, False
        longer = {layer: self.update(*states, layer) for layer, states in recorded.items()}
        return PrefixCache(longer, self.length + new)


class DecodingCache(Cache):  # type: ignore[misc]
    """Keys and values of rows that generate: prefix, prompt, then one column per new token.

    Finished rows are dropped. New rows put their prompt into the first columns, followed by padding up to the next
    column to be written. Columns that no row attends to are dropped, so the number of columns stays within that of the
    longest prompt and completion plus `GROWTH`. Buffers grow by `GROWTH` columns and are written in place.

    Attributes:
        columns: number of filled columns, padding included.
        depths: (rows, columns), position of each key in its row's text; -1 for padding.
    """

    GROWTH = 64

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.columns = 0
        self.depths = torch.empty(0, 0, dtype=torch.long)
        self.buffers: dict[int, list[torch.Tensor]] = {}

    def add(self, prefilled: Sequence[PrefixCache], sources: torch.Tensor, lengths: torch.Tensor, columns: int) -> None:
        """Give each beginning row its own copy of a prompt's keys and values.

        Args:
            prefilled: caches on one prefix with the recorded forwards of the prompts, all padded to one length.
            sources: (rows,), the prompt of each row, as an index over all of `prefilled`.
            lengths: (rows,), number of tokens of each row's prompt, including the prefix.
            columns: number of tokens of prefix plus padded prompt; if there are rows, at most their `columns`.
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
        """Write the new column and return all columns up to it, each (rows, heads, columns + 1, head size)."""
        buffers = self.buffers[layer_idx]
        for i, states in enumerate((key_states, value_states)):
            if self.columns == buffers[i].shape[2]:
                rows, heads, _columns, size = states.shape
                buffers[i] = torch.cat([buffers[i], states.new_zeros(rows, heads, self.GROWTH, size)], dim=2)
            buffers[i][:, :, self.columns : self.columns + 1] = states
        return buffers[0][:, :, : self.columns + 1], buffers[1][:, :, : self.columns + 1]

    def advance(self) -> None:
        """Move on to the next column after a forward."""
        self.columns += 1

    def keep(self, rows: torch.Tensor) -> None:
        """Keep only the rows at these indices; drop unattended columns if there are at least `GROWTH`."""
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
        """Number of filled columns, padding included."""
        return self.columns
