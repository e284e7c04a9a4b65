"""Base class of multiple-choice benchmarks: a subclass converts a row of its data into a question."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from prunelab.errors import DataError
from prunelab.evaluation.benchmarks.base import Benchmark, Evaluation, EvaluationSettings, Progress, Score
from prunelab.inference import ScoringRequest
from prunelab.inference.make_scorer import make_scorer
from prunelab.io.datasets import Source, read_lines
from prunelab.io.fingerprint import content_hash
from prunelab.io.structured import parse_json_object
from prunelab.stats.paired_tests import standard_error

if TYPE_CHECKING:
    from prunelab.models.loading import LanguageModel
    from prunelab.models.metadata import ModelMetadata


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        prompt: text before every choice, such as "Question: ...\\nAnswer:".
        choices: at least two; a space is inserted between prompt and choice unless either has whitespace there.
        answer: index of the correct choice, from 0.
    """

    prompt: str
    choices: Sequence[str]
    answer: int


@dataclass(frozen=True)
class JsonLines:
    """A local file with one JSON object per line.

    Attributes:
        path: absolute, or relative to `--datasets-root` if the file exists there, else to the working directory.
    """

    path: str

    def rows(self, split: str, root: Path | None) -> list[dict[str, Any]]:
        """The objects of the file; `split` is not used.

        Raises:
            DataError: the file is missing, or a line of it is not a JSON object.
        """
        path = root / self.path if root is not None and (root / self.path).is_file() else Path(self.path)
        rows: list[dict[str, Any]] = []
        for number, line in read_lines(path):
            rows.append(parse_json_object(line, source=f"{path}, line {number}", error=DataError))
        return rows


class MultipleChoice(Benchmark):
    """Zero-shot multiple choice: the model's answer is the choice with the highest log-likelihood after the prompt.

    `acc` uses the sum of a choice's log-probabilities, `acc_norm` divides it by the choice's length in characters, as
    in lm-eval. Prompts longer than the context are truncated on the left and counted.

    Attributes:
        source: a `JsonLines` file, or a data set on the hub (`prunelab.io.datasets.Source`).
        split: split of a data set on the hub.
    """

    source: ClassVar[Source | JsonLines]
    split: ClassVar[str] = "test"
    primary: ClassVar[str] = "acc"
    scores_likelihoods: ClassVar[bool] = True

    @abstractmethod
    def question(self, row: dict[str, Any]) -> Question:
        """The question of a row; raises KeyError, TypeError or ValueError if the row is malformed."""

    def sources(self) -> Sequence[Source]:
        """The data set if it is on the hub."""
        return [self.source] if isinstance(self.source, Source) else []

    def questions(self, settings: EvaluationSettings) -> list[Question]:
        """All questions, or the first `limit`.

        Raises:
            DataError: the data are missing or empty, or a row is malformed; the message gives the row and the reason.
        """
        rows = self._rows(settings.datasets_root)[: settings.limit]
        if not rows:
            raise DataError(f"{self.name} has 0 rows: give a file or a split with at least 1")
        return [self._checked(number, row) for number, row in enumerate(rows, start=1)]

    def _rows(self, root: Path | None) -> list[dict[str, Any]]:
        if isinstance(self.source, JsonLines):
            return self.source.rows(self.split, root)
        return list(self.source.load(self.split, root))

    def _checked(self, number: int, row: dict[str, Any]) -> Question:
        try:
            question = self.question(row)
            if len(question.choices) < 2 or not all(question.choices):
                raise ValueError("fewer than two choices, or an empty one")
            if not 0 <= question.answer < len(question.choices):
                raise ValueError(f"the answer is choice {question.answer} of {len(question.choices)}, counted from 0")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            reason = f"field {error} is missing" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{self.name}, row {number}: {reason}; correct the row or leave it out") from None
        return question

    def check(self, settings: EvaluationSettings) -> None:
        """Check that every row gives a question."""
        self.questions(settings)

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """Hash of the questions, the limit and the batch."""
        asked = [[q.prompt, list(q.choices), q.answer] for q in self.questions(settings)]
        return {
            "data": content_hash({"questions": asked}),
            "limit": settings.limit,
            "tokens_a_batch": settings.tokens_a_batch,
        }

    def expected_tokens(self, model: ModelMetadata, settings: EvaluationSettings) -> int:
        """Tokens of all prompts, each once, and of all choices."""
        requests = _requests(self.name, model.tokenizer, self.questions(settings))
        prompts = {tuple(request.context) for request in requests}
        return sum(map(len, prompts)) + sum(len(request.continuation) for request in requests)

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Score every choice of every question."""
        questions = self.questions(settings)
        scorer = make_scorer(model, max_length=model.context_length, batch_tokens=settings.tokens_a_batch)
        scores = iter(scorer.score(_requests(self.name, model.tokenizer, questions), progress))
        records = []
        for index, question in enumerate(questions):
            sums = [next(scores).log_probability for _ in question.choices]
            means = [total / len(c) for total, c in zip(sums, question.choices, strict=True)]
            prediction = sums.index(max(sums))
            records.append(
                {
                    "sample": str(index), "scores": sums, "prediction": prediction, "target": question.answer,
                    "acc": prediction == question.answer, "acc_norm": means.index(max(means)) == question.answer,
                    "correct": prediction == question.answer,
                }
            )  # fmt: skip
        chance = fmean(1 / len(question.choices) for question in questions)
        conditions = {
            "shots": 0,
            "chance": chance,
            "chat_template": False,
            "truncated": scorer.statistics.truncated,
            "tokens_a_batch": scorer.batch_tokens,
        }
        return Evaluation([_share(records, name) for name in ("acc", "acc_norm")], records, conditions)


def _share(records: Sequence[Mapping[str, Any]], metric: str) -> Score:
    values = [float(record[metric]) for record in records]
    return Score(metric, fmean(values), len(values), standard_error(values))


def _requests(name: str, tokenizer: Any, questions: Sequence[Question]) -> list[ScoringRequest]:
    """One request per choice, in the order of the questions."""
    # Imported here because it imports lm-eval.
    from prunelab.inference.tokenization import Encoder

    pairs, names = [], []
    for index, question in enumerate(questions):
        for choice in question.choices:
            space = "" if choice[:1].isspace() or question.prompt[-1:].isspace() or not question.prompt else " "
            pairs.append((question.prompt, space + choice))
            names.append(f"{name}, question {index}")
    encoded = Encoder(tokenizer).encode_pairs(pairs)
    return [
        ScoringRequest(context, continuation, document)
        for (context, continuation), document in zip(encoded, names, strict=True)
    ]
