"""Base class of the benchmarks that lm-eval defines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

from prunelab.errors import InvalidRequest
from prunelab.evaluation.benchmarks.base import Benchmark, Evaluation, EvaluationSettings, Progress, Score, resampled
from prunelab.evaluation.benchmarks.lm_eval.definition import Definition, PreparedTask, prepare
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric, Record, chance_of, records, task_scores, with_groups
from prunelab.inference.batch_memory import batch_conditions
from prunelab.io.fingerprint import content_hash
from prunelab.models.chat_templates import check_template
from prunelab.stats.paired_tests import Comparison, ratio

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.io.data_rows import Row
    from prunelab.io.datasets import Source
    from prunelab.models.loading import LanguageModel
    from prunelab.models.metadata import ModelMetadata


class LmEvalBenchmark(Benchmark):
    """A benchmark whose prompts, targets and metrics are lm-eval's.

    The definition is used unchanged if its splits exist. If the train split is missing, a copy of the definition draws
    its shots from the validation split without the scored item, and the conditions record this. Prompts longer than the
    context are truncated on the left, as in lm-eval, and counted. Deviation: if the definition generates more tokens
    than the context holds, which is an error in lm-eval, half the context is generated.

    Attributes:
        definition: lm-eval's YAML file, relative to its tasks folder.
        row: schema of the documents, checked before any computation.
        metrics: reported metrics, the primary one first.
        shots: default number of examples in the prompt; None if the definition allows none.
        instructs: whether prompts are instructions, which use a chat template if there is one.
    """

    definition: ClassVar[str]
    row: ClassVar[type[Row]]
    metrics: ClassVar[tuple[Metric, ...]]
    instructs: ClassVar[bool] = False

    @cached_property
    def definitions(self) -> Mapping[str, Definition]:
        """The tasks by `category/task`; a single task has an empty key."""
        return {"": Definition(self.definition, self.row, f"--benchmark {self.name}")}

    def sources(self) -> Sequence[Source]:
        """The definitions' data sets."""
        return [definition.source for definition in self.definitions.values()]

    def surroundings(self, settings: EvaluationSettings) -> AbstractContextManager[None]:
        """A context for reading definitions and judging answers; by default a null context."""
        return nullcontext()

    def tasks(self, settings: EvaluationSettings) -> dict[str, PreparedTask]:
        """The tasks with their data, loaded once per process.

        Raises:
            DataError: a data set, a split or a column is missing, a split is empty, or a row is malformed.
        """
        with self.surroundings(settings):
            return {
                group: prepare(definition, settings.datasets_root) for group, definition in self.definitions.items()
            }

    def shots_of(self, settings: EvaluationSettings) -> int:
        """Number of examples in the prompt."""
        if self.shots is None:
            return 0
        return self.shots if settings.shots is None else settings.shots

    def check(self, settings: EvaluationSettings) -> None:
        """Check that the data exist, with enough examples for the shots."""
        for task in self.tasks(settings).values():
            task.require_shots(self.shots_of(settings))

    def check_tokenizer(self, name: str, tokenizer: Any, settings: EvaluationSettings) -> None:
        """Check that a required chat template exists and renders a message."""
        if settings.chat_template == "always" and not tokenizer.chat_template:
            raise InvalidRequest(
                f"{name}'s tokenizer has no chat template: give --chat-template auto or never, or an instruction-tuned "
                "model"
            )
        if self._templated(tokenizer, settings):
            check_template(name, tokenizer)

    def uses_chat_template(self, model: LanguageModel | ModelMetadata, settings: EvaluationSettings) -> bool:
        """Whether prompts use the tokenizer's chat template."""
        return self._templated(model.tokenizer, settings)

    def _templated(self, tokenizer: Any, settings: EvaluationSettings) -> bool:
        if settings.chat_template == "auto":
            return self.instructs and bool(tokenizer.chat_template)
        return settings.chat_template == "always"

    def expected_tokens(self, model: ModelMetadata, settings: EvaluationSettings) -> int:
        """Estimated from a sample of the documents; see `tokens_of_tasks`."""
        # Imported here because it imports lm-eval.
        from prunelab.evaluation.benchmarks.lm_eval.cost import tokens_of_tasks

        tasks = list(self.tasks(settings).values())
        with self.surroundings(settings):
            return tokens_of_tasks(
                model, tasks, settings, self.shots_of(settings), self.uses_chat_template(model, settings)
            )

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """Data, definition, shots, and everything else that determines the values."""
        tasks = self.tasks(settings)
        # Without instructions `auto` equals `never`.
        chat = settings.chat_template if self.instructs else settings.chat_template == "always"
        return {
            "data": content_hash({group: task.fingerprint for group, task in tasks.items()}),
            "definition": [version("lm-eval"), *sorted({task.version for task in tasks.values()})],
            "limit": settings.limit,
            "shots": self.shots_of(settings),
            "chat_template": chat,
            "seed": settings.seed,
            "tokens_a_batch": settings.tokens_a_batch,
        }

    def compare(self, dense: pd.DataFrame, pruned: pd.DataFrame) -> Comparison | None:
        """McNemar's test over documents, or a paired bootstrap if parts of documents are judged."""
        first = self.metrics[0]
        if first.kind == "share_of_parts":
            return resampled(dense, pruned, (first.name, "parts"), ratio)
        return super().compare(dense, pruned)

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Run the benchmark."""
        # Imported here because it imports lm-eval.
        from prunelab.evaluation.benchmarks.lm_eval.run import run_tasks

        self.check(settings)
        self.check_model(model, settings)
        tasks = self.tasks(settings)
        shots, chat = self.shots_of(settings), self.uses_chat_template(model, settings)
        with self.surroundings(settings):
            results = run_tasks(
                model, list(tasks.values()), settings, shots=shots, chat_template=chat, progress=progress
            )
        scores: dict[str, list[Score]] = {}
        samples: list[Record] = []
        for group, task in tasks.items():
            task_samples = results.samples[task.name]
            scores[group] = task_scores(self.metrics, results.figures[task.name], task_samples, group)
            samples += records(task_samples, results.tasks[task.name], self.metrics, group)
        conditions = {
            "shots": shots,
            **self._conditions(next(iter(tasks.values())), shots, model.context_length),
            "chat_template": chat,
            "truncated": results.truncated,
            **batch_conditions(results.tokens_a_batch, results.shrunk_from),
        }
        if samples and "scores" in samples[0]:
            conditions["chance"] = chance_of(samples)
        return Evaluation(with_groups(scores) if len(scores) > 1 else scores[""], samples, conditions)

    def _conditions(self, task: PreparedTask, shots: int, context: int) -> dict[str, Any]:
        """Conditions that follow from the definition and the data."""
        return {
            "split": task.split,
            "shots_split": task.shots_split if shots else None,
            "shots_from_validation": shots > 0 and task.without_train,
            "definition": f"lm-eval {version('lm-eval')} {self.name} {task.version}",
            **({"max_new_tokens": task.new_tokens(context)} if task.generates else {}),
        }
