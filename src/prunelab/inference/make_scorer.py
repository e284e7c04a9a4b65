"""The scorer of a language model, or the shared scorer of the models that are evaluated in one pass."""

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
"""Scores, statistics, tokens per batch, and the tokens per batch with enough memory."""


def make_scorer(model: LanguageModel, *, max_length: int, batch_tokens: int | None = None) -> Scorer:
    """The scorer of a model; see `Scorer`."""
    if model.shared is None:
        return Scorer(model.model, max_length=max_length, batch_tokens=batch_tokens)
    return SharedScorer(model.model, model.shared, max_length=max_length, batch_tokens=batch_tokens)


class SharedScorer(Scorer):
    """Scores one model with a pass that scores all models of its shared evaluation."""

    def __init__(
        self, model: Any, shared: SharedEvaluation, *, max_length: int, batch_tokens: int | None = None
    ) -> None:
        super().__init__(model, max_length=max_length, batch_tokens=batch_tokens)
        self._model = model
        self._siblings = shared

    def score(self, requests: Sequence[ScoringRequest], progress: Progress | None = None) -> list[LogLikelihood]:
        """As `Scorer.score`; the first model's pass answers the same requests for all models."""
        batch_tokens = self.batch_tokens

        def compute(together: SharedPrefixModels) -> list[_Answer | NonFiniteValue]:
            scorer = SharedPrefixScorer(together, max_length=self.max_length, batch_tokens=batch_tokens)
            results = scorer.score_each(requests, progress)
            return [
                result
                if isinstance(result, NonFiniteValue)
                else (result, scorer.statistics, scorer.batch_tokens, scorer.shrunk_from)
                for result in results
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
    """Hash of the tokens of all requests, in order."""
    digest = xxhash.xxh3_128()
    for request in requests:
        digest.update(repr((list(request.context), list(request.continuation))).encode())
    return str(digest.hexdigest())
