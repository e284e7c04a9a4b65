"""What a benchmark is: a data set, a rule, and typed scores with a record of every sample."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from prunelab.errors import UnknownName
from prunelab.io.bounds import EVALUATION, check_all
from prunelab.stats.paired_tests import Comparison, Statistic, paired_accuracy, paired_bootstrap, perplexity

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.inference.runtimes import Runtime
    from prunelab.io.datasets import Source
    from prunelab.models.loading import LanguageModel
    from prunelab.models.metadata import ModelMetadata

Progress = Callable[[int, int], None]
ChatTemplate = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class EvaluationSettings:
    """How to evaluate; a benchmark reads what concerns it.

    Attributes:
        limit: only so many documents, of every subject where a benchmark has subjects; None for all.
        shots: examples in the prompt; None for the benchmark's own number.
        chat_template: whether prompts go through the tokenizer's chat template; with `auto` those of instructions do,
            where there is a template.
        allow_untrained_punkt: accepted from older configurations, without effect: the `ifeval` extra holds nltk's data.
        window: tokens a perplexity window, cut to the model's context.
        seed: for whatever is drawn; with 0 the shots are those that lm-eval draws.
        tokens_a_batch: tokens that go through the model at once; None to choose by memory.
        datasets_root: folder with copies of the hub's data sets.
        prompt_tokens: length of the prompt that throughput is measured with.
        new_tokens: tokens that throughput generates.
        repeats: measurements of which throughput reports the median.
        runtime: how throughput runs the model, `eager` or `compiled`.
        allow_code_execution: let generated programs run, in a cage.
        completions: programs that are drawn for each problem.
        temperature: of their draws; 0 takes the likeliest token.
        top_p: of their draws: the fewest likeliest tokens that together have this probability; 1 keeps all.
        workspace: folder for what is generated, kept before it is judged so that no run generates it twice.
        beside: the dense model, with which a cut's speed is measured in turn; None to measure the model alone.

    Raises:
        InvalidRequest: a number is out of bounds.
    """

    limit: int | None = None
    shots: int | None = None
    chat_template: ChatTemplate = "auto"
    allow_untrained_punkt: bool = False
    window: int = 2048
    seed: int = 0
    tokens_a_batch: int | None = None
    datasets_root: Path | None = None
    prompt_tokens: int = 128
    new_tokens: int = 64
    repeats: int = 5
    runtime: Runtime = "eager"
    allow_code_execution: bool = False
    completions: int = 5
    temperature: float = 0.8
    top_p: float = 1.0
    workspace: Path | None = None
    beside: LanguageModel | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that are out of bounds."""
        check_all(vars(self), EVALUATION)


@dataclass(frozen=True)
class Score:
    """One figure.

    Attributes:
        metric: its name, lm-eval's where lm-eval has one.
        value: accuracies as shares, perplexities as they are.
        n: documents, or what else was averaged over.
        standard_error: of the value; None where none is defined.
        group: a part of the benchmark, such as a subject; empty for the whole.
    """

    metric: str
    value: float
    n: int
    standard_error: float | None = None
    group: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What a benchmark found.

    Attributes:
        scores: the figures, the primary metric's first.
        samples: one record a sample, for paired tests and for reading.
        conditions: what makes the figures comparable or not: window, shots, split, batch, truncations.
    """

    scores: Sequence[Score]
    samples: Sequence[Mapping[str, Any]] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)


class Benchmark(ABC):
    """One benchmark.

    Attributes:
        name: what the user calls it.
        title: one line for lists.
        version: raised when the rule changes, so that old results are not taken for new ones.
        primary: the metric to judge by.
        higher_is_better: of the primary metric.
        chance: the primary metric of guessing, None where guessing has none.
        shots: examples in the prompt by default; None where a benchmark has none to set.
        is_timing: the figures are times, which differ from run to run.
        scores_likelihoods: all that it asks of a model are likelihoods of given tokens, so that a model and its cuts in
            depth can be asked in one pass.
        sees: it shows images, which only a model of a family that sees can take.
    """

    name: str
    title: ClassVar[str]
    version: ClassVar[int] = 1
    primary: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    chance: ClassVar[float | None] = None
    shots: ClassVar[int | None] = None
    is_timing: ClassVar[bool] = False
    scores_likelihoods: ClassVar[bool] = False
    is_multimodal: ClassVar[bool] = False

    @classmethod
    def from_argument(cls, argument: str) -> Benchmark:
        """The benchmark that `PREFIX:ARGUMENT` names; by default there is none."""
        raise UnknownName("benchmark with an argument", argument, ())

    def sources(self) -> Sequence[Source]:
        """The data sets it reads; by default none."""
        return ()

    def fetch(self, to: Path) -> None:
        """Bring what it needs besides its data sets into a folder for `--datasets-root`; by default nothing."""
        return

    def check(self, settings: EvaluationSettings) -> None:
        """Find out what is missing before the first token is computed; raises what mends it.

        By default nothing can be missing.
        """
        return

    def check_model(self, model: LanguageModel, settings: EvaluationSettings) -> None:
        """Find out, before the first token is computed, what the model lacks; by default what its tokenizer lacks."""
        self.check_tokenizer(model.name, model.tokenizer, settings)

    def check_tokenizer(self, name: str, tokenizer: Any, settings: EvaluationSettings) -> None:
        """Find out, before weights are loaded, what a model's tokenizer lacks; by default it can lack nothing."""
        return

    def compare(self, dense: pd.DataFrame, pruned: pd.DataFrame) -> Comparison | None:
        """The paired test of the primary metric, on both models' sample records; None where there is none.

        By default records say `correct`, and right is compared with wrong.
        """
        if "correct" not in dense:
            return None
        return paired_accuracy(dense.set_index("sample")["correct"], pruned.set_index("sample")["correct"])

    def expected_tokens(self, model: ModelMetadata, settings: EvaluationSettings) -> int | None:
        """Tokens that it costs a model, known before any weights are loaded: prompts, choices, expected new tokens.

        By default None: not known.
        """
        return None

    @abstractmethod
    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """What decides the figures besides the model: the data's fingerprint and the settings that count."""

    @abstractmethod
    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Run it."""


LARGEST_LOSS = 700.0
"""Nats a token or word up to which perplexities and their errors are floats."""


def resampled_perplexity(dense: pd.DataFrame, pruned: pd.DataFrame) -> Comparison | None:
    """The paired bootstrap of perplexity over sample records with `loss_sum` and `tokens`.

    Returns None where a sample's loss is above `LARGEST_LOSS`: the perplexity is then infinite, or nearly so.
    """
    for records in (dense, pruned):
        if (records["loss_sum"] > LARGEST_LOSS * records["tokens"]).any():
            return None
    return resampled(dense, pruned, ("loss_sum", "tokens"), perplexity)


def without_infinite(scores: Sequence[Score]) -> tuple[list[Score], dict[str, Any]]:
    """The first figure, which is the primary one, and all others that are finite; conditions name those left out."""
    kept = [score for index, score in enumerate(scores) if index == 0 or math.isfinite(score.value)]
    left_out = [score.metric for score in scores if score not in kept]
    return kept, {"larger than any float": ", ".join(left_out)} if left_out else {}


def resampled(dense: pd.DataFrame, pruned: pd.DataFrame, features: Sequence[str], statistic: Statistic) -> Comparison:
    """The paired bootstrap over sample records.

    Args:
        dense: the dense model's records, under `sample`.
        pruned: the pruned model's.
        features: columns that the statistic is a function of.
        statistic: such as `prunelab.stats.paired_tests.perplexity`.
    """
    tables = [records.set_index("sample")[list(features)] for records in (dense, pruned)]
    return paired_bootstrap(tables[0], tables[1], statistic, seed=0)
