"""How cuts stand: what each lost against the whole model over several draws, and whether the aim is met."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import mean, stdev

from prunelab.errors import InvalidRequest
from prunelab.evaluation.records import Measurement

RIGHT_OR_WRONG = ("acc", "acc_norm", "exact_match")
RIVALS = ("shortgpt", "flap")
"""The paper's two, whose better one is the bar."""
SHARE = 0.5
"""Of the bar's loss, at most: the aim."""


@dataclass(frozen=True)
class Standing:
    """What one cut lost, a seed each.

    Attributes:
        model: its name.
        method: how it was cut.
        ratio: the share asked for.
        achieved: the share removed.
        ln_perplexity: rise of ln perplexity.
        accuracy: fall of the mean accuracy, in points of a hundred; empty where no questions were asked.
    """

    model: str
    method: str
    ratio: float
    achieved: float
    ln_perplexity: tuple[float, ...]
    accuracy: tuple[float, ...]


Lost = Callable[[Standing], Sequence[float]]
"""One of a cut's losses, a seed each."""


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and sample deviation in words; nothing where there are no values."""
    if not values:
        return ""
    middle = f"{mean(values):.{digits}f}"
    return f"{middle} ± {stdev(values):.{digits}f}" if len(values) > 1 else middle


@dataclass(frozen=True)
class _Figures:
    """One model's or cut's own figures with one seed."""

    achieved: float
    ln_perplexity: float
    accuracy: float


def standings(measurements: Sequence[Measurement]) -> list[Standing]:
    """Every cut of every model, in the run's order.

    Raises:
        InvalidRequest: a model has no dense figures, or its cells were not measured on the same benchmarks.
    """
    cells: dict[tuple[str, str, float], dict[int, list[Measurement]]] = {}
    for one in measurements:
        cells.setdefault((one.model, one.method, one.ratio), {}).setdefault(one.seed or 0, []).append(one)
    dense = {model: next(iter(seeds.values())) for (model, method, _), seeds in cells.items() if method == "dense"}
    found = []
    for (model, method, ratio), seeds in cells.items():
        if method == "dense":
            continue
        if model not in dense:
            raise InvalidRequest(f"{model} was not measured whole: give the folder of a finished study")
        asked = _asked(dense[model])
        whole, own = _figures(dense[model], asked), [_figures(seeds[seed], asked) for seed in sorted(seeds)]
        found.append(
            Standing(
                model,
                method,
                ratio,
                own[0].achieved,
                tuple(one.ln_perplexity - whole.ln_perplexity for one in own),
                tuple(100 * (whole.accuracy - one.accuracy) for one in own) if asked else (),
            )
        )
    return found


def _asked(measurements: Sequence[Measurement]) -> list[str]:
    return [m.benchmark for m in measurements if m.primary and m.metric in RIGHT_OR_WRONG]


def _figures(measurements: Sequence[Measurement], asked: Sequence[str]) -> _Figures:
    """Of one cell.

    Raises:
        InvalidRequest: it lacks a benchmark that the dense model has, or any perplexity.
    """
    primary = {m.benchmark: m for m in measurements if m.primary and not m.group}
    perplexities = [m for m in primary.values() if m.metric.endswith("perplexity")]
    missing = [name for name in asked if name not in primary] or ([] if perplexities else ["a perplexity"])
    first = measurements[0]
    if missing:
        raise InvalidRequest(
            f"{first.model} {first.method} {first.ratio:.0%} was not measured on {', '.join(missing)}: let the study "
            "finish first"
        )
    return _Figures(
        first.achieved_ratio,
        mean(log(m.value) for m in perplexities),
        mean([primary[name].value for name in asked] or [0.0]),
    )


@dataclass(frozen=True)
class Verdict:
    """How the chosen method stands against the better of the rivals, at one ratio of one model.

    Attributes:
        own: what the method loses.
        ln_perplexity_bar: the rival that loses least in ln perplexity.
        accuracy_bar: the same in accuracy; None where no questions were asked.
    """

    own: Standing
    ln_perplexity_bar: Standing
    accuracy_bar: Standing | None

    @property
    def ln_perplexity(self) -> tuple[float, float]:
        """Means over seeds of the method's and of the better rival's loss."""
        return mean(self.own.ln_perplexity), mean(self.ln_perplexity_bar.ln_perplexity)

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """The same in points."""
        bar = self.accuracy_bar
        return None if bar is None else (mean(self.own.accuracy), mean(bar.accuracy))

    @property
    def missed(self) -> tuple[str, ...]:
        """In what it loses more than half; where the bar loses nothing, it may lose nothing."""
        losses = {"ln perplexity": self.ln_perplexity, "accuracy": self.accuracy}
        return tuple(name for name, pair in losses.items() if pair and pair[0] > SHARE * max(pair[1], 0.0) + 1e-12)

    @property
    def is_met(self) -> bool:
        """Whether it loses at most half, in both."""
        return not self.missed


def verdicts(found: Sequence[Standing], method: str, others: Sequence[Standing] | None = None) -> Iterator[Verdict]:
    """The method against the better rival in each measure, wherever all were measured.

    Args:
        found: standings, the method's among them.
        method: its name.
        others: the rivals', where they are of another run.
    """
    own_place = {(one.model, one.ratio, one.method): one for one in found}
    by_place = {(one.model, one.ratio, one.method): one for one in (found if others is None else others)}
    for model, ratio in dict.fromkeys((one.model, one.ratio) for one in found):
        own = own_place.get((model, ratio, method))
        bars = [by_place[model, ratio, rival] for rival in RIVALS if (model, ratio, rival) in by_place]
        if own is not None and bars:
            yield Verdict(
                own,
                min(bars, key=lambda bar: mean(bar.ln_perplexity)),
                min(bars, key=lambda bar: mean(bar.accuracy)) if own.accuracy else None,
            )


@dataclass(frozen=True)
class Time:
    """What a method's cut costs.

    Attributes:
        passes: times a calibration pass.
        spread: of that over rounds.
        seconds: the same by the clock.
    """

    passes: float
    spread: float
    seconds: float


def read_times(path: Path) -> dict[str, Time]:
    """What `timing/methods_cost.py --out` wrote, by method.

    Raises:
        InvalidRequest: the file is missing, or another.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {row["method"]: Time(*(float(row[name]) for name in ("passes", "spread", "seconds"))) for row in rows}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"{path} holds no times ({error}): make it with timing/methods_cost.py --out") from None


def read_speeds(path: Path) -> dict[tuple[str, str, float], tuple[float, float]]:
    """What `timing/arena_speed.py --out` wrote: by model, method and ratio, times the dense model's and the spread.

    Raises:
        InvalidRequest: the file is missing, or another.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {
            (row["model"], row["method"], float(row["ratio"])): (float(row["speed"]), float(row["spread"]))
            for row in rows
        }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"{path} holds no speeds ({error}): make it with timing/arena_speed.py --out") from None
