"""Generate a page that compares methods, from the run of a study with several calibration seeds.

    python -m tools.arena.page RUN ... --out docs/arena.md --times TIMES.csv

Losses are differences from the dense model of the same run: the increase of ln perplexity, and the decrease of the mean
accuracy over the run's accuracy benchmarks. Spreads are sample standard deviations over seeds.
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


def frontier(cuts: Sequence[Standing], method: str) -> Chart:
    """One row per model, one panel per measure: mean loss by removed share; the smallest loss is dashed."""
    models = list(dict.fromkeys(standing.model for standing in cuts))
    measures: dict[str, Lost] = {
        "ln perplexity lost": lambda standing: standing.ln_perplexity,
        "accuracy lost, points": lambda standing: standing.accuracy,
    }
    panels = []
    for model in models:
        for name, lost in measures.items():
            standings_of_model = [standing for standing in cuts if standing.model == model and lost(standing)]
            if standings_of_model:
                series = _lines(standings_of_model, lost, (*RIVALS, method))
                panels.append(Panel(model, model, series, "removed share of block weights, %", name))
    caption = "Lower is better. Means over draws of the calibration text."
    return Chart("arena", "Loss of each method", caption, tuple(panels), across=len(measures))


def _lines(standings_of_model: Sequence[Standing], lost: Lost, named: Sequence[str]) -> tuple[Series, ...]:
    """One model's series: the named methods highlighted on top of the others, and the smallest loss at each ratio."""
    by_method = {
        standing.method: [o for o in standings_of_model if o.method == standing.method]
        for standing in standings_of_model
    }
    series = [
        _line(method, by_method[method], lost) if method in named else _other(by_method[method], lost)
        for method in sorted(by_method, key=lambda method: method in named)
    ]
    ratios = sorted({standing.ratio for standing in standings_of_model})
    best = [min((o for o in standings_of_model if o.ratio == ratio), key=lambda o: mean(lost(o))) for ratio in ratios]
    return (*series, replace(_other(best, lost), name="smallest loss", dashed=True, tint="other"))


def _line(method: str, standings_of_method: Sequence[Standing], lost: Lost) -> Series:
    """One method's losses, starting at the dense model."""
    points = [
        Point(100 * standing.achieved, mean(lost(standing)))
        for standing in sorted(standings_of_method, key=lambda standing: standing.ratio)
    ]
    base = method.partition("+")[0]
    return Series(method, strategy_of(base), (Point(0, 0), *points), marker_of(base))


def _other(standings_of_method: Sequence[Standing], lost: Lost) -> Series:
    return replace(_line("", standings_of_method, lost), name="another method", tint="pale", marker="none")


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
    """The page's Markdown, which refers to a figure of the same name.

    Args:
        found: the losses of every cut.
        method: the method under test, fixed in advance.
        benchmarks: the measured benchmarks with their numbers of items.
        command: the command that generates the page.
        out: the page's path.
        times: cost of pruning, by method.
        speeds: decoding speedup and its spread, by model, method and ratio.
        others: the rivals calibrated on other text, by the text's name.
        notes: additional Markdown, placed after the target.
        sizes: runs that differ in the number of calibration samples.
    """
    seeds = max(len(one.ln_perplexity) for one in found)
    lines = [
        "# Comparison of all methods",
        "",
        f"Generated by `{command}` from the run of `configs/arena.yaml`.",
        "",
        "All methods have the same budget (methods that remove entire blocks or sublayers come within half of the "
        f"largest one), the same calibration text ({seeds} draws) and the same test items or windows, which are not "
        f"in the calibration text: {', '.join(f'`{name}` ({count})' for name, count in benchmarks.items())}. Losses "
        "are differences from the dense model: the increase of ln perplexity, and the decrease of the mean accuracy in "
        "points. ± is the sample standard deviation over draws.",
        "",
        *_aim(list(verdicts(found, method)), method),
        *(line for name, own in (others or {}).items() for line in _against(found, method, name, own)),
        *(["", notes.strip()] if notes else []),
        "",
        f"![Loss of each method by removed share]({out.with_suffix('.svg').name})",
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


def _aim(results: Sequence[Verdict], method: str) -> list[str]:
    """The section on the target: first the result in one sentence."""
    return [
        f"## Target: `{method}` loses at most half of what the better of `shortgpt` and `flap` loses",
        "",
        *_judged(results),
    ]


def _against(found: Sequence[Standing], method: str, corpus: str, others: Sequence[Standing]) -> list[str]:
    """The target against rivals that were calibrated on other text."""
    return [
        "",
        f"The rivals may do better with another calibration text. With both calibrated on `{corpus}` and `{method}` as "
        "before:",
        "",
        *_judged(list(verdicts(found, method, others))),
    ]


def _judged(results: Sequence[Verdict]) -> list[str]:
    met = sum(verdict.is_met for verdict in results)
    lines = [
        f"Met in {met} of {len(results)} combinations of model and ratio."
        + "".join(f" Missed: {_place(verdict)}." for verdict in results if not verdict.is_met),
        "",
        "| model | ratio | ln perplexity increase | of the better rival | accuracy loss, points | of the better rival "
        "| met |",
        "|---|---|---|---|---|---|---|",
    ]
    for verdict in results:
        bar = verdict.ln_perplexity_bar
        cells = [spread(verdict.own.ln_perplexity, 4), f"{spread(bar.ln_perplexity, 4)} (`{bar.method}`)"]
        if verdict.accuracy_bar is not None:
            bar = verdict.accuracy_bar
            cells += [spread(verdict.own.accuracy, 2), f"{spread(bar.accuracy, 2)} (`{bar.method}`)"]
        else:
            cells += ["", ""]
        lines.append(
            f"| {verdict.own.model} | {verdict.own.ratio:.0%} | {' | '.join(cells)} "
            f"| {'yes' if verdict.is_met else 'no'} |"
        )
    return lines


def _place(verdict: Verdict) -> str:
    """Model and ratio at which the target was missed, and by how much."""
    misses = []
    for name, pair, digits in (("ln perplexity", verdict.ln_perplexity, 4), ("accuracy", verdict.accuracy, 2)):
        if pair and name in verdict.missed:
            misses.append(f"{name} loss {pair[0]:.{digits}f}, allowed {SHARE * max(pair[1], 0.0):.{digits}f}")
    return f"{verdict.own.model} at {verdict.own.ratio:.0%} ({'; '.join(misses)})"


def _table(
    standings_of_model: Sequence[Standing], speeds: Mapping[tuple[str, str, float], tuple[float, float]]
) -> list[str]:
    """All methods at all ratios, by ascending loss of ln perplexity, without empty columns."""

    def speed(of: Standing) -> str:
        entry = speeds.get((of.model, of.method, of.ratio))
        return "" if entry is None else f"{entry[0]:.2f} ± {entry[1]:.2f}"

    columns: dict[str, Callable[[Standing], str]] = {
        "ratio": lambda o: f"{o.ratio:.0%}",
        "method": lambda o: f"`{o.method}`",
        "removed": lambda o: f"{o.achieved:.1%}",
        "ln perplexity increase": lambda o: spread(o.ln_perplexity, 4),
        "accuracy loss, points": lambda o: spread(o.accuracy, 2),
        "speedup": speed,
    }
    ordered = sorted(standings_of_model, key=lambda o: (o.ratio, mean(o.ln_perplexity)))
    shown = {
        name: formatted
        for name, formatted in columns.items()
        if any(formatted(standing) for standing in standings_of_model)
    }
    return [
        f"| {' | '.join(shown)} |",
        f"|{'---|' * len(shown)}",
        *(
            f"| {' | '.join(formatted(standing) or 'not measured' for formatted in shown.values())} |"
            for standing in ordered
        ),
    ]


def _costs(times: Mapping[str, Time]) -> list[str]:
    """The cost of pruning, cheapest method first."""
    ordered = sorted(times.items(), key=lambda item: item[1].passes)
    return [
        "## Cost of pruning",
        "",
        "Cost of calibration, planning and pruning, each method on its own, in calibration passes and in seconds "
        "(pocket-llama at 20 %, one thread, processor time: `python timing/methods_cost.py --out FILE`). In a study, "
        "all ratios share the measurements of a search.",
        "",
        "| method | calibration passes | seconds |",
        "|---|---|---|",
        *(f"| `{name}` | {item.passes:.1f} ± {item.spread:.1f} | {item.seconds:.1f} |" for name, item in ordered),
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
    """Write the page, and its figure in the same folder.

    Args:
        runs: folders of finished studies.
        out: the Markdown file.
        method: the method under test, fixed in advance.
        times: output file of `timing/methods_cost.py`.
        speeds: output file of `timing/arena_speed.py`.
        rivals: runs in which the rivals were calibrated on other text.
        notes: a Markdown file to insert into the page.
        sizes: runs that differ in the number of calibration samples.

    Raises:
        InvalidRequest: a folder holds no finished run, or measurements are missing.
    """
    measurements = [m for folder in runs for m in load_run(folder).measurements]
    cuts = standings(measurements)
    if not cuts:
        raise InvalidRequest(f"{runs[0]} holds no measurements of pruned models: give the folder of a finished study")
    benchmarks = {m.benchmark: m.n for m in measurements if m.primary and m.benchmark != "throughput"}
    rival_cuts = {run.config.calibration.corpus: standings(run.measurements) for run in map(load_run, rivals)}
    costs = read_times(times) if times else None
    fast = read_speeds(speeds) if speeds else None
    given = {"--times": times, "--speeds": speeds, "--notes": notes, "--out": out}
    options = {"--rivals": rivals, "--sizes": sizes, **{name: [path] for name, path in given.items() if path}}
    option_words = "".join(f" {name} {' '.join(map(str, paths))}" for name, paths in options.items() if paths)
    command = f"python -m tools.arena.page {' '.join(map(str, runs))}{option_words}"
    compared = [load_run(folder) for folder in sizes]
    write_text(out, page(cuts, method, benchmarks, command, out, costs, fast, rival_cuts, _read(notes), compared))
    with atomic_file(out.with_suffix(".svg")) as aside, rc_context({"svg.hashsalt": "arena"}):
        draw(frontier(cuts, method)).savefig(aside, format="svg", metadata={"Date": None})


def _read(notes: Path | None) -> str:
    try:
        return "" if notes is None else notes.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{notes} cannot be read ({error}): give a Markdown file") from None


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/arena.md"))
    parser.add_argument("--method", default="auto", help="the method under test, fixed in advance")
    parser.add_argument("--rivals", nargs="*", type=Path, default=[], help="runs with other calibration text")
    parser.add_argument("--sizes", nargs="*", type=Path, default=[], help="runs with other numbers of samples")
    parser.add_argument("--notes", type=Path, help="a Markdown file to insert into the page")
    parser.add_argument("--times", type=Path, help="output file of timing/methods_cost.py")
    parser.add_argument("--speeds", type=Path, help="output file of timing/arena_speed.py")
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
