"""Base class and helpers of vision benchmarks: undecoded images, answers, and a record per sample."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import xxhash

from prunelab.errors import DataError, InvalidRequest
from prunelab.evaluation.benchmarks.base import Benchmark, Evaluation, EvaluationSettings, Progress, Score
from prunelab.inference.vision_answers import ROWS, ImageReport, PictureQuestion, answers
from prunelab.io.data_rows import Row, require_rows
from prunelab.io.fingerprint import content_hash
from prunelab.io.lazy import datasets, np
from prunelab.models.processor_validation import try_processor
from prunelab.models.rotary import RotaryLengths

if TYPE_CHECKING:
    from prunelab.io.datasets import Source
    from prunelab.models.loading import LanguageModel


class VisionBenchmark(Benchmark):
    """Questions about images, answered in a few words by greedy decoding.

    Missing, broken or oversized images are named and counted in the conditions, and their questions are left out;
    greyscale and transparent images are converted and counted.

    Attributes:
        new_tokens: maximum number of tokens per answer.
    """

    is_multimodal: ClassVar[bool] = True
    version: ClassVar[int] = 2
    new_tokens: ClassVar[int] = 16

    @abstractmethod
    def questions(self, settings: EvaluationSettings) -> Sequence[Any]:
        """The items, each with an `id`; `question` converts one into a prompt with images."""

    @abstractmethod
    def question(self, item: Any) -> PictureQuestion:
        """The prompt and images of an item."""

    @abstractmethod
    def record(self, item: Any, answer: str, settings: EvaluationSettings) -> dict[str, Any]:
        """The sample record of an item."""

    @abstractmethod
    def scores(self, records: Sequence[Mapping[str, Any]]) -> list[Score]:
        """The metric values, the primary metric first."""

    def check(self, settings: EvaluationSettings) -> None:
        """Check that the data exist."""
        self.questions(settings)

    def check_model(self, model: LanguageModel, settings: EvaluationSettings) -> None:
        """Check that the model has a working image processor."""
        if model.processor is None:
            raise InvalidRequest(
                f"{model.name} was loaded without an image processor, which {self.name} needs: put "
                "processor_config.json and preprocessor_config.json next to the weights"
            )
        rotary = RotaryLengths([model.model])
        rotary.require_one_class(model.name, model.context_length, f"{self.name}'s questions share batches")
        try_processor(model.name, model.processor, model.model.config)

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Answer every question.

        Raises:
            DataError: no image is usable.
            NonFiniteValue: the model's logits are NaN or infinite; the message names the question.
        """
        self.check_model(model, settings)
        items = {item.id: item for item in self.questions(settings)}
        rows = ROWS if settings.tokens_a_batch is None else max(1, settings.tokens_a_batch // model.context_length)
        report = ImageReport()
        asked = (self.question(item) for item in items.values())
        records = []
        for question, answer in answers(model, asked, report, max_new_tokens=self.new_tokens, rows=rows):
            records.append(self.record(items[question.id], answer, settings))
            if progress is not None:
                progress(len(records), len(items))
        if progress is not None:  # questions that are left out count as done
            progress(len(items), len(items))
        if not records:
            raise DataError(f"no image of {self.name} is usable: {report.conditions()['unusable images']}")
        conditions = {
            "chat_template": bool(getattr(model.processor, "chat_template", None)),
            "rows_a_batch": rows,
            "left_out": len(items) - len(records),
            **report.conditions(),
        }
        return Evaluation(self.scores(records), records, {**conditions, **self.conditions()})

    def conditions(self) -> dict[str, Any]:
        """Further conditions."""
        return {}


def undecoded(source: Source, split: str, settings: EvaluationSettings, row: type[Row]) -> datasets.Dataset:
    """A split whose images are kept as file bytes.

    Raises:
        DataError: the split or a column is missing, or a row is malformed.
    """
    documents = source.load(split, settings.datasets_root)
    require_rows(source, split, documents, row)
    for name, feature in documents.features.items():
        if isinstance(feature, datasets.Image):
            documents = documents.cast_column(name, datasets.Image(decode=False))
    return documents if settings.limit is None else documents.select(range(min(settings.limit, len(documents))))


def images_hash(documents: datasets.Dataset) -> str:
    """Hash of a split, row by row, images included; 16 hexadecimal digits."""
    digest = xxhash.xxh3_64()
    for row in documents:
        for name, value in sorted(row.items()):
            if isinstance(value, dict) and set(value) == {"bytes", "path"}:
                digest.update(value["bytes"] or str(value["path"]).encode())
            else:
                digest.update(content_hash({name: value}).encode())
    return str(digest.hexdigest())


def grouped(records: Sequence[Mapping[str, Any]], key: str) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Records grouped by the value of a key, in order of appearance."""
    for value in dict.fromkeys(record[key] for record in records):
        yield value, [record for record in records if record[key] == value]


def average(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error, which is 0 for a single value."""
    array = np.asarray(values, dtype=np.float64)
    error = array.std(ddof=1) / len(array) ** 0.5 if len(array) > 1 else 0.0
    return float(array.mean()), float(error)
