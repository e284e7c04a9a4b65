from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunelab.errors import InvalidRequest
from prunelab.models.families import BlockShape
from prunelab.pruning.allocation import (
    Competition,
    Constraints,
    KeptUnits,
    achieved_ratio,
    allocate_depth,
    allocate_uniform,
    allocate_width,
)
from prunelab.pruning.scores import ImportanceScores, standardise

SHAPE = BlockShape(hidden=8, key_value_groups=4, queries_per_group=2, head_dim=2, channels=24)


def random_scores(shapes: list[BlockShape], seed: int) -> ImportanceScores:
    generator = torch.Generator().manual_seed(seed)
    return ImportanceScores(
        blocks=torch.rand(len(shapes), generator=generator),
        key_value_groups=tuple(torch.rand(s.key_value_groups, generator=generator) for s in shapes),
        channels=tuple(torch.rand(s.channels, generator=generator) for s in shapes),
    )


shapes_of_blocks = st.lists(
    st.builds(
        BlockShape,
        hidden=st.just(8),
        key_value_groups=st.integers(1, 5),
        queries_per_group=st.just(2),
        head_dim=st.just(2),
        channels=st.integers(8, 60),
    ),
    min_size=2,
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(
    shapes=shapes_of_blocks,
    ratio=st.floats(0.0, 0.95),
    seed=st.integers(0, 9),
    multiple=st.sampled_from([1, 2, 8]),
    drop=st.booleans(),
)
def test_width_comes_within_half_the_largest_step(
    shapes: list[BlockShape], ratio: float, seed: int, multiple: int, drop: bool
) -> None:
    constraints = Constraints(channel_multiple=multiple, drop_sublayers=drop)
    try:
        kept = allocate_width(shapes, random_scores(shapes, seed), ratio, constraints)
    except InvalidRequest:
        return
    total = sum(s.cost for s in shapes)
    step = max(max(s.group_cost for s in shapes), multiple * shapes[0].channel_cost)
    assert abs(achieved_ratio(shapes, kept) - ratio) <= step / 2 / total + 1e-9
    for shape, after in zip(shapes, kept.shapes(shapes), strict=True):
        assert after.channels == shape.channels or after.channels % multiple == 0
        assert drop or (after.key_value_groups >= 1 and after.channels >= 1)


@settings(max_examples=100, deadline=None)
@given(shapes=shapes_of_blocks, ratio=st.floats(0.0, 0.95), seed=st.integers(0, 9))
def test_depth_comes_within_half_the_largest_block(shapes: list[BlockShape], ratio: float, seed: int) -> None:
    scores = random_scores(shapes, seed)
    assert scores.blocks is not None
    try:
        kept = allocate_depth(shapes, scores.blocks, ratio)
    except InvalidRequest:
        return
    total = sum(s.cost for s in shapes)
    assert abs(achieved_ratio(shapes, kept) - ratio) <= max(s.cost for s in shapes) / 2 / total + 1e-9
    assert kept.blocks


def test_the_lowest_go_first() -> None:
    scores = torch.tensor([0.3, 0.1, 0.9, 0.2])
    assert allocate_depth([SHAPE] * 4, scores, 0.5).blocks == (0, 2)
    # Of two equal blocks the earlier goes, and 12.5 % of four blocks is one: nothing removed would be as near.
    assert allocate_depth([SHAPE] * 4, torch.ones(4), 0.125).blocks == (1, 2, 3)


def test_groups_and_channels_compete_in_one_ranking() -> None:
    groups = (torch.tensor([5.0, 1.0, 5.0, 5.0]),)
    channels = (torch.tensor([0.0, 2.0] + [9.0] * 22),)
    scores = ImportanceScores(key_value_groups=groups, channels=channels)
    ratio = (SHAPE.group_cost + SHAPE.channel_cost) / SHAPE.cost
    kept = allocate_width([SHAPE], scores, ratio)
    assert kept.key_value_groups == ((0, 2, 3),)
    assert kept.channels == (tuple(range(1, 24)),)


def test_protected_blocks_stay_whole() -> None:
    shapes = [SHAPE] * 5
    scores = random_scores(shapes, 0)
    constraints = Constraints(protect_first=1, protect_last=2)
    kept = allocate_width(shapes, scores, 0.2, constraints)
    after = kept.shapes(shapes)
    assert (after[0], after[3], after[4]) == (SHAPE, SHAPE, SHAPE)
    assert scores.blocks is not None
    assert {0, 3, 4} <= set(allocate_depth(shapes, scores.blocks, 0.2, constraints).blocks)
    with pytest.raises(InvalidRequest, match="nothing to prune"):
        allocate_width(shapes, scores, 0.2, Constraints(protect_first=3, protect_last=2))


def test_a_layer_may_lose_its_attention_on_purpose_only() -> None:
    scores = ImportanceScores(
        key_value_groups=(torch.zeros(4), torch.ones(4)), channels=(torch.ones(24), torch.ones(24))
    )
    ratio = 4 * SHAPE.group_cost / (2 * SHAPE.cost)
    assert len(allocate_width([SHAPE] * 2, scores, ratio).key_value_groups[0]) == 1
    dropped = allocate_width([SHAPE] * 2, scores, ratio, Constraints(drop_sublayers=True))
    assert dropped.key_value_groups == ((), (0, 1, 2, 3))


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan")])
def test_a_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(InvalidRequest, match="give a number of at least 0"):
        allocate_depth([SHAPE] * 2, torch.ones(2), ratio)


def test_a_ratio_out_of_reach_says_what_is_in_reach() -> None:
    scores = random_scores([SHAPE] * 2, 0)
    with pytest.raises(InvalidRequest, match=r"ratio 0.99 is out of reach.*request at most"):
        allocate_width([SHAPE] * 2, scores, 0.99)
    with pytest.raises(InvalidRequest, match=r"ratio 0.1 removes nothing: the smallest unit holds 0.5"):
        allocate_depth([SHAPE] * 2, torch.ones(2), 0.1)


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.4])
def test_uniform_widths_are_alike_and_on_budget(ratio: float) -> None:
    shapes = [SHAPE] * 3
    kept = allocate_uniform(shapes, random_scores(shapes, 1), ratio, [2, 4])
    after = kept.shapes(shapes)
    assert len(set(after)) == 1
    assert after[0].key_value_groups in (2, 4)
    assert abs(achieved_ratio(shapes, kept) - ratio) <= SHAPE.channel_cost / 2 / SHAPE.cost + 1e-9


def test_uniform_widths_contradict_what_differs() -> None:
    other = BlockShape(8, 2, 2, 2, 24)
    with pytest.raises(InvalidRequest, match="blocks differ"):
        allocate_uniform([SHAPE, other], random_scores([SHAPE, other], 0), 0.2, [4])
    with pytest.raises(InvalidRequest, match="protected"):
        allocate_uniform([SHAPE] * 2, random_scores([SHAPE] * 2, 0), 0.2, [4], Constraints(protect_first=1))


def test_standardise_by_hand_and_where_nothing_differs() -> None:
    assert standardise(torch.tensor([1.0, 2.0, 3.0])).tolist() == pytest.approx([-1, 0, 1])
    assert standardise(torch.full((5,), 0.1)).tolist() == [0] * 5
    assert standardise(torch.ones(1)).tolist() == [0]


def test_nothing_removed_keeps_everything() -> None:
    shapes = [SHAPE] * 2
    scores = random_scores(shapes, 0)
    assert allocate_width(shapes, scores, 0.0) == KeptUnits.everything(shapes)
    assert scores.blocks is not None
    assert allocate_depth(shapes, scores.blocks, 0.0) == KeptUnits.everything(shapes)


def test_units_compete_where_they_are_told_to() -> None:
    """Two blocks; attention costs 4 * 96 = 384 a block, the MLP 24 * 24 = 576. A quarter of each kind is one group, six
    channels; a quarter of a block is 240: three groups, and what they take too much is the other block's."""
    groups = (torch.tensor([1.0, 2, 3, 4]), torch.tensor([111.0, 112, 113, 114]))
    channels = (torch.arange(24) + 100.0, torch.arange(24) + 200.0)
    scores = ImportanceScores(key_value_groups=groups, channels=channels)

    def widths(competition: Competition, ratio: float = 0.25) -> list[tuple[int, int]]:
        kept = allocate_width([SHAPE] * 2, scores, ratio, Constraints(competition=competition))
        assert abs(achieved_ratio([SHAPE] * 2, kept) - ratio) <= SHAPE.group_cost / 2 / (2 * SHAPE.cost) + 1e-9
        return [(len(g), len(c)) for g, c in zip(kept.key_value_groups, kept.channels, strict=True)]

    assert widths("all") == [(1, 16), (4, 24)]
    assert widths("modules") == [(2, 12), (4, 24)]
    assert widths("blocks") == [(1, 24), (2, 24)]
    assert widths("blocks_and_modules") == [(3, 18), (3, 18)]
