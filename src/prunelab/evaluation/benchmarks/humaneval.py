"""HumanEval (Chen et al. 2021): programs generated from descriptions and run against tests."""

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
"""Stop strings that end a function (section 2.1 of the paper)."""

NEW_TOKENS = 512
RUN_AT_ONCE = 64
"""Number of programs between two progress reports."""

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
    """The model completes a function from its head and description; the program is run against tests.

    `pass@1`, the primary metric, and `pass@5`, if there are at least five completions, are unbiased estimates from the
    completions of each problem (five by default, temperature 0.8, top_p 1: the full distribution). Further metrics are
    the shares of completions that do not compile (`syntax_error`; truncated completions often do not), that time out
    (`timed_out`), and that end in a loop (`repeats`, see `repeats_itself`). All values and standard errors are over
    problems.

    A completion ends at one of `STOPS`, at an end-of-text token, or after 512 tokens or half the context, whichever is
    less. Longer prompts are truncated on the left, as in lm-eval, and counted; the program that is run contains the
    full prompt. Prompts never use a chat template. Every completion has its own seed, and in float32 does not depend on
    its batch.

    Programs run in a sandbox (`prunelab.evaluation.sandbox`), and only if code execution is allowed. Generating and
    running are separate: with a workspace, completions are stored before the first program runs, and `execute` runs
    stored records again. Deviations from the reference harness: the sandbox limits CPU time (5 s) instead of wall time
    (3 s), and tampered programs do not pass.
    """

    name = "humaneval"
    version: ClassVar[int] = 2
    title: ClassVar[str] = "HumanEval: generated programs run against unit tests in a sandbox"
    primary: ClassVar[str] = "pass@1"

    @cached_property
    def sandbox(self) -> Sandbox:
        """The sandbox of the programs; it is probed once per process."""
        return Sandbox()

    def sources(self) -> Sequence[Source]:
        """The data set of problems."""
        return [HUMANEVAL]

    def check(self, settings: EvaluationSettings) -> None:
        """Check that code execution is allowed, that the sandbox works, and that the problems are available.

        Raises:
            MissingRequirement: code execution is not allowed, or the sandbox does not work on this machine.
            InvalidRequest: a sampling setting is out of range.
            DataError: the problems are missing or malformed.
        """
        if not settings.allow_code_execution:
            raise MissingRequirement(
                "humaneval runs programs that the model writes: allow it with --allow-code-execution (programs run in "
                "a sandbox without network, processes or access to your files), or leave humaneval out"
            )
        if settings.completions < 1:
            raise InvalidRequest(f"{settings.completions} completions per problem requested: give at least 1")
        _sampling(settings, NEW_TOKENS)
        self.sandbox.check()
        _problems(settings)

    def expected_tokens(self, model: ModelMetadata, settings: EvaluationSettings) -> int:
        """Tokens of the prompts, plus, per completion, the tokens of the problem's reference solution."""
        problems = _problems(settings)
        most = min(NEW_TOKENS, model.context_length // 2)
        prompts = sum(len(prompt.ids) for prompt in _prompts(model.tokenizer, problems, settings.completions))
        solutions = [problem.get("canonical_solution") for problem in problems]
        lengths = [len(model.tokenizer(solution).input_ids) if solution else most for solution in solutions]
        return prompts + settings.completions * sum(min(most, length) for length in lengths)

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """Hash of the problems, sampling settings, and the sandbox's limits."""
        return {
            "data": documents_hash(HUMANEVAL.load("test", settings.datasets_root)),
            "limit": settings.limit,
            "completions": settings.completions,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": settings.seed,
            "tokens_a_batch": settings.tokens_a_batch,
            "limits": asdict(self.sandbox.limits),
        }

    def compare(self, dense: pd.DataFrame, pruned: pd.DataFrame) -> Comparison:
        """Paired bootstrap over problems, on the share of completions that pass."""
        before, after = (records.groupby("problem")["correct"].mean() for records in (dense, pruned))
        return paired_bootstrap(before, after, mean, seed=0)

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Generate all completions, then run all programs; each step is half of the progress."""
        self.check(settings)
        problems = _problems(settings)
        total = len(problems) * settings.completions
        report = progress or (lambda done, of: None)
        sampling = _sampling(settings, min(NEW_TOKENS, model.context_length // 2))
        prompts = _prompts(model.tokenizer, problems, settings.completions)
        generation = generated(self, model, prompts, sampling, settings, lambda done, _: report(done, 2 * total))
        records = execute(
            _records(problems, generation.completions), self.sandbox, lambda done, _: report(total + done, 2 * total)
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
            **batch_conditions(generation.tokens_a_batch, generation.shrunk_from),
            "cpu_seconds": self.sandbox.limits.cpu_seconds,
        }
        return Evaluation(_scores(records), records, conditions)


def execute(
    records: Sequence[Record], sandbox: Sandbox | None = None, progress: Progress | None = None
) -> list[Record]:
    """Run the program of every record in a sandbox and add its verdict.

    Args:
        records: with `prompt`, `text`, `test` and `entry_point`, such as the sample records of an earlier run (the rows
            of its `.samples.parquet`), whose verdicts are replaced.
        sandbox: the sandbox; by default one with the default limits.
        progress: called with the numbers of finished and of all programs.

    Raises:
        MissingRequirement: the sandbox does not work on this machine.
        DataError: a test cannot be run in a process separate from the program.
    """
    sandbox = sandbox or Sandbox()
    judged: list[Record] = []
    for start in range(0, len(records), RUN_AT_ONCE):
        chunk = records[start : start + RUN_AT_ONCE]
        for record, ended in zip(chunk, sandbox.examine_all([_exercise(record) for record in chunk]), strict=True):
            verdict = {"verdict": ended.verdict.value, "detail": ended.detail, "correct": ended.passed}
            judged.append({**record, **verdict})
        if progress is not None:
            progress(len(judged), len(records))
    return judged


def program_of(record: Record) -> str:
    """A record's program: prompt, completion, test, and the call of the test."""
    return _exercise(record).program


def _exercise(record: Record) -> Exercise:
    return Exercise(record["prompt"], record["text"], record["test"], record["entry_point"])


def _problems(settings: EvaluationSettings) -> list[dict[str, Any]]:
    documents = HUMANEVAL.load("test", settings.datasets_root)
    require_rows(HUMANEVAL, "test", documents, HumanEvalRow)
    problems: list[dict[str, Any]] = documents.to_list()
    return problems[: settings.limit]


def _sampling(settings: EvaluationSettings, new_tokens: int) -> SamplingSettings:
    """The sampling settings; raises InvalidRequest if one is out of range."""
    return SamplingSettings(
        max_new_tokens=new_tokens, temperature=settings.temperature, top_p=settings.top_p, stop=STOPS
    )


def _prompts(tokenizer: Any, problems: Sequence[Record], completions: int) -> list[Prompt]:
    # Imported here because it imports lm-eval.
    from prunelab.inference.tokenization import Encoder

    ids = Encoder(tokenizer).encode_prompts(problem["prompt"] for problem in problems)
    numbers = tuple(range(completions))
    return [Prompt(ids[problem["prompt"]], f"humaneval, {problem['task_id']}", numbers) for problem in problems]


def _records(problems: Sequence[Record], completions: Sequence[Completion]) -> list[Record]:
    """One record per completion, with all parts of its program."""
    each = len(completions) // len(problems)
    return [
        {
            "sample": f"{problems[index // each]['task_id']}/{completion.completion}",
            "problem": problems[index // each]["task_id"],
            "completion": completion.completion,
            "prompt": problems[index // each]["prompt"],
            "text": completion.text,
            "tokens": completion.tokens,
            "finish_reason": completion.finish_reason,
            "repeats": repeats_itself(completion.text),
            "entry_point": problems[index // each]["entry_point"],
            "test": problems[index // each]["test"],
        }
        for index, completion in enumerate(completions)
    ]


def _scores(records: Sequence[Record]) -> list[Score]:
    """Means and standard errors over problems of each problem's estimate or share."""
    by_problem: dict[str, list[Record]] = {}
    for record in records:
        by_problem.setdefault(record["problem"], []).append(record)
    problems = list(by_problem.values())
    fewest = min(map(len, problems))
    values = {
        f"pass@{k}": [
            pass_at_k(len(records_), sum(record_["correct"] for record_ in records_), k) for records_ in problems
        ]
        for k in (1, 5)
        if k <= fewest
    }
    for verdict in (ProgramVerdict.TAMPERED, ProgramVerdict.SYNTAX_ERROR, ProgramVerdict.TIMED_OUT):
        values[verdict.value] = [
            fmean(record_["verdict"] == verdict.value for record_ in records_) for records_ in problems
        ]
    values["repeats"] = [fmean(record_["repeats"] for record_ in records_) for records_ in problems]
    return [Score(name, fmean(each), len(each), standard_error(each)) for name, each in values.items()]
