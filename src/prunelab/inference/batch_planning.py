"""Partition of a prefix tree: which prefixes get a cache, and which inputs are packed into one row.

A *row* is a packed subtree: every token attends only to its ancestors. A *group* is a set of rows after one frozen
prefix, which is computed once. Each branching of the tree is decided by costs in *tokens* (1 = one token through the
model's matrices): attention within a large row is quadratic, a frozen prefix costs extra forwards and a copy of its
keys for every row, and splitting without a prefix recomputes shared tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from prunelab.io.lazy import np

if TYPE_CHECKING:
    from prunelab.inference.prefix_tree import IntArray, PrefixTree

SLACK = 0.1
"""Short rows are merged while attention to each other's positions costs at most this share of their tokens."""

ROW_LIMIT = 2048
"""Maximum length of a row with several inputs (a single input may be longer): its mask is quadratic."""

Range = tuple[int, int]
"""Inputs `start` to `stop - 1` of a tree."""


@dataclass(frozen=True)
class Costs:
    """Costs of operations, in tokens.

    Attributes:
        pair: one query attending to one key.
        prefix_key: copying one key of the frozen prefix to one row.
        call: one more forward.
        apart: rows that can no longer join the batches of other rows.
        pack: whether several inputs may share a row (not if the rows generate afterwards).
    """

    pair: float
    prefix_key: float
    call: float
    apart: float
    pack: bool = True

    def rows(self, tokens: IntArray, prefix: int) -> float:
        """Cost of one row per entry of `tokens` after a prefix of `prefix` keys; short rows share a copy of it."""
        total = int(tokens.sum())
        attending = total * (1 + self.pair * prefix) + self.pair * int((tokens**2).sum())
        copies = min(len(tokens), 1 + total / max(self.row_length(prefix), 1.0))
        return attending + copies * self.prefix_key * prefix

    def row_length(self, prefix: int) -> float:
        """The row length at which copying the prefix costs as much as attention within the row."""
        return math.sqrt(self.prefix_key * prefix / self.pair)


@dataclass(eq=False)
class Group:
    """Rows after one frozen prefix.

    Attributes:
        inputs: the inputs that begin with the prefix.
        length: number of tokens of the prefix; 0 for the root.
        rows: for each row its ranges of inputs; the ranges of a row do not attend to each other.
        children: groups whose prefixes extend this one.
        longest: largest number of keys that any row here or below attends to.
    """

    inputs: Range
    length: int
    rows: list[list[Range]] = field(default_factory=list)
    children: list[Group] = field(default_factory=list)
    longest: int = 0


def plan_groups(tree: PrefixTree, costs: Costs) -> Group:
    """Partition the tree from its root: at each branching, the cheapest of packing, caching and splitting."""
    root = Group(inputs=(0, len(tree.sequences)), length=0)
    stack = [(*root.inputs, root)] if tree.sequences else []
    groups = [root]
    while stack:
        start, stop, group = stack.pop()
        level, bounds = _branches(tree, start, stop)
        trunk = min(level, int(tree.first_scored[start:stop].min()))
        choice = "pack" if stop - start == 1 else _cheapest(tree, costs, bounds, group, trunk)
        if choice == "pack":
            group.rows.append([(start, stop)])
        elif choice == "cache":
            child = Group(inputs=(start, stop), length=trunk)
            group.children.append(child)
            groups.append(child)
            stack.append((start, stop, child))
        else:
            stack.extend((int(a), int(b), group) for a, b in pairwise(bounds))
    # Children are listed after their parents, so the reversed order visits children first.
    for group in reversed(groups):
        _merge_rows(tree, costs, group)
    return root


def _branches(tree: PrefixTree, start: int, stop: int) -> tuple[int, IntArray]:
    """Length of the common prefix of inputs `start` to `stop - 1`, and the bounds of the branches after it."""
    if stop - start == 1:
        return int(tree.lengths[start]), np.array([start, stop])
    inner = tree.shared[start + 1 : stop]
    level = int(inner.min())
    return level, np.concatenate([[start], start + 1 + np.flatnonzero(inner == level), [stop]])


def _cheapest(tree: PrefixTree, costs: Costs, bounds: IntArray, group: Group, trunk: int) -> str:
    """The cheapest choice: "pack" into one row, "cache" up to depth `trunk`, or "split" into the branches."""
    prefix = group.length
    packed = tree.tokens_below(bounds[:1], bounds[-1:], prefix)
    branches = tree.tokens_below(bounds[:-1], bounds[1:], prefix)
    longest = int(tree.lengths[bounds[0] : bounds[-1]].max()) - prefix
    prices = {"split": costs.rows(branches, prefix)}
    if costs.pack and int(packed[0]) <= max(ROW_LIMIT, 1.25 * longest):
        prices["pack"] = costs.rows(packed, prefix)
    if trunk > prefix:
        gained = trunk - prefix
        rest = min(costs.rows(branches - gained, trunk), costs.rows(packed - gained, trunk))
        apart = 0.0 if group.inputs == (bounds[0], bounds[-1]) else costs.apart
        prices["cache"] = costs.call + apart + gained * (1 + costs.pair * trunk) + rest
    return min(prices, key=lambda choice: prices[choice])


def _merge_rows(tree: PrefixTree, costs: Costs, group: Group) -> None:
    """Fill up the longest rows with the shortest ones, and sort rows and children, longest first."""
    starts = np.array([row[0][0] for row in group.rows], dtype=np.int64)
    stops = np.array([row[0][1] for row in group.rows], dtype=np.int64)
    tokens = tree.tokens_below(starts, stops, group.length) if group.rows else starts
    order = [int(index) for index in np.argsort(-tokens, kind="stable")]
    # Without a prefix, rows as long as the longest need no padding; after one, fewer rows mean fewer copies of it.
    limit = max(costs.row_length(group.length), min(SLACK / costs.pair, tokens.max(initial=0)))
    limit = limit if costs.pack else 0.0
    merged: list[tuple[int, list[Range]]] = []
    first, last = 0, len(order) - 1
    while first <= last:
        size, row = int(tokens[order[first]]), list(group.rows[order[first]])
        first += 1
        while first <= last and size + tokens[order[last]] <= limit:
            size += int(tokens[order[last]])
            row += group.rows[order[last]]
            last -= 1
        merged.append((size, row))
    merged.sort(key=lambda entry: -entry[0])
    group.rows = [row for _, row in merged]
    group.children.sort(key=lambda child: -child.longest)
    group.longest = max(
        [group.length + merged[0][0] if merged else 0, *(child.longest for child in group.children[:1])]
    )
