"""Models pruned from one dense model and scored on the same texts: the first request computes all their answers."""

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
    """The models, and the computed answers that have not been requested yet.

    A benchmark evaluates the models one after the other with the same questions, so the first model's pass computes the
    answers of all. An answer is kept until its model requests it.

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
            question: identifies the question.
            compute: computes every model's answer, or the error to raise for it.

        Raises:
            PrunelabError: the error that `compute` returned for the model.
        """
        position = next(i for i, candidate in enumerate(self.together.models) if candidate is model)
        if (position, question) not in self._waiting:
            start = time.perf_counter()
            answers = compute(self.together)
            share = (time.perf_counter() - start) / len(answers)
            for index, answer in enumerate(answers):
                self._waiting[index, question] = answer
                self._seconds[index] += share if index != position else share - share * len(answers)
        answer_ = self._waiting.pop((position, question))
        if isinstance(answer_, PrunelabError):
            raise answer_
        return cast(Answer, answer_)

    def attributed_seconds(self, model: PreTrainedModel) -> float:
        """Correction of a benchmark's time for a model: its share of others' passes minus their shares of its own."""
        position = next(i for i, candidate in enumerate(self.together.models) if candidate is model)
        seconds, self._seconds[position] = self._seconds[position], 0.0
        return seconds
