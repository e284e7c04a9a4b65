"""pass@k against hand-computed values and against its definition."""

from __future__ import annotations

from itertools import combinations
from math import comb, prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunelab.errors import InvalidRequest
from prunelab.evaluation.metrics.pass_at_k import pass_at_k


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (5, 0, 1, 0.0),
        (5, 2, 1, 2 / 5),
        (5, 5, 1, 1.0),
        (5, 2, 2, 7 / 10),  # 10 pairs, 3 of them without a correct one
        (5, 1, 5, 1.0),
        (5, 3, 3, 1.0),  # two wrong ones cannot fill three places
    ],
)
def test_values_by_hand(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected, rel=1e-15)


@st.composite
def counts(draw: st.DrawFn, most: int) -> tuple[int, int, int]:
    n = draw(st.integers(1, most))
    return n, draw(st.integers(0, n)), draw(st.integers(1, n))


@given(counts(most=400))
def test_the_binomial_formula(case: tuple[int, int, int]) -> None:
    n, c, k = case
    assert pass_at_k(n, c, k) == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-12)


@given(counts(most=200))
def test_the_product_of_the_reference_implementation(case: tuple[int, int, int]) -> None:
    """human-eval computes 1 - prod(1 - k / i for i from n-c+1 to n), or 1 where fewer than k are wrong."""
    n, c, k = case
    expected = 1.0 if n - c < k else 1 - prod(1 - k / i for i in range(n - c + 1, n + 1))
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-12)


@given(counts(most=8))
def test_it_is_the_share_of_subsets_that_hold_a_correct_program(case: tuple[int, int, int]) -> None:
    n, c, k = case
    subsets = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == sum(map(any, subsets)) / len(subsets)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 0, 6), (5, 0, 0), (5, 6, 1), (5, -1, 1), (0, 0, 1), (-1, 0, 1)])
def test_counts_that_make_no_sense_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(InvalidRequest, match=r"choose k|give a count"):
        pass_at_k(n, c, k)
