"""The arena: from the run of a study with several calibration seeds to one page that compares its methods.

    python -m prunelab.report.arena RUN ... --out docs/arena.md

Losses are differences from the dense model of the same run: ln perplexity above its own, and mean accuracy (over the
benchmarks of right and wrong answers that the run holds) below its own. Spreads are sample deviations over seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from statistics import mean, stdev

from matplotlib import rc_context

from prunelab.errors import InvalidRequest, PrunelabError
from prunelab.files import write_text, written_file
from prunelab.measurement import Measurement
from prunelab.report.chart import Chart, Panel, Point, Series
from prunelab.report.columns import marker_of, strategy_of
from prunelab.report.figures.files import draw
from prunelab.run import load_run

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
        accuracy: fall of the mean accuracy, in points of a hundred.
        speed: decoding speed, times the dense model's; empty where it was not measured.
    """

    model: str
    method: str
    ratio: float
    achieved: float
    ln_perplexity: tuple[float, ...]
    accuracy: tuple[float, ...]
    speed: tuple[float, ...]


@dataclass(frozen=True)
class _Figures:
    """One model's or cut's own figures with one seed."""

    achieved: float
    ln_perplexity: float
    accuracy: float
    speed: float | None


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
                tuple(100 * (whole.accuracy - one.accuracy) for one in own),
                tuple(one.speed / whole.speed for one in own if one.speed and whole.speed),
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
    if missing or not asked:
        raise InvalidRequest(
            f"{first.model} {first.method} {first.ratio:.0%} was not measured on {', '.join(missing) or 'questions'}: "
            "let the study finish first"
        )
    speeds = [m.value for m in primary.values() if m.metric == "decode_tokens_per_second"]
    return _Figures(
        first.achieved_ratio,
        mean(log(m.value) for m in perplexities),
        mean(primary[name].value for name in asked),
        speeds[0] if speeds else None,
    )


@dataclass(frozen=True)
class Verdict:
    """How the chosen method stands against the better of the rivals, at one ratio of one model.

    Attributes:
        model: its name.
        ratio: the share asked for.
        ln_perplexity: means over seeds of the method's and of the better rival's loss.
        accuracy: the same of accuracy.
    """

    model: str
    ratio: float
    ln_perplexity: tuple[float, float]
    accuracy: tuple[float, float]

    @property
    def is_met(self) -> bool:
        """Whether it loses at most half, in both; where the bar loses nothing, it may lose nothing."""
        return all(own <= SHARE * max(bar, 0.0) + 1e-12 for own, bar in (self.ln_perplexity, self.accuracy))


def verdicts(found: Sequence[Standing], method: str) -> Iterator[Verdict]:
    """The method against the better rival in each measure, wherever all were measured."""
    by_place = {(one.model, one.ratio, one.method): one for one in found}
    for model, ratio in dict.fromkeys((one.model, one.ratio) for one in found):
        own = by_place.get((model, ratio, method))
        bars = [by_place[model, ratio, rival] for rival in RIVALS if (model, ratio, rival) in by_place]
        if own is not None and bars:
            yield Verdict(
                model,
                ratio,
                (mean(own.ln_perplexity), min(mean(bar.ln_perplexity) for bar in bars)),
                (mean(own.accuracy), min(mean(bar.accuracy) for bar in bars)),
            )


def frontier(found: Sequence[Standing]) -> Chart:
    """A panel a model: accuracy lost against ln perplexity lost, the mean over seeds of every method and ratio."""
    panels = []
    for model in dict.fromkeys(one.model for one in found):
        own = [one for one in found if one.model == model]
        series = tuple(
            Series(
                method,
                strategy_of(method.partition("+")[0]),
                tuple(Point(mean(o.ln_perplexity), mean(o.accuracy)) for o in own if o.method == method),
                marker_of(method.partition("+")[0]),
            )
            for method in dict.fromkeys(one.method for one in own)
        )
        panels.append(Panel(model, model, series, "ln perplexity lost", "mean accuracy lost, points"))
    return Chart("arena", "What every method loses", "Below and to the left is better.", tuple(panels))


def page(found: Sequence[Standing], method: str, benchmarks: Sequence[str], runs: Sequence[Path], out: Path) -> str:
    """The page's Markdown, its figure beside it."""
    seeds = max(len(one.ln_perplexity) for one in found)
    command = f"python -m prunelab.report.arena {' '.join(map(str, runs))} --out {out}"
    lines = [
        "# The arena: every method on equal footing",
        "",
        f"Made by `{command}` from the run of `configs/arena.yaml`. Every method has the same budget, the same "
        f"calibration text ({seeds} draws) and the same items, which calibration never saw: "
        f"{', '.join(f'`{name}`' for name in benchmarks)}. Losses are differences from the whole model: of ln "
        "perplexity, and of the mean accuracy in points. ± is the sample deviation over draws.",
        "",
        f"![What every method loses]({out.with_suffix('.svg').name})",
        "",
        f"## The aim: `{method}` loses at most half of what the better of `shortgpt` and `flap` loses",
        "",
        "| model | ratio | ln perplexity lost | the better one's | accuracy lost | the better one's | met |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in verdicts(found, method):
        figures = " | ".join(f"{loss:.3f}" for loss in one.ln_perplexity)
        figures += "".join(f" | {loss:.1f}" for loss in one.accuracy)
        lines.append(f"| {one.model} | {one.ratio:.0%} | {figures} | {'yes' if one.is_met else 'no'} |")
    for model in dict.fromkeys(one.model for one in found):
        lines += ["", f"## {model}", ""]
        lines.append("| ratio | method | removed | ln perplexity lost | accuracy lost | decoding speed |")
        lines.append("|---|---|---|---|---|---|")
        own = sorted((o for o in found if o.model == model), key=lambda o: (o.ratio, mean(o.ln_perplexity)))
        lines += [
            f"| {o.ratio:.0%} | `{o.method}` | {o.achieved:.1%} | {_spread(o.ln_perplexity, 3)} | "
            f"{_spread(o.accuracy, 1)} | {_spread(o.speed, 2)}{'x' if o.speed else ''} |"
            for o in own
        ]
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return ""
    middle = f"{mean(values):.{digits}f}"
    return f"{middle} ± {stdev(values):.{digits}f}" if len(values) > 1 else middle


def write_arena(runs: Sequence[Path], out: Path, method: str = "auto") -> None:
    """Write the page, and its figure beside it.

    Args:
        runs: folders of finished studies.
        out: the Markdown file.
        method: the one that was fixed beforehand.

    Raises:
        InvalidRequest: a folder holds no finished run, or figures are missing.
    """
    measurements = [m for folder in runs for m in load_run(folder).measurements]
    found = standings(measurements)
    if not found:
        raise InvalidRequest(f"{runs[0]} holds no pruned model's figures: give the folder of a finished study")
    benchmarks = list(dict.fromkeys(m.benchmark for m in measurements if m.benchmark != "throughput"))
    write_text(out, page(found, method, benchmarks, runs, out))
    with written_file(out.with_suffix(".svg")) as aside, rc_context({"svg.hashsalt": "arena"}):
        draw(frontier(found)).savefig(aside, format="svg", metadata={"Date": None})


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/arena.md"))
    parser.add_argument("--method", default="auto", help="the one that was fixed beforehand")
    given = parser.parse_args()
    try:
        write_arena(given.runs, given.out, given.method)
    except PrunelabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
