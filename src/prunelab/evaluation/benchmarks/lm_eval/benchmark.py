"""What every benchmark that lm-eval defines has in common."""

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
    """A benchmark whose prompts, targets and metrics are lm-eval's own.

    The definition is used as it is where its splits are there. Where the train split is missing, a copy of it does
    without, and draws its shots from the validation split with the scored item left out; the conditions say so. A
    prompt that is longer than the context loses tokens on the left, as in lm-eval, and is counted. One deviation: where
    the definition generates more tokens than the context holds, which lm-eval refuses, it generates half the context.

    Attributes:
        definition: lm-eval's YAML file, below its folder of tasks.
        row: what the documents are, checked before anything is computed.
        metrics: what is reported, the primary first.
        shots: examples in the prompt by default; None where the definition allows none.
        instructs: whether prompts are instructions, which belong in a chat template where there is one.
    """

    definition: ClassVar[str]
    row: ClassVar[type[Row]]
    metrics: ClassVar[tuple[Metric, ...]]
    instructs: ClassVar[bool] = False

    @cached_property
    def definitions(self) -> Mapping[str, Definition]:
        """Its tasks, under `category/task`, or under nothing where there is one."""
        return {"": Definition(self.definition, self.row, f"--benchmark {self.name}")}

    def sources(self) -> Sequence[Source]:
        """The definitions' data sets."""
        return [definition.source for definition in self.definitions.values()]

    def surroundings(self, settings: EvaluationSettings) -> AbstractContextManager[None]:
        """What must hold while definitions are read and answers are judged; by default nothing."""
        return nullcontext()

    def tasks(self, settings: EvaluationSettings) -> dict[str, PreparedTask]:
        """Its tasks with their data, loaded once in a process.

        Raises:
            DataError: a data set, a split or a column is missing, a split is empty, or a row cannot be used.
        """
        with self.surroundings(settings):
            return {group: prepare(one, settings.datasets_root) for group, one in self.definitions.items()}

    def shots_of(self, settings: EvaluationSettings) -> int:
        """Examples in the prompt."""
        if self.shots is None:
            return 0
        return self.shots if settings.shots is None else settings.shots

    def check(self, settings: EvaluationSettings) -> None:
        """The data must be there, with enough examples for the shots."""
        for task in self.tasks(settings).values():
            task.require_shots(self.shots_of(settings))

    def check_tokenizer(self, name: str, tokenizer: Any, settings: EvaluationSettings) -> None:
        """There must be a chat template where one is to be used, and it must render a message."""
        if settings.chat_template == "always" and not tokenizer.chat_template:
            raise InvalidRequest(
                f"{name}'s tokenizer has no chat template: give --chat-template auto or never, or a model that "
                "was tuned to follow instructions"
            )
        if self._templated(tokenizer, settings):
            check_template(name, tokenizer)

    def uses_chat_template(self, model: LanguageModel | ModelMetadata, settings: EvaluationSettings) -> bool:
        """Whether prompts go through the tokenizer's chat template."""
        return self._templated(model.tokenizer, settings)

    def _templated(self, tokenizer: Any, settings: EvaluationSettings) -> bool:
        if settings.chat_template == "auto":
            return self.instructs and bool(tokenizer.chat_template)
        return settings.chat_template == "always"

    def expected_tokens(self, model: ModelMetadata, settings: EvaluationSettings) -> int:
        """Counted on a sample of the documents; see `tokens_of_tasks`."""
        # Brings in lm-eval's evaluator.
        from prunelab.evaluation.benchmarks.lm_eval.cost import tokens_of_tasks

        tasks = list(self.tasks(settings).values())
        with self.surroundings(settings):
            return tokens_of_tasks(
                model, tasks, settings, self.shots_of(settings), self.uses_chat_template(model, settings)
            )

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """Data, definition, shots, and all that a figure depends on besides."""
        tasks = self.tasks(settings)
        # `auto` is the same as `never` where there are no instructions.
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
        """Documents are right or wrong, or, where parts of them are, resampled."""
        first = self.metrics[0]
        if first.kind == "share_of_parts":
            return resampled(dense, pruned, (first.name, "parts"), ratio)
        return super().compare(dense, pruned)

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Run it."""
        # Brings in the scorer and lm-eval's evaluator.
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
            own = results.samples[task.name]
            scores[group] = task_scores(self.metrics, results.figures[task.name], own, group)
            samples += records(own, results.tasks[task.name], self.metrics, group)
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
        """What the definition and the data decide."""
        return {
            "split": task.split,
            "shots_split": task.shots_split if shots else None,
            "shots_from_validation": shots > 0 and task.without_train,
            "definition": f"lm-eval {version('lm-eval')} {self.name} {task.version}",
            **({"max_new_tokens": task.new_tokens(context)} if task.generates else {}),
        }
