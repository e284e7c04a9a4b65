"""Rows of a prefix tree as arrays, and the attention masks that restrict the model to the tree.

Nodes of a row are in depth-first order, so a node's descendants are the nodes up to its `end`: node q attends to node k
exactly if k <= q < end[k]. Positions are depths in the tree, and a sliding window is measured in depths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from prunelab.errors import InvalidRequest, UnsupportedModel
from prunelab.io.lazy import np, torch

if TYPE_CHECKING:
    import numpy.typing as npt

    from prunelab.inference.batch_planning import Range
    from prunelab.inference.prefix_tree import IntArray, PrefixTree

Masks: TypeAlias = "torch.Tensor | dict[str, torch.Tensor]"


@dataclass(frozen=True, eq=False)
class PackedRow:
    """One row: subtrees after a frozen prefix.

    Attributes:
        ids: (nodes,), token ids in depth-first order.
        depths: (nodes,), distance from the root of the prefix tree; the position for rotary embeddings.
        ends: (nodes,), one past each node's last descendant.
        requests: (pairs,), the request of each scored token.
        nodes: (pairs,), the node whose prediction is scored.
        targets: (pairs,), the scored token.
    """

    ids: IntArray
    depths: IntArray
    ends: IntArray
    requests: IntArray
    nodes: IntArray
    targets: IntArray

    def __len__(self) -> int:
        return len(self.ids)


def pack_row(tree: PrefixTree, row: Sequence[Range], prefix: int) -> PackedRow:
    """Lay out the inputs of a row without their first `prefix` tokens; shared tokens occur once."""
    starts, stops = np.array(row, dtype=np.int64).T
    size = int(tree.tokens_below(starts, stops, prefix).sum())
    ids, depths, ends = (np.empty(size, dtype=np.int64) for _ in range(3))
    pairs: list[tuple[IntArray, IntArray, IntArray]] = []
    path = np.empty(0, dtype=np.int64)
    total = 0
    for start, stop in row:
        for index in range(start, stop):
            tokens = tree.sequences[index].astype(np.int64)
            shared = max(int(tree.shared[index]), prefix) if index > start else prefix
            fresh = np.arange(total, total + len(tokens) - shared)
            ends[path[shared - prefix :]] = total
            path = np.concatenate([path[: shared - prefix], fresh])
            ids[fresh], depths[fresh] = tokens[shared:], np.arange(shared, len(tokens))
            total += len(fresh)
            for request, first, last in tree.answers[index]:
                targets = np.append(tokens[first + 1 :], last)
                pairs.append((np.full(len(targets), request), path[first - prefix :], targets))
    ends[path] = total
    requests, nodes, targets = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return PackedRow(ids, depths, ends, requests, nodes, targets)


def chain(ids: IntArray, prefix: int) -> PackedRow:
    """One sequence after `prefix` tokens, without scored tokens."""
    size, none = len(ids), np.empty(0, dtype=np.int64)
    return PackedRow(ids, np.arange(prefix, prefix + size), np.full(size, size), none, none, none)


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows after one frozen prefix, padded on the right to the longest.

    Attributes:
        ids: (rows, length), token ids, on the model's device as all tensors here.
        depths: (rows, length), positions.
        ends: (rows, length), one past each node's last descendant; padding attends only to itself and the prefix.
        scored: (rows, length) bool, the nodes whose prediction is needed.
        requests: (pairs,), the request of each scored token.
        places: (pairs,), index of each pair's node among the scored nodes, row by row.
        targets: (pairs,), the scored tokens.
        deepest: the greatest depth.
        plain: whether every row is one chain from the root, for which causal attention needs no mask.
    """

    ids: torch.Tensor
    depths: torch.Tensor
    ends: torch.Tensor
    scored: torch.Tensor
    requests: IntArray
    places: IntArray
    targets: IntArray
    deepest: int
    plain: bool


def make_batch(rows: Sequence[PackedRow], prefix: int, device: torch.device, width: int = 0) -> Batch:
    """Pad rows to the longest, or to `width` if that is more, and number the scored nodes."""
    shape = (len(rows), max(width, *(len(row) for row in rows)))
    ids, depths = np.zeros(shape, dtype=np.int64), np.full(shape, prefix)
    ends = np.tile(np.arange(1, shape[1] + 1), (shape[0], 1))
    scored = np.zeros(shape, dtype=np.bool_)
    for i, row in enumerate(rows):
        ids[i, : len(row)], depths[i, : len(row)], ends[i, : len(row)] = row.ids, row.depths, row.ends
        scored[i, row.nodes] = True
    numbers = scored.cumsum().reshape(shape) - 1

    def send(array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return Batch(
        ids=send(ids),
        depths=send(depths),
        ends=send(ends),
        scored=send(scored),
        requests=np.concatenate([row.requests for row in rows]),
        places=np.concatenate([numbers[i, row.nodes] for i, row in enumerate(rows)]),
        targets=np.concatenate([row.targets for row in rows]),
        deepest=int(depths.max()),
        plain=prefix == 0 and all(bool((row.ends == len(row)).all()) for row in rows),
    )


@dataclass(frozen=True)
class MaskStyle:
    """The masks that a model takes: one per layer type, or a single one.

    Attributes:
        windows: sliding window in tokens per layer type; None for full attention.
        by_type: whether the model takes a dict by layer type (Qwen2, Gemma-2) or one mask (Llama, Mistral).
        dtype: dtype of the additive mask.
    """

    windows: Mapping[str, int | None]
    by_type: bool
    dtype: torch.dtype

    @classmethod
    def of(cls, model: Any) -> MaskStyle:
        """Read the style from a transformers causal language model.

        Raises:
            InvalidRequest: its attention implementation does not accept custom masks.
            UnsupportedModel: it has layers that are neither full nor sliding attention.
        """
        config = model.config.get_text_config()
        if config._attn_implementation not in ("eager", "sdpa"):
            raise InvalidRequest(
                f"attention implementation {config._attn_implementation!r} takes no tree masks; allowed are 'eager' "
                "and 'sdpa': load the model with attn_implementation='sdpa' ('eager' for Gemma-2)"
            )
        window = getattr(config, "sliding_window", None)
        types = getattr(config, "layer_types", None)
        if not types:
            return cls({"": window}, False, model.dtype)
        if unknown := set(types) - {"full_attention", "sliding_attention"}:
            raise UnsupportedModel(
                f"layers of type {sorted(unknown)} cannot be scored; allowed are full_attention and "
                "sliding_attention: evaluate this model with lm-eval itself"
            )
        return cls({t: window if t == "sliding_attention" else None for t in set(types)}, True, model.dtype)

    def masks(self, visible: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor, deepest: int) -> Masks:
        """Additive masks from a visibility relation.

        Args:
            visible: (rows, queries, keys) bool.
            queries: (rows, queries), depths.
            keys: (rows, keys), depths.
            deepest: greatest depth of the queries; a window wider than that hides nothing.

        Returns:
            (rows, 1, queries, keys), 0 where visible and the dtype's lowest value elsewhere; a dict by layer type if
            `by_type`.
        """
        made: dict[int | None, torch.Tensor] = {}
        for window in {w if w is not None and w <= deepest else None for w in self.windows.values()}:
            near = visible if window is None else visible & (queries[:, :, None] - keys[:, None] < window)
            made[window] = _additive(near, self.dtype)
        by_type = {t: made[w if w is not None and w <= deepest else None] for t, w in self.windows.items()}
        return by_type if self.by_type else by_type[""]


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(rows, 1, queries, keys), 0 where visible; not bool, because eager attention adds the mask to the scores."""
    rows, queries, keys = visible.shape
    # CUDA's kernels copy a mask in every layer unless its rows begin at multiples of eight elements.
    room = torch.zeros(rows, queries, -(-keys // 8) * 8, dtype=dtype, device=visible.device)
    return room[:, :, :keys].masked_fill_(~visible, torch.finfo(dtype).min).unsqueeze(1)


def tree_masks(style: MaskStyle, batch: Batch, prefix: int) -> Masks:
    """The masks of a batch after `prefix` frozen keys: (rows, 1, length, prefix + length)."""
    rows, length = batch.ids.shape
    places = torch.arange(length, device=batch.ids.device)
    visible = (places[None, :] <= places[:, None]) & (places[:, None] < batch.ends[:, None, :])
    visible = torch.cat([visible.new_ones(rows, length, prefix), visible], dim=2)
    ahead = torch.arange(prefix, device=batch.ids.device).expand(rows, prefix)
    return style.masks(visible, batch.depths, torch.cat([ahead, batch.depths], dim=1), batch.deepest)
