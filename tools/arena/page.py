"""The arena: from the run of a study with several calibration seeds to one page that compares its methods.

    python -m tools.arena.page RUN ... --out docs/arena.md --times TIMES.csv

Losses are differences from the dense model of the same run: ln perplexity above its own, and mean accuracy (over the
benchmarks of right and wrong answers that the run holds) below its own. Spreads are sample deviations over seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

from matplotlib import rc_context

from prunelab.errors import InvalidRequest, PrunelabError
from prunelab.errors.text import one_line
from prunelab.io.atomic_write import atomic_file, write_text
from prunelab.reports.chart import Chart, Panel, Point, Series
from prunelab.reports.columns import marker_of, strategy_of
from prunelab.reports.figures.files import draw
from prunelab.studies.run import Run, load_run
from tools.arena.calibration_size import calibration_size
from tools.arena.standings import (
    RIVALS,
    SHARE,
    Lost,
    Standing,
    Time,
    Verdict,
    read_speeds,
    read_times,
    spread,
    standings,
    verdicts,
)

SPEEDS = (
    "Speedup: decoding speed at batch size 1 relative to the dense model, measured alternately; the median over rounds "
    "and half the interquartile range (`python timing/arena_speed.py RUN --out FILE`: eager, one thread, processor "
    "time, the first draw's pruned model)."
)


def frontier(found: Sequence[Standing], method: str) -> Chart:
    """A row a model, a panel a measure: what is lost by the share removed, means over draws; the least one dashed."""
    models = list(dict.fromkeys(one.model for one in found))
    measures: dict[str, Lost] = {
        "ln perplexity lost": lambda one: one.ln_perplexity,
        "accuracy lost, points": lambda one: one.accuracy,
    }
    panels = []
    for model in models:
        for name, lost in measures.items():
            own = [one for one in found if one.model == model and lost(one)]
            if own:
                series = _lines(own, lost, (*RIVALS, method))
                panels.append(Panel(model, model, series, "removed share of the blocks' weights, %", name))
    caption = "Lower is better. Means over draws of the calibration text."
    return Chart("arena", "What every method loses", caption, tuple(panels), across=len(measures))


def _lines(own: Sequence[Standing], lost: Lost, named: Sequence[str]) -> tuple[Series, ...]:
    """Of one model: those named stand out and lie above the others; the least loss at each ratio."""
    by_method = {one.method: [o for o in own if o.method == one.method] for one in own}
    series = [
        _line(method, by_method[method], lost) if method in named else _other(by_method[method], lost)
        for method in sorted(by_method, key=lambda method: method in named)
    ]
    ratios = sorted({one.ratio for one in own})
    best = [min((o for o in own if o.ratio == ratio), key=lambda o: mean(lost(o))) for ratio in ratios]
    return (*series, replace(_other(best, lost), name="least of all", dashed=True, tint="other"))


def _line(method: str, own: Sequence[Standing], lost: Lost) -> Series:
    """One method's losses, from the whole model on."""
    points = [Point(100 * one.achieved, mean(lost(one))) for one in sorted(own, key=lambda one: one.ratio)]
    base = method.partition("+")[0]
    return Series(method, strategy_of(base), (Point(0, 0), *points), marker_of(base))


def _other(own: Sequence[Standing], lost: Lost) -> Series:
    return replace(_line("", own, lost), name="another method", tint="pale", marker="none")


def page(
    found: Sequence[Standing],
    method: str,
    benchmarks: Mapping[str, int],
    command: str,
    out: Path,
    times: Mapping[str, Time] | None = None,
    speeds: Mapping[tuple[str, str, float], tuple[float, float]] | None = None,
    others: Mapping[str, Sequence[Standing]] | None = None,
    notes: str = "",
    sizes: Sequence[Run] = (),
) -> str:
    """The page's Markdown, its figure beside it.

    Args:
        found: what every cut lost.
        method: the one that was fixed beforehand.
        benchmarks: what was measured, and on how many items.
        command: what makes the page.
        out: the page's path.
        times: what cuts cost, by method.
        speeds: how many times as fast cuts decode, and the spread, by model, method and ratio.
        others: the rivals once more, calibrated on another text, by its name.
        notes: Markdown that no run can tell, behind what is said of the aim.
        sizes: runs that differ in the number of calibration samples.
    """
    seeds = max(len(one.ln_perplexity) for one in found)
    lines = [
        "# Comparison of all methods",
        "",
        f"Made by `{command}` from the run of `configs/arena.yaml`.",
        "",
        "All methods have the same budget (methods that remove whole blocks or sublayers come within half of the "
        f"largest one), the same calibration text ({seeds} draws) and the same test items or windows, which are not "
        f"in the calibration text: {', '.join(f'`{name}` ({count})' for name, count in benchmarks.items())}. Losses "
        "are differences from the dense model: the increase of ln perplexity, and the decrease of the mean accuracy in "
        "points. ± is the sample standard deviation over draws.",
        "",
        *_aim(list(verdicts(found, method)), method),
        *(line for name, own in (others or {}).items() for line in _against(found, method, name, own)),
        *(["", notes.strip()] if notes else []),
        "",
        f"![What every method loses, by the share removed]({out.with_suffix('.svg').name})",
        "",
        "Grey lines are the other methods; the dashed line is the smallest loss of any method.",
    ]
    for model in dict.fromkeys(one.model for one in found):
        lines += ["", f"## {model}", "", *_table([one for one in found if one.model == model], speeds or {})]
    if speeds:
        lines += ["", SPEEDS]
    if sizes:
        lines += ["", *calibration_size(sizes)]
    if times:
        lines += ["", *_costs(times)]
    return "\n".join(lines) + "\n"


def _aim(found: Sequence[Verdict], method: str) -> list[str]:
    """Whether the aim is met, first in a sentence."""
    return [
        f"## Target: `{method}` loses at most half of what the better of `shortgpt` and `flap` loses",
        "",
        *_judged(found),
    ]


def _against(found: Sequence[Standing], method: str, corpus: str, others: Sequence[Standing]) -> list[str]:
    """The same against rivals that were calibrated on another text."""
    return [
        "",
        f"The rivals may do better with another calibration text. With both calibrated on `{corpus}` and `{method}` as "
        "before:",
        "",
        *_judged(list(verdicts(found, method, others))),
    ]


def _judged(found: Sequence[Verdict]) -> list[str]:
    met = sum(one.is_met for one in found)
    lines = [
        f"Met in {met} of {len(found)} combinations of model and ratio."
        + "".join(f" Missed: {_place(one)}." for one in found if not one.is_met),
        "",
        "| model | ratio | ln perplexity increase | of the better rival | accuracy loss, points | of the better rival "
        "| met |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        bar = one.ln_perplexity_bar
        cells = [spread(one.own.ln_perplexity, 4), f"{spread(bar.ln_perplexity, 4)} (`{bar.method}`)"]
        if one.accuracy_bar is not None:
            bar = one.accuracy_bar
            cells += [spread(one.own.accuracy, 2), f"{spread(bar.accuracy, 2)} (`{bar.method}`)"]
        else:
            cells += ["", ""]
        lines.append(
            f"| {one.own.model} | {one.own.ratio:.0%} | {' | '.join(cells)} | {'yes' if one.is_met else 'no'} |"
        )
    return lines


def _place(verdict: Verdict) -> str:
    """Where and by how much the aim was missed."""
    said = []
    for name, pair, digits in (("ln perplexity", verdict.ln_perplexity, 4), ("accuracy", verdict.accuracy, 2)):
        if pair and name in verdict.missed:
            said.append(f"{name} loss {pair[0]:.{digits}f}, allowed {SHARE * max(pair[1], 0.0):.{digits}f}")
    return f"{verdict.own.model} at {verdict.own.ratio:.0%} ({'; '.join(said)})"


def _table(own: Sequence[Standing], speeds: Mapping[tuple[str, str, float], tuple[float, float]]) -> list[str]:
    """Every method at every ratio, the least loss of ln perplexity first; without columns that are empty."""

    def speed(of: Standing) -> str:
        found = speeds.get((of.model, of.method, of.ratio))
        return "" if found is None else f"{found[0]:.2f} ± {found[1]:.2f}"

    columns: dict[str, Callable[[Standing], str]] = {
        "ratio": lambda o: f"{o.ratio:.0%}",
        "method": lambda o: f"`{o.method}`",
        "removed": lambda o: f"{o.achieved:.1%}",
        "ln perplexity increase": lambda o: spread(o.ln_perplexity, 4),
        "accuracy loss, points": lambda o: spread(o.accuracy, 2),
        "speedup": speed,
    }
    ordered = sorted(own, key=lambda o: (o.ratio, mean(o.ln_perplexity)))
    kept = {name: said for name, said in columns.items() if any(said(one) for one in own)}
    return [
        f"| {' | '.join(kept)} |",
        f"|{'---|' * len(kept)}",
        *(f"| {' | '.join(said(one) or 'not measured' for said in kept.values())} |" for one in ordered),
    ]


def _costs(times: Mapping[str, Time]) -> list[str]:
    """Seconds to prune, the cheapest first."""
    ordered = sorted(times.items(), key=lambda one: one[1].passes)
    return [
        "## What pruning costs",
        "",
        "Cost of calibration, planning and pruning, each method on its own, in calibration passes and in seconds "
        "(pocket-llama at 20 %, one thread, processor time: `python timing/methods_cost.py --out FILE`). In a study, "
        "all ratios share the measurements of a search.",
        "",
        "| method | calibration passes | seconds |",
        "|---|---|---|",
        *(f"| `{name}` | {one.passes:.1f} ± {one.spread:.1f} | {one.seconds:.1f} |" for name, one in ordered),
    ]


def write_arena(
    runs: Sequence[Path],
    out: Path,
    method: str = "auto",
    *,
    times: Path | None = None,
    speeds: Path | None = None,
    rivals: Sequence[Path] = (),
    notes: Path | None = None,
    sizes: Sequence[Path] = (),
) -> None:
    """Write the page, and its figure beside it.

    Args:
        runs: folders of finished studies.
        out: the Markdown file.
        method: the one that was fixed beforehand.
        times: what `timing/methods_cost.py` wrote.
        speeds: what `timing/arena_speed.py` wrote.
        rivals: runs in which the rivals were calibrated on another text.
        notes: a Markdown file whose text goes into the page.
        sizes: runs that differ in the number of calibration samples.

    Raises:
        InvalidRequest: a folder holds no finished run, or figures are missing.
    """
    measurements = [m for folder in runs for m in load_run(folder).measurements]
    found = standings(measurements)
    if not found:
        raise InvalidRequest(f"{runs[0]} holds no pruned model's figures: give the folder of a finished study")
    benchmarks = {m.benchmark: m.n for m in measurements if m.primary and m.benchmark != "throughput"}
    others = {run.config.calibration.corpus: standings(run.measurements) for run in map(load_run, rivals)}
    costs = read_times(times) if times else None
    fast = read_speeds(speeds) if speeds else None
    given = {"--times": times, "--speeds": speeds, "--notes": notes, "--out": out}
    options = {"--rivals": rivals, "--sizes": sizes, **{name: [path] for name, path in given.items() if path}}
    said = "".join(f" {name} {' '.join(map(str, paths))}" for name, paths in options.items() if paths)
    command = f"python -m tools.arena.page {' '.join(map(str, runs))}{said}"
    compared = [load_run(folder) for folder in sizes]
    write_text(out, page(found, method, benchmarks, command, out, costs, fast, others, _read(notes), compared))
    with atomic_file(out.with_suffix(".svg")) as aside, rc_context({"svg.hashsalt": "arena"}):
        draw(frontier(found, method)).savefig(aside, format="svg", metadata={"Date": None})


def _read(notes: Path | None) -> str:
    try:
        return "" if notes is None else notes.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{notes} cannot be read ({error}): give a Markdown file") from None


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/arena.md"))
    parser.add_argument("--method", default="auto", help="the one that was fixed beforehand")
    parser.add_argument("--rivals", nargs="*", type=Path, default=[], help="runs on other calibration text")
    parser.add_argument("--sizes", nargs="*", type=Path, default=[], help="runs on other numbers of samples")
    parser.add_argument("--notes", type=Path, help="a Markdown file whose text goes into the page")
    parser.add_argument("--times", type=Path, help="what timing/methods_cost.py --out wrote")
    parser.add_argument("--speeds", type=Path, help="what timing/arena_speed.py --out wrote")
    given = parser.parse_args()
    try:
        write_arena(
            given.runs,
            given.out,
            given.method,
            times=given.times,
            speeds=given.speeds,
            rivals=given.rivals,
            notes=given.notes,
            sizes=given.sizes,
        )
    except PrunelabError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
