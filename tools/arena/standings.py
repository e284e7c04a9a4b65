"""Losses of cuts relative to the dense model over several draws, and whether the target is met."""

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
"""The paper's methods; the better one sets the bar."""
SHARE = 0.5
"""The target: at most this share of the bar's loss."""


@dataclass(frozen=True)
class Standing:
    """The losses of one cut, one value per seed.

    Attributes:
        model: name of the model.
        method: name of the method.
        ratio: requested ratio.
        achieved: achieved ratio.
        ln_perplexity: increase of ln perplexity.
        accuracy: decrease of the mean accuracy, in percentage points; empty without accuracy benchmarks.
    """

    model: str
    method: str
    ratio: float
    achieved: float
    ln_perplexity: tuple[float, ...]
    accuracy: tuple[float, ...]


Lost = Callable[[Standing], Sequence[float]]
"""Accessor of one of a cut's losses, one value per seed."""


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and sample standard deviation, formatted; empty without values."""
    if not values:
        return ""
    middle = f"{mean(values):.{digits}f}"
    return f"{middle} ± {stdev(values):.{digits}f}" if len(values) > 1 else middle


@dataclass(frozen=True)
class _Figures:
    """One cell's results."""

    achieved: float
    ln_perplexity: float
    accuracy: float


def standings(measurements: Sequence[Measurement]) -> list[Standing]:
    """All cuts of all models, in the run's order.

    Raises:
        InvalidRequest: a dense model was not measured, or cells were not measured on the same benchmarks.
    """
    cells: dict[tuple[str, str, float], dict[int, list[Measurement]]] = {}
    for item in measurements:
        cells.setdefault((item.model, item.method, item.ratio), {}).setdefault(item.seed or 0, []).append(item)
    dense = {model: next(iter(seeds.values())) for (model, method, _), seeds in cells.items() if method == "dense"}
    cuts = []
    for (model, method, ratio), seeds in cells.items():
        if method == "dense":
            continue
        if model not in dense:
            raise InvalidRequest(f"the dense {model} was not measured: give the folder of a finished study")
        asked = _asked(dense[model])
        dense_result, results = _figures(dense[model], asked), [_figures(seeds[seed], asked) for seed in sorted(seeds)]
        cuts.append(
            Standing(
                model,
                method,
                ratio,
                results[0].achieved,
                tuple(item.ln_perplexity - dense_result.ln_perplexity for item in results),
                tuple(100 * (dense_result.accuracy - item.accuracy) for item in results) if asked else (),
            )
        )
    return cuts


def _asked(measurements: Sequence[Measurement]) -> list[str]:
    return [m.benchmark for m in measurements if m.primary and m.metric in RIGHT_OR_WRONG]


def _figures(measurements: Sequence[Measurement], asked: Sequence[str]) -> _Figures:
    """The results of one cell.

    Raises:
        InvalidRequest: the cell lacks one of the dense model's benchmarks, or has no perplexity.
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
    """The method compared with the better rival, at one ratio of one model.

    Attributes:
        own: the method's losses.
        ln_perplexity_bar: the rival with the smallest loss of ln perplexity.
        accuracy_bar: the rival with the smallest loss of accuracy; None without accuracy benchmarks.
    """

    own: Standing
    ln_perplexity_bar: Standing
    accuracy_bar: Standing | None

    @property
    def ln_perplexity(self) -> tuple[float, float]:
        """Mean losses of ln perplexity of the method and of the better rival."""
        return mean(self.own.ln_perplexity), mean(self.ln_perplexity_bar.ln_perplexity)

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Mean losses of accuracy in points, of the method and of the better rival."""
        bar = self.accuracy_bar
        return None if bar is None else (mean(self.own.accuracy), mean(bar.accuracy))

    @property
    def missed(self) -> tuple[str, ...]:
        """The measures in which the method misses the target; if the bar loses nothing, it must lose nothing."""
        losses = {"ln perplexity": self.ln_perplexity, "accuracy": self.accuracy}
        return tuple(name for name, pair in losses.items() if pair and pair[0] > SHARE * max(pair[1], 0.0) + 1e-12)

    @property
    def is_met(self) -> bool:
        """Whether the target is met in both measures."""
        return not self.missed


def verdicts(found: Sequence[Standing], method: str, others: Sequence[Standing] | None = None) -> Iterator[Verdict]:
    """The method compared with the better rival, at each model and ratio where both were measured.

    Args:
        found: losses of all cuts, including the method's.
        method: name of the method.
        others: losses of the rivals, if they are from another run.
    """
    own_place = {(standing.model, standing.ratio, standing.method): standing for standing in found}
    by_place = {
        (standing.model, standing.ratio, standing.method): standing
        for standing in (found if others is None else others)
    }
    for model, ratio in dict.fromkeys((standing.model, standing.ratio) for standing in found):
        method_standing = own_place.get((model, ratio, method))
        bars = [by_place[model, ratio, rival] for rival in RIVALS if (model, ratio, rival) in by_place]
        if method_standing is not None and bars:
            yield Verdict(
                method_standing,
                min(bars, key=lambda bar: mean(bar.ln_perplexity)),
                min(bars, key=lambda bar: mean(bar.accuracy)) if method_standing.accuracy else None,
            )


@dataclass(frozen=True)
class Time:
    """Cost of pruning with a method.

    Attributes:
        passes: cost as a multiple of a calibration pass.
        spread: spread of `passes` over rounds.
        seconds: cost in seconds.
    """

    passes: float
    spread: float
    seconds: float


def read_times(path: Path) -> dict[str, Time]:
    """Read the output file of `timing/methods_cost.py`: costs by method.

    Raises:
        InvalidRequest: the file is missing or has another format.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {row["method"]: Time(*(float(row[name]) for name in ("passes", "spread", "seconds"))) for row in rows}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(
            f"{path} holds no times ({error}): generate it with timing/methods_cost.py --out"
        ) from None


def read_speeds(path: Path) -> dict[tuple[str, str, float], tuple[float, float]]:
    """Read the output file of `timing/arena_speed.py`: speedup and spread, by model, method and ratio.

    Raises:
        InvalidRequest: the file is missing or has another format.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return {
            (row["model"], row["method"], float(row["ratio"])): (float(row["speed"]), float(row["spread"]))
            for row in rows
        }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(
            f"{path} holds no speeds ({error}): generate it with timing/arena_speed.py --out"
        ) from None
