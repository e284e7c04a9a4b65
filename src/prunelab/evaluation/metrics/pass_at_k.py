"""pass@k: how likely it is that one of k programs solves a problem."""

from __future__ import annotations

from math import comb

from prunelab.errors import InvalidRequest


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of pass@k from `n` programs for one problem, `c` of them correct.

    1 - C(n-c, k) / C(n, k): the share of the k-subsets of the n programs that hold a correct one (Chen et al.
    2021, section 2.1). Exact integers throughout, one rounding at the end. Average it over the problems.
    Raises `InvalidRequest` unless 0 <= c <= n and 1 <= k <= n: fewer than k programs say nothing about
    pass@k.
    """
    if not 0 <= c <= n:
        raise InvalidRequest(f"{c} of {n} programs cannot be correct: give a count from 0 to the number of programs")
    if not 1 <= k <= n:
        raise InvalidRequest(f"pass@{k} cannot be estimated from {n} programs a problem: choose k from 1 to {n}")
    return (comb(n, k) - comb(n - c, k)) / comb(n, k)
