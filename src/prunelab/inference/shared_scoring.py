"""Models cut out of one whose likelihoods are wanted for the same texts: who asks first has all of them computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from prunelab.errors import PrunelabError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunelab.inference.shared_blocks import SharedPrefixModels

Answer = TypeVar("Answer")


class SharedEvaluation:
    """The models, and the answers that one's pass has found for the others.

    A benchmark asks one model after the other and knows nothing of the rest; it asks each the same questions, so the
    first one's pass answers for all. An answer is kept until its model has asked for it.

    Attributes:
        together: the models.
    """

    def __init__(self, models: Sequence[PreTrainedModel]) -> None:
        from prunelab.inference.shared_blocks import SharedPrefixModels

        self.together = SharedPrefixModels(models)
        self._waiting: dict[tuple[int, Hashable], object] = {}
        self._seconds = [0.0] * len(models)

    def answer(
        self,
        model: PreTrainedModel,
        question: Hashable,
        compute: Callable[[SharedPrefixModels], Sequence[Answer | PrunelabError]],
    ) -> Answer:
        """A model's answer to a question.

        Args:
            model: one of the models.
            question: tells it from all other questions.
            compute: finds every model's answer, or the error that the model is to have in its place.
        """
        own = next(i for i, one in enumerate(self.together.models) if one is model)
        if (own, question) not in self._waiting:
            start = time.perf_counter()
            answers = compute(self.together)
            share = (time.perf_counter() - start) / len(answers)
            for index, answer in enumerate(answers):
                self._waiting[index, question] = answer
                self._seconds[index] += share if index != own else share - share * len(answers)
        found = self._waiting.pop((own, question))
        if isinstance(found, PrunelabError):
            raise found
        return cast(Answer, found)

    def attributed_seconds(self, model: PreTrainedModel) -> float:
        """What to add to the time that a benchmark took for a model: its share of others' passes, less their of its."""
        own = next(i for i, one in enumerate(self.together.models) if one is model)
        seconds, self._seconds[own] = self._seconds[own], 0.0
        return seconds
