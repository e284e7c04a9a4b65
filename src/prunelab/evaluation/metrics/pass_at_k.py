"""pass@k: the probability that at least one of k programs solves a problem."""

from __future__ import annotations

from math import comb

from prunelab.errors import InvalidRequest


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimate of pass@k from `n` programs for one problem, `c` of them correct.

    1 - C(n-c, k) / C(n, k), the share of the k-subsets of the n programs that contain a correct one (Chen et al. 2021,
    section 2.1), in exact integers with one rounding at the end. Average it over the problems.

    Raises:
        InvalidRequest: c is outside 0 to n, or k outside 1 to n.
    """
    if not 0 <= c <= n:
        raise InvalidRequest(f"{c} correct of {n} programs given: give a count of correct programs from 0 to {n}")
    if not 1 <= k <= n:
        raise InvalidRequest(f"pass@{k} cannot be estimated from {n} programs per problem: choose k from 1 to {n}")
    return (comb(n, k) - comb(n - c, k)) / comb(n, k)
