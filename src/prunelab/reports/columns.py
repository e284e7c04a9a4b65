"""Columns of a report: a benchmark's primary metric, its title and its number format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunelab.analysis.claims.evidence import CHANCE
from prunelab.errors import UnknownName
from prunelab.evaluation.benchmarks import Benchmark, find_benchmark
from prunelab.pruning.methods import methods

if TYPE_CHECKING:
    from prunelab.studies.store import Measurement

SHARES = ("acc", "acc_norm", "exact_match", "pass@1", "pass@5", "inst_level_strict_acc", "f1")
MARKERS = {
    "depth": ("circle", "up", "cross"),
    "width": ("square", "down", "cross"),
    "hybrid": ("diamond", "up", "down"),
}
NAMES = {
    "token_perplexity": "perplexity",
    "word_perplexity": "perplexity a word",
    "decode_tokens_per_second": "decode speed",
    "exact_match": "exact match",
    "acc": "accuracy",
    "inst_level_strict_acc": "instructions followed",
    "icat": "ICAT",
}


@dataclass(frozen=True)
class Column:
    """The primary metric of one benchmark at one number of shots.

    Attributes:
        benchmark: name of the benchmark.
        metric: name of the metric.
        shots: number of examples in the prompt; None for a benchmark without few-shot prompts.
    """

    benchmark: str
    metric: str
    shots: int | None = None

    @classmethod
    def of(cls, m: Measurement) -> Column:
        """The column of a measurement."""
        return cls(m.benchmark, m.metric, m.shots)

    @property
    def known(self) -> Benchmark | None:
        """The registered benchmark; None if this version of prunelab does not have it."""
        try:
            return find_benchmark(self.benchmark)
        except UnknownName:
            return None

    @property
    def title(self) -> str:
        """The benchmark's title, with its number of shots."""
        known = self.known.title if self.known else ""
        name = known.split(":")[0] if ":" in known else self.benchmark
        return f"{name}{'' if self.shots is None else f', {self.shots}-shot'}"

    @property
    def metric_name(self) -> str:
        """The metric's display name."""
        return NAMES.get(self.metric, self.metric.replace("_", " "))

    @property
    def heading(self) -> str:
        """Heading of the table column, in the names of `results.csv`."""
        short = {"token_perplexity": "perplexity", "decode_tokens_per_second": "decode speed"}
        shots = "" if self.shots is None else f" {self.shots}-shot"
        return f"{self.benchmark}{shots} {short.get(self.metric, self.metric)}"

    @property
    def chance(self) -> float | None:
        """The metric's value at chance; the value in a run's measurements takes precedence."""
        return self.known.chance if self.known else CHANCE.get(self.benchmark)

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values are better."""
        return self.known.higher_is_better if self.known else not self.is_perplexity

    @property
    def is_timing(self) -> bool:
        """Whether the benchmark measures speed."""
        return self.known.is_timing if self.known else False

    @property
    def is_perplexity(self) -> bool:
        """Whether the metric is a perplexity, which is plotted on a logarithmic scale."""
        return self.metric.endswith("perplexity")

    @property
    def is_bias(self) -> bool:
        """Whether the metric measures bias, not quality."""
        return self.metric == "icat"

    @property
    def is_quality(self) -> bool:
        """Whether the metric measures quality: neither speed nor bias."""
        return not (self.is_timing or self.is_bias)

    def text(self, value: float) -> str:
        """Format a value for tables: three decimals for shares, four significant digits for other metrics."""
        return f"{value:.3f}" if self.metric in SHARES else number(value)


def number(value: float, digits: int = 4) -> str:
    """Format a number with `digits` significant digits, without an exponent below a million: 0.5, 34.56, 41230."""
    if value != 0 and abs(value) >= 10**digits:
        return f"{value:.0f}" if abs(value) < 1e6 else f"{value:.3g}"
    return f"{value:.{digits}g}"


def strategy_of(method: str) -> str:
    """`depth`, `width`, `hybrid`, `dense`, or `other` for a method that is not registered."""
    if method == "dense":
        return "dense"
    return methods[method].strategy if method in methods else "other"


PAPERS = ("shortgpt", "flap", "hybrid")


def is_baseline(method: str) -> bool:
    """Whether a method is a baseline."""
    return method in methods and methods[method].source == "baseline"


def series_name(method: str) -> str:
    """A method's label in a legend, with its strategy unless the name contains it: "flap (width)"."""
    strategy = strategy_of(method)
    return method if strategy in method or strategy == "other" else f"{method} ({strategy})"


def marker_of(method: str) -> str:
    """A method's marker, the same in all figures; within a strategy, the paper's methods come first, baselines last."""
    strategy = strategy_of(method)
    same_strategy = sorted(
        (name for name in methods if methods[name].strategy == strategy),
        key=lambda name: (is_baseline(name), name not in PAPERS),
    )
    markers = MARKERS.get(strategy, ("circle",))
    return markers[same_strategy.index(method) % len(markers)] if method in same_strategy else markers[-1]
