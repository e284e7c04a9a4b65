"""HumanEval (Chen et al. 2021): programs written from their descriptions, and run against tests."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationInfo, field_validator

from prunelab.errors import InvalidRequest, MissingRequirement
from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.base import Benchmark, Evaluation, EvaluationSettings, Progress, Score
from prunelab.evaluation.benchmarks.generation import generated
from prunelab.evaluation.metrics.pass_at_k import pass_at_k
from prunelab.evaluation.metrics.repetition import repeats_itself
from prunelab.evaluation.sandbox import Exercise, ProgramVerdict, Sandbox
from prunelab.inference import Completion, Prompt, SamplingSettings
from prunelab.inference.batch_memory import batch_conditions
from prunelab.io.data_rows import Row, Words, require_rows
from prunelab.io.datasets import Source, documents_hash
from prunelab.stats.paired_tests import Comparison, mean, paired_bootstrap, standard_error

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.models.loading import LanguageModel
    from prunelab.models.metadata import ModelMetadata

HUMANEVAL = Source("openai/openai_humaneval", "openai_humaneval", wanted_by="--benchmark humaneval")

STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
"""What ends a function: the strings of the paper's section 2.1."""

NEW_TOKENS = 512
RUN_AT_ONCE = 64
"""Programs between two reports of progress."""

Record = Mapping[str, Any]


class HumanEvalRow(Row):
    """A problem: the function's head and description, its name, and a test that defines `check`."""

    unique: ClassVar[tuple[str, ...]] = ("task_id",)

    task_id: Words
    entry_point: str
    prompt: Words
    test: Words
    canonical_solution: str | None = None

    @field_validator("entry_point")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError("the name of a function is needed")
        return name

    @field_validator("prompt")
    @classmethod
    def _begins_the_function(cls, prompt: str, info: ValidationInfo) -> str:
        name = info.data.get("entry_point", "")
        if re.search(rf"\bdef\s+{re.escape(name)}\b", prompt) is None:
            raise ValueError(f"the head of the function {name} is needed")
        return prompt

    @field_validator("test")
    @classmethod
    def _defines_check(cls, test: str) -> str:
        if re.search(r"\bdef\s+check\b", test) is None:
            raise ValueError("a test that defines the function check is needed")
        return test


@register
class HumanEval(Benchmark):
    """The head of a function and its description are given; what the model writes below is run against tests.

    `pass@1`, the primary figure, and `pass@5`, where there are as many completions, are the unbiased estimates from
    the completions of each problem (five by default, temperature 0.8, top_p 1: the whole distribution). Beside them
    stand the shares of completions that do not compile (`syntax_error`; one that was cut off often does not), that run
    out of time (`timed_out`), and that end in a loop (`repeats`, see `repeats_itself`). All are averaged over problems,
    and so are standard errors.

    A completion ends at one of `STOPS`, at an end-of-text token, or after 512 tokens or half the context, whichever is
    less. Longer prompts lose tokens on the left, as in lm-eval, and are counted; the program that is run has its whole
    prompt all the same. Prompts are text as it stands, never in a chat template. Every completion has a seed of its
    own, and in float32 does not depend on its batch.

    Programs run in a sandbox (`prunelab.evaluation.sandbox`), and only where that was allowed. Generating and running
    are separate: with a workspace, completions are kept before the first of them runs, and `execute` runs stored
    records again. Deviations from the reference harness: the sandbox bounds processor time (5 s) where that bounds wall
    time (3 s), and tampered programs do not pass.
    """

    name = "humaneval"
    version: ClassVar[int] = 2
    title: ClassVar[str] = "HumanEval: generated programs run against unit tests in a sandbox"
    primary: ClassVar[str] = "pass@1"

    @cached_property
    def cage(self) -> Sandbox:
        """Where programs run; it is probed once in a process."""
        return Sandbox()

    def sources(self) -> Sequence[Source]:
        """The problems."""
        return [HUMANEVAL]

    def check(self, settings: EvaluationSettings) -> None:
        """Programs must be allowed to run, in a cage that holds; and the problems must be there.

        Raises:
            MissingRequirement: no permission, or no cage on this machine.
        """
        if not settings.allow_code_execution:
            raise MissingRequirement(
                "humaneval runs programs that the model writes: --allow-code-execution runs generated programs in a "
                "cage (no network, no processes, no files of yours, bounded time and memory), or leave humaneval out"
            )
        if settings.completions < 1:
            raise InvalidRequest(f"{settings.completions} completions a problem are not possible: give at least 1")
        _sampling(settings, NEW_TOKENS)
        self.cage.check()
        _problems(settings)

    def expected_tokens(self, model: ModelMetadata, settings: EvaluationSettings) -> int:
        """Every prompt's tokens, and as many for a completion as the problem's own solution has."""
        problems = _problems(settings)
        most = min(NEW_TOKENS, model.context_length // 2)
        prompts = sum(len(prompt.ids) for prompt in _prompts(model.tokenizer, problems, settings.completions))
        solutions = [problem.get("canonical_solution") for problem in problems]
        lengths = [len(model.tokenizer(one).input_ids) if one else most for one in solutions]
        return prompts + settings.completions * sum(min(most, length) for length in lengths)

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """The problems, how completions are drawn, and how long a program may run."""
        return {
            "data": documents_hash(HUMANEVAL.load("test", settings.datasets_root)),
            "limit": settings.limit,
            "completions": settings.completions,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": settings.seed,
            "tokens_a_batch": settings.tokens_a_batch,
            "limits": asdict(self.cage.limits),
        }

    def compare(self, dense: pd.DataFrame, pruned: pd.DataFrame) -> Comparison:
        """Problems are resampled, by the share of their completions that pass."""
        before, after = (records.groupby("problem")["correct"].mean() for records in (dense, pruned))
        return paired_bootstrap(before, after, mean, seed=0)

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Generate every completion, then run every program; each is half of the progress."""
        self.check(settings)
        problems = _problems(settings)
        total = len(problems) * settings.completions
        report = progress or (lambda done, of: None)
        sampling = _sampling(settings, min(NEW_TOKENS, model.context_length // 2))
        prompts = _prompts(model.tokenizer, problems, settings.completions)
        found = generated(self, model, prompts, sampling, settings, lambda done, _: report(done, 2 * total))
        records = execute(
            _records(problems, found.completions), self.cage, lambda done, _: report(total + done, 2 * total)
        )
        room = model.context_length - sampling.max_new_tokens
        conditions = {
            "split": "test",
            "chat_template": False,
            "completions": settings.completions,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "generation_seed": settings.seed,
            "max_new_tokens": sampling.max_new_tokens,
            "cut_at_max_new_tokens": sum(record["finish_reason"] == "length" for record in records),
            "truncated": sum(len(prompt.ids) > room for prompt in prompts),
            **batch_conditions(found.tokens_a_batch, found.shrunk_from),
            "cpu_seconds": self.cage.limits.cpu_seconds,
        }
        return Evaluation(_scores(records), records, conditions)


def execute(records: Sequence[Record], cage: Sandbox | None = None, progress: Progress | None = None) -> list[Record]:
    """Run the program of every record in a cage, and say how it ended.

    Args:
        records: with `prompt`, `text`, `test` and `entry_point`, such as the sample records of an earlier run (the rows
            of its `.samples.parquet`), whose verdicts are replaced.
        cage: where to run them; by default one with the usual limits.
        progress: told how many are done.

    Raises:
        MissingRequirement: this machine cannot hold a cage.
        DataError: a test that cannot be run apart from the program.
    """
    cage = cage or Sandbox()
    judged: list[Record] = []
    for start in range(0, len(records), RUN_AT_ONCE):
        some = records[start : start + RUN_AT_ONCE]
        for record, ended in zip(some, cage.examine_all([_exercise(record) for record in some]), strict=True):
            verdict = {"verdict": ended.verdict.value, "detail": ended.detail, "correct": ended.passed}
            judged.append({**record, **verdict})
        if progress is not None:
            progress(len(judged), len(records))
    return judged


def program_of(record: Record) -> str:
    """A record's program: prompt and completion, the tests, and the call that runs them."""
    return _exercise(record).program


def _exercise(record: Record) -> Exercise:
    return Exercise(record["prompt"], record["text"], record["test"], record["entry_point"])


def _problems(settings: EvaluationSettings) -> list[dict[str, Any]]:
    documents = HUMANEVAL.load("test", settings.datasets_root)
    require_rows(HUMANEVAL, "test", documents, HumanEvalRow)
    problems: list[dict[str, Any]] = documents.to_list()
    return problems[: settings.limit]


def _sampling(settings: EvaluationSettings, new_tokens: int) -> SamplingSettings:
    """How completions are drawn; raises InvalidRequest for what is outside its range."""
    return SamplingSettings(
        max_new_tokens=new_tokens, temperature=settings.temperature, top_p=settings.top_p, stop=STOPS
    )


def _prompts(tokenizer: Any, problems: Sequence[Record], completions: int) -> list[Prompt]:
    # Brings in lm-eval, whose rule for special tokens it keeps to.
    from prunelab.inference.tokenization import Encoder

    ids = Encoder(tokenizer).encode_prompts(problem["prompt"] for problem in problems)
    numbers = tuple(range(completions))
    return [Prompt(ids[problem["prompt"]], f"humaneval, {problem['task_id']}", numbers) for problem in problems]


def _records(problems: Sequence[Record], completions: Sequence[Completion]) -> list[Record]:
    """One record a completion, with all that its program is made of."""
    each = len(completions) // len(problems)
    return [
        {
            "sample": f"{problems[index // each]['task_id']}/{one.completion}",
            "problem": problems[index // each]["task_id"],
            "completion": one.completion,
            "prompt": problems[index // each]["prompt"],
            "text": one.text,
            "tokens": one.tokens,
            "finish_reason": one.finish_reason,
            "repeats": repeats_itself(one.text),
            "entry_point": problems[index // each]["entry_point"],
            "test": problems[index // each]["test"],
        }
        for index, one in enumerate(completions)
    ]


def _scores(records: Sequence[Record]) -> list[Score]:
    """Means over problems of each problem's estimate or share, with standard errors over problems."""
    by_problem: dict[str, list[Record]] = {}
    for record in records:
        by_problem.setdefault(record["problem"], []).append(record)
    problems = list(by_problem.values())
    fewest = min(map(len, problems))
    values = {
        f"pass@{k}": [pass_at_k(len(own), sum(one["correct"] for one in own), k) for own in problems]
        for k in (1, 5)
        if k <= fewest
    }
    for verdict in (ProgramVerdict.TAMPERED, ProgramVerdict.SYNTAX_ERROR, ProgramVerdict.TIMED_OUT):
        values[verdict.value] = [fmean(one["verdict"] == verdict.value for one in own) for own in problems]
    values["repeats"] = [fmean(one["repeats"] for one in own) for own in problems]
    return [Score(name, fmean(each), len(each), standard_error(each)) for name, each in values.items()]
