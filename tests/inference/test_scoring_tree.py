"""The prefix tree, its cut into groups and rows, and the rows' layout: pure functions of token ids."""

from __future__ import annotations

import dataclasses
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunelab.errors import DataError
from prunelab.inference.batch_planning import Costs, Group, plan_groups
from prunelab.inference.packing import MaskStyle, make_batch, pack_row, tree_masks
from prunelab.inference.prefix_tree import PrefixTree, ScoringRequest, build_tree

CHEAP_CALLS = Costs(pair=0.001, prefix_key=0.05, call=2.0, apart=2.0)


def requests(*pairs: tuple[list[int], list[int]]) -> list[ScoringRequest]:
    return [ScoringRequest(context, continuation, f"request {i}") for i, (context, continuation) in enumerate(pairs)]


def test_shared_tokens_count_once() -> None:
    tree = build_tree(requests(([1, 2, 3], [4, 5]), ([1, 2, 3], [6, 7]), ([1, 2, 3], [6, 8]), ([1, 9], [4])), 100)
    # Inputs: 1234, 1236 (twice, for 7 and for 8), 19. Nodes: 1 2 3 4 6 9.
    assert [sequence.tolist() for sequence in tree.sequences] == [[1, 2, 3, 4], [1, 2, 3, 6], [1, 9]]
    assert tree.shared.tolist() == [0, 3, 1]
    assert tree.first_scored.tolist() == [2, 2, 1]
    assert tree.distinct_tokens == 6
    assert [len(answers) for answers in tree.answers] == [1, 2, 1]


def test_one_letter_choices_are_one_input() -> None:
    tree = build_tree(requests(*(([5, 6, 7], [letter]) for letter in (1, 2, 3, 4))), 100)
    assert tree.distinct_tokens == 3
    assert [answer.last for answer in tree.answers[0]] == [1, 2, 3, 4]


def test_truncation_keeps_the_right_end_and_is_counted() -> None:
    tree = build_tree(requests(([1, 2, 3, 4, 5], [6, 7]), ([1], [2])), max_length=4)
    assert tree.sequences[1].tolist() == [3, 4, 5, 6]
    assert tree.truncated == 1
    assert build_tree(requests(([1, 2, 3], [6, 7])), max_length=4).truncated == 0


@pytest.mark.parametrize("pair", [([], [1]), ([1], []), ([1], [2, 3, 4, 5, 6])])
def test_what_cannot_be_scored_is_named(pair: tuple[list[int], list[int]]) -> None:
    with pytest.raises(DataError, match="request 0"):
        build_tree(requests(pair), max_length=4)


def test_no_requests_are_an_empty_tree() -> None:
    assert build_tree([], 10).distinct_tokens == 0
    assert plan_groups(build_tree([], 10), CHEAP_CALLS).rows == []


def test_a_packed_row_by_hand() -> None:
    tree = build_tree(requests(([1, 2], [3, 4, 0]), ([1, 2], [5, 0]), ([6], [7])), 100)
    row = pack_row(tree, [(0, 3)], prefix=0)
    assert row.ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert row.depths.tolist() == [0, 1, 2, 3, 2, 0]
    assert row.ends.tolist() == [5, 5, 4, 4, 5, 6]
    pairs = list(zip(row.requests.tolist(), row.nodes.tolist(), row.targets.tolist(), strict=True))
    assert pairs == [(0, 1, 3), (0, 2, 4), (0, 3, 0), (1, 1, 5), (1, 4, 0), (2, 5, 7)]


def test_masks_by_hand() -> None:
    tree = build_tree(requests(([1, 2], [3, 0]), ([1, 2], [4, 0]), ([1], [9, 9])), 100)
    batch = make_batch([pack_row(tree, [(0, 2)], 1), pack_row(tree, [(2, 3)], 1)], 1, torch.device("cpu"))
    style = MaskStyle({"full_attention": None, "sliding_attention": 2}, True, torch.float32)
    masks = tree_masks(style, batch, prefix=1)
    assert isinstance(masks, dict)
    seen = {name: (mask[:, 0] == 0).int().tolist() for name, mask in masks.items()}
    padding = [[1, 0, 1, 0], [1, 0, 0, 1]]
    assert seen["full_attention"] == [[[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]], [[1, 1, 0, 0], *padding]]
    # A window of two tokens: depth 2 no longer sees depth 0, whatever lies between in the row.
    assert seen["sliding_attention"][0] == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 1]]


def test_shots_get_a_cache_and_documents_share_rows() -> None:
    shots = list(range(100, 400))
    documents = [([*shots, 1000 + d, 2000 + d], [choice, choice]) for d in range(50) for choice in (1, 2, 3, 4)]
    tree = build_tree(requests(*documents), 1000)
    root = plan_groups(tree, CHEAP_CALLS)
    assert not root.rows
    assert [child.length for child in root.children] == [300]
    assert sum(len(row) for row in root.children[0].rows) > len(root.children[0].rows) > 1


def test_documents_with_their_own_shots_are_a_row_each() -> None:
    documents = [([d, *range(100, 400)], [choice, 5]) for d in range(50) for choice in (1, 2, 3, 4)]
    root = plan_groups(
        build_tree(requests(*documents), 1000), dataclasses.replace(CHEAP_CALLS, call=100.0, apart=100.0)
    )
    assert not root.children
    assert sorted(root.rows) == [[(4 * d, 4 * d + 4)] for d in range(50)]


def test_rows_of_many_documents_have_a_limit() -> None:
    costs = Costs(pair=1e-9, prefix_key=1e-9, call=1e9, apart=0.0)
    for count, rows in ((30, 1), (60, 60)):  # 61 tokens each: 1830 fit a row, 3660 do not
        documents = [([1, *range(100 * d, 100 * d + 60)], [5, 6]) for d in range(2, 2 + count)]
        assert len(plan_groups(build_tree(requests(*documents), 1000), costs).rows) == rows
    [alone] = plan_groups(build_tree(requests((list(range(5000)), [1])), 9999), CHEAP_CALLS).rows
    assert alone == [(0, 1)]


def test_prompts_that_will_be_continued_are_never_packed() -> None:
    prompts = [([*range(300), d], [0]) for d in range(20)]
    root = plan_groups(build_tree(requests(*prompts), 1000), dataclasses.replace(CHEAP_CALLS, pack=False))
    assert [child.length for child in root.children] == [300]
    assert sorted(root.children[0].rows) == [[(i, i + 1)] for i in range(20)]


def replayed(tree: PrefixTree, root: Group) -> dict[int, list[tuple[list[int], int]]]:
    """For each request, what each of its scored tokens was predicted from, read off prefixes, rows and masks."""
    found: dict[int, list[tuple[list[int], int]]] = defaultdict(list)
    stack: list[tuple[Group, list[int]]] = [(root, [])]
    while stack:
        group, above = stack.pop()
        prefix = tree.sequences[group.inputs[0]][: group.length].tolist() if group.length else []
        assert prefix[: len(above)] == above
        stack += [(child, prefix) for child in group.children]
        for ranges in group.rows:
            row = pack_row(tree, ranges, group.length)
            for request, node, target in zip(row.requests, row.nodes, row.targets, strict=True):
                seen = [k for k in range(node + 1) if node < row.ends[k]]
                assert row.depths[seen].tolist() == list(range(group.length, row.depths[node] + 1))
                found[int(request)].append((prefix + row.ids[seen].tolist(), int(target)))
    return found


tokens = st.lists(st.integers(0, 2), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(
    pairs=st.lists(st.tuples(tokens, tokens), min_size=1, max_size=12),
    pair=st.sampled_from([0.0001, 0.01, 1.0]),
    prefix_key=st.sampled_from([0.0, 0.1, 2.0]),
    call=st.sampled_from([0.0, 1.0, 50.0]),
    apart=st.sampled_from([0.0, 3.0]),
    pack=st.booleans(),
)
def test_every_request_sees_its_own_tokens(
    pairs: list[tuple[list[int], list[int]]], pair: float, prefix_key: float, call: float, apart: float, pack: bool
) -> None:
    tree = build_tree(requests(*pairs), 100)
    root = plan_groups(tree, Costs(pair, prefix_key, call, apart, pack))
    found = replayed(tree, root)
    for i, (context, continuation) in enumerate(pairs):
        whole = context + continuation
        expected = [(whole[:k], whole[k]) for k in range(len(context), len(whole))]
        assert found[i] == expected
    assert tree.distinct_tokens == len({tuple(w[:k]) for c, r in pairs for w in [c + r] for k in range(1, len(w))})


@given(st.lists(st.tuples(tokens, tokens), min_size=2, max_size=12))
def test_tokens_below_counts_nodes(pairs: list[tuple[list[int], list[int]]]) -> None:
    tree = build_tree(requests(*pairs), 100)
    whole = tree.tokens_below(np.array([0]), np.array([len(tree.sequences)]), 0)
    assert whole.tolist() == [tree.distinct_tokens]
