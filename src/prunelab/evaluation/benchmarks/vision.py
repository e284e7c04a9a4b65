"""What the vision benchmarks share: images as they lie in the data, answers, and a record of every sample."""

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

    Images that are missing, broken or enormous are named and counted in the conditions, and their questions are left
    out of the figures; greyscale and transparent ones are converted and counted.

    Attributes:
        new_tokens: tokens an answer at most.
    """

    is_multimodal: ClassVar[bool] = True
    version: ClassVar[int] = 2
    new_tokens: ClassVar[int] = 16

    @abstractmethod
    def questions(self, settings: EvaluationSettings) -> Sequence[Any]:
        """What is asked, each with an `id`, made to a question by `question`."""

    @abstractmethod
    def question(self, item: Any) -> PictureQuestion:
        """One of them as the model gets it."""

    @abstractmethod
    def record(self, item: Any, answer: str, settings: EvaluationSettings) -> dict[str, Any]:
        """What is kept of a sample."""

    @abstractmethod
    def scores(self, records: Sequence[Mapping[str, Any]]) -> list[Score]:
        """The figures, the primary one first."""

    def check(self, settings: EvaluationSettings) -> None:
        """The data must be there."""
        self.questions(settings)

    def check_model(self, model: LanguageModel, settings: EvaluationSettings) -> None:
        """The model must have been loaded with what it reads images with."""
        if model.processor is None:
            raise InvalidRequest(
                f"{model.name} was loaded without a processor for images, and {self.name} shows some: put "
                "processor_config.json and preprocessor_config.json beside the weights"
            )
        rotary = RotaryLengths([model.model])
        rotary.require_one_class(model.name, model.context_length, f"{self.name}'s questions share batches")
        try_processor(model.name, model.processor, model.model.config)

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Ask every question.

        Raises:
            DataError: not one image can be shown.
            NonFiniteValue: naming the question for which the model gives NaN or infinity.
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
        if progress is not None:  # questions that were left out are done as well
            progress(len(items), len(items))
        if not records:
            raise DataError(f"not one image of {self.name} can be shown: {report.conditions()['unusable images']}")
        conditions = {
            "chat_template": bool(getattr(model.processor, "chat_template", None)),
            "rows_a_batch": rows,
            "left_out": len(items) - len(records),
            **report.conditions(),
        }
        return Evaluation(self.scores(records), records, {**conditions, **self.conditions()})

    def conditions(self) -> dict[str, Any]:
        """What else makes the figures comparable or not."""
        return {}


def undecoded(source: Source, split: str, settings: EvaluationSettings, row: type[Row]) -> datasets.Dataset:
    """A split whose images are left as the bytes of their files.

    Raises:
        DataError: the split or a column is missing, or a row cannot be used.
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
    """Records by what they say under a key, in order of appearance."""
    for value in dict.fromkeys(record[key] for record in records):
        yield value, [record for record in records if record[key] == value]


def average(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error, which is 0 of a single value."""
    array = np.asarray(values, dtype=np.float64)
    error = array.std(ddof=1) / len(array) ** 0.5 if len(array) > 1 else 0.0
    return float(array.mean()), float(error)
