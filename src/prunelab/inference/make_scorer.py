"""The scorer of a language model: its own, or the one that scores it together with its siblings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import xxhash

from prunelab.errors import NonFiniteValue
from prunelab.inference.loglikelihood import LogLikelihood, Scorer, SharedPrefixScorer
from prunelab.inference.runner import Progress, ScoringStatistics

if TYPE_CHECKING:
    from prunelab.inference.prefix_tree import ScoringRequest
    from prunelab.inference.shared_blocks import SharedPrefixModels
    from prunelab.inference.shared_scoring import SharedEvaluation
    from prunelab.models.loading import LanguageModel

_Answer = tuple[list[LogLikelihood], ScoringStatistics, int | None, int | None]
"""Scores, what was counted on the way to them, the tokens a batch, and what they were shrunk from."""


def make_scorer(model: LanguageModel, *, max_length: int, batch_tokens: int | None = None) -> Scorer:
    """What scores a model; see `Scorer`."""
    if model.shared is None:
        return Scorer(model.model, max_length=max_length, batch_tokens=batch_tokens)
    return SharedScorer(model.model, model.shared, max_length=max_length, batch_tokens=batch_tokens)


class SharedScorer(Scorer):
    """Scores for one model what is scored for all its siblings in the same pass."""

    def __init__(
        self, model: Any, shared: SharedEvaluation, *, max_length: int, batch_tokens: int | None = None
    ) -> None:
        super().__init__(model, max_length=max_length, batch_tokens=batch_tokens)
        self._model = model
        self._siblings = shared

    def score(self, requests: Sequence[ScoringRequest], progress: Progress | None = None) -> list[LogLikelihood]:
        """As `Scorer.score`; where a sibling was asked the same before, its pass has found the answer."""
        batch_tokens = self.batch_tokens

        def compute(together: SharedPrefixModels) -> list[_Answer | NonFiniteValue]:
            scorer = SharedPrefixScorer(together, max_length=self.max_length, batch_tokens=batch_tokens)
            found = scorer.score_each(requests, progress)
            return [
                one
                if isinstance(one, NonFiniteValue)
                else (one, scorer.statistics, scorer.batch_tokens, scorer.shrunk_from)
                for one in found
            ]

        question = ("score", self.max_length, batch_tokens, _hash(requests))
        scores, counted, self.batch_tokens, shrunk = self._siblings.answer(self._model, question, compute)
        self.shrunk_from = self.shrunk_from or shrunk
        for name, count in vars(counted).items():
            setattr(self.statistics, name, getattr(self.statistics, name) + count)
        if progress is not None:
            progress(len(requests), len(requests))
        return scores


def _hash(requests: Sequence[ScoringRequest]) -> str:
    """Of the tokens of all requests, in order."""
    digest = xxhash.xxh3_128()
    for request in requests:
        digest.update(repr((list(request.context), list(request.continuation))).encode())
    return str(digest.hexdigest())
