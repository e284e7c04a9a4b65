"""The columns of a report: which figure of which benchmark, what it is called and how it is read."""

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
    """One primary figure.

    Attributes:
        benchmark: its name.
        metric: the figure's name.
        shots: examples in the prompt; None where the notion does not apply.
    """

    benchmark: str
    metric: str
    shots: int | None = None

    @classmethod
    def of(cls, m: Measurement) -> Column:
        """The column that a measurement stands in."""
        return cls(m.benchmark, m.metric, m.shots)

    @property
    def known(self) -> Benchmark | None:
        """The benchmark; None where this version of prunelab has none of that name."""
        try:
            return find_benchmark(self.benchmark)
        except UnknownName:
            return None

    @property
    def title(self) -> str:
        """The benchmark as people write it, with its shots."""
        known = self.known.title if self.known else ""
        name = known.split(":")[0] if ":" in known else self.benchmark
        return f"{name}{'' if self.shots is None else f', {self.shots}-shot'}"

    @property
    def metric_name(self) -> str:
        """The figure in words."""
        return NAMES.get(self.metric, self.metric.replace("_", " "))

    @property
    def heading(self) -> str:
        """What a table's column is called: the names that `results.csv` uses."""
        short = {"token_perplexity": "perplexity", "decode_tokens_per_second": "decode speed"}
        shots = "" if self.shots is None else f" {self.shots}-shot"
        return f"{self.benchmark}{shots} {short.get(self.metric, self.metric)}"

    @property
    def chance(self) -> float | None:
        """What guessing earns; a run's own measurement knows it better."""
        return self.known.chance if self.known else CHANCE.get(self.benchmark)

    @property
    def higher_is_better(self) -> bool:
        """Of the figure."""
        return self.known.higher_is_better if self.known else not self.is_perplexity

    @property
    def is_timing(self) -> bool:
        """Whether it is a time."""
        return self.known.is_timing if self.known else False

    @property
    def is_perplexity(self) -> bool:
        """Whether it is a perplexity, which is read on a logarithmic scale."""
        return self.metric.endswith("perplexity")

    @property
    def is_bias(self) -> bool:
        """Whether it says how fair a model is rather than how good."""
        return self.metric == "icat"

    @property
    def is_quality(self) -> bool:
        """Whether it says how much a model can do."""
        return not (self.is_timing or self.is_bias)

    def text(self, value: float) -> str:
        """A value as tables print it: shares with three decimals, all else with four digits."""
        return f"{value:.3f}" if self.metric in SHARES else number(value)


def number(value: float, digits: int = 4) -> str:
    """A number with so many digits, and no exponent below a million: 0.5, 34.56, 41230."""
    if value != 0 and abs(value) >= 10**digits:
        return f"{value:.0f}" if abs(value) < 1e6 else f"{value:.3g}"
    return f"{value:.{digits}g}"


def strategy_of(method: str) -> str:
    """`depth`, `width`, `hybrid`, `dense`, or `other` for a method that this version does not know."""
    if method == "dense":
        return "dense"
    return methods[method].strategy if method in methods else "other"


PAPERS = ("shortgpt", "flap", "hybrid")


def is_baseline(method: str) -> bool:
    """Whether a method is only there for others to be compared with."""
    return method in methods and methods[method].source == "baseline"


def series_name(method: str) -> str:
    """A method in a legend, with what it removes where its name does not say so: "flap (width)"."""
    strategy = strategy_of(method)
    return method if strategy in method or strategy == "other" else f"{method} ({strategy})"


def marker_of(method: str) -> str:
    """A method's marker, the same in every figure; in a strategy the paper's come first and those of baselines last."""
    strategy = strategy_of(method)
    alike = sorted(
        (name for name in methods if methods[name].strategy == strategy),
        key=lambda name: (is_baseline(name), name not in PAPERS),
    )
    markers = MARKERS.get(strategy, ("circle",))
    return markers[alike.index(method) % len(markers)] if method in alike else markers[-1]
