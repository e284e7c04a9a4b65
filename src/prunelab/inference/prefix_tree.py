"""Requests as one prefix tree, in which shared prefixes are computed once.

A request is a context and a continuation. The model reads all their tokens but the last (its *input*) and is scored on
the continuation. The distinct inputs, sorted, are the leaves of a prefix tree: neighbours share the longest prefixes,
and the nodes of the tree are the *distinct tokens*, the minimum that any scorer must compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from prunelab.errors import DataError
from prunelab.io.lazy import np

if TYPE_CHECKING:
    import numpy.typing as npt

IntArray: TypeAlias = "npt.NDArray[np.int64]"
TokenArray: TypeAlias = "npt.NDArray[np.uint32]"


@dataclass(frozen=True)
class ScoringRequest:
    """One continuation to score given its context.

    Attributes:
        context: token ids before the continuation; at least one.
        continuation: token ids to score; at least one.
        name: the sample's name in errors, e.g. "arc_challenge, document 17, choice 2".
    """

    context: Sequence[int]
    continuation: Sequence[int]
    name: str = "unnamed request"


class Answer(NamedTuple):
    """The scored tokens of a request: `input[first + 1:]`, then `last`."""

    request: int
    first: int
    last: int


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """The distinct inputs of many requests.

    Attributes:
        sequences: the distinct inputs in lexicographic order.
        shared: (inputs,), length of the prefix that each input shares with the previous one; 0 for the first.
        first_scored: (inputs,), the lowest index whose prediction a request needs.
        answers: for each input, the scored tokens of its requests.
        truncated: number of requests longer than the context, which were truncated on the left.
    """

    sequences: list[TokenArray]
    shared: IntArray
    first_scored: IntArray
    answers: list[list[Answer]]
    truncated: int = 0

    @cached_property
    def lengths(self) -> IntArray:
        """(inputs,), the number of tokens of each input."""
        return np.array([len(sequence) for sequence in self.sequences], dtype=np.int64)

    @cached_property
    def _length_sums(self) -> IntArray:
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @cached_property
    def _shared_sums(self) -> IntArray:
        return np.concatenate([[0], np.cumsum(self.shared)])

    @property
    def distinct_tokens(self) -> int:
        """Number of nodes of the tree, the lower bound of `computed_tokens`."""
        return int(self.lengths.sum() - self.shared.sum())

    def tokens_below(self, starts: IntArray, stops: IntArray, depth: int) -> IntArray:
        """Distinct tokens deeper than `depth` in each range of inputs that share their first `depth` tokens."""
        lengths = self._length_sums[stops] - self._length_sums[starts]
        shared = self._shared_sums[stops] - self._shared_sums[starts + 1]
        return np.asarray(lengths - shared - depth, dtype=np.int64)


def build_tree(requests: Sequence[ScoringRequest], max_length: int) -> PrefixTree:
    """Sort the requests' inputs into a tree, each truncated on the left to `max_length` tokens as lm-eval does.

    Raises:
        DataError: a request has no context, no continuation, or a continuation longer than `max_length`.
    """
    inputs: dict[bytes, list[Answer]] = {}
    truncated = 0
    for index, request in enumerate(requests):
        scored = len(request.continuation)
        if not request.context or not scored or scored > max_length:
            raise DataError(
                f"{request.name}: {len(request.context)} tokens of context and {scored} to score; both must be at "
                f"least 1, the second at most {max_length}: shorten the sample or raise max_length"
            )
        tokens = [*request.context, *request.continuation]
        if len(tokens) > max_length + 1:
            truncated += 1
            tokens = tokens[-(max_length + 1) :]
        # Big-endian bytes sort like the token lists and hash faster than tuples.
        key = np.asarray(tokens[:-1], dtype=">u4").tobytes()
        inputs.setdefault(key, []).append(Answer(index, len(tokens) - 1 - scored, tokens[-1]))
    keys = sorted(inputs)
    answers = [inputs[key] for key in keys]
    sequences = [np.frombuffer(key, dtype=">u4").astype(np.uint32) for key in keys]
    shared = [0] * min(1, len(sequences))
    shared += [_common(left, right) for left, right in pairwise(sequences)]
    return PrefixTree(
        sequences=sequences,
        shared=np.array(shared, dtype=np.int64),
        first_scored=np.array([min(answer.first for answer in answers_) for answers_ in answers], dtype=np.int64),
        answers=answers,
        truncated=truncated,
    )


def _common(left: TokenArray, right: TokenArray) -> int:
    """Length of the longest common prefix of two distinct sequences."""
    length = min(len(left), len(right))
    differ = left[:length] != right[:length]
    first = int(differ.argmax()) if length else 0
    return first if length and differ[first] else length
