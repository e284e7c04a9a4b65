"""Figures of a run: SVG for the page, PNG for slides; the data are drawn as they are in the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from prunelab.benchmarks import find_benchmark
from prunelab.files import written_file
from prunelab.methods import methods
from prunelab.results import Measurement

# Colour-blind safe (Okabe and Ito 2008); baselines of a strategy are dashed.
COLOURS = {"depth": "#0072B2", "width": "#D55E00", "hybrid": "#009E73"}
MARKERS = "osD^vP*X"


def quality_by_ratio(measurements: Sequence[Measurement]) -> Figure:
    """Each benchmark's primary figure against the achieved ratio, one panel a model and benchmark, one line a method.

    Seeds of a random method are drawn as their mean with a band from the lowest to the highest. Perplexities are on a
    logarithmic axis, accuracies have the level of chance drawn in.
    """
    rows = [m for m in measurements if m.primary and not find_benchmark(m.benchmark).is_timing]
    panels = list(dict.fromkeys((m.model, m.benchmark, m.shots) for m in rows))
    figure = Figure(figsize=(5.2 * max(len(panels), 1), 3.9), layout="constrained")
    for index, (model, benchmark, shots) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        _panel(axes, [m for m in rows if (m.model, m.benchmark, m.shots) == (model, benchmark, shots)])
        axes.set_title(f"{model}: {benchmark}{'' if shots is None else f', {shots}-shot'}", fontsize=10)
        if index == 0 and axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, frameon=False)
    return figure


def _panel(axes: Axes, rows: Sequence[Measurement]) -> None:
    benchmark = find_benchmark(rows[0].benchmark)
    dense = [m.value for m in rows if m.method == "dense"]
    named = [name for name in methods if any(m.method == name for m in rows)]
    for marker, name in zip(MARKERS, named, strict=False):
        own = [m for m in rows if m.method == name]
        points = [(0.0, dense, 0.0)] if dense else []
        for ratio in sorted({m.ratio for m in own}):
            cell = [m for m in own if m.ratio == ratio]
            points.append((mean(m.achieved_ratio for m in cell), [m.value for m in cell], ratio))
        xs = [100 * point[0] for point in points]
        colour = COLOURS[methods[name].strategy]
        style = "--" if methods[name].source == "baseline" else "-"
        axes.plot(xs, [mean(p[1]) for p in points], style, marker=marker, ms=4, lw=1.3, color=colour, label=name)
        if methods[name].is_random:
            low, high = [min(p[1]) for p in points], [max(p[1]) for p in points]
            axes.fill_between(xs, low, high, color=colour, alpha=0.12, lw=0)
    if benchmark.chance is not None:
        axes.axhline(benchmark.chance, color="grey", lw=0.8, ls=":")
    if rows[0].metric.endswith("perplexity"):
        axes.set_yscale("log")
        for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            # 1, 2 and 5 of every decade: all would stand in each other's way.
            ticks(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "125" else ""))
        axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.set_xlabel("removed share of the blocks' weights, %")
    axes.set_ylabel(rows[0].metric.replace("_", " "))
    axes.spines[["top", "right"]].set_visible(False)


def write_figure(figure: Figure, stem: Path) -> None:
    """Write `stem.svg` and `stem.png`."""
    for kind in ("svg", "png"):
        with written_file(stem.with_suffix(f".{kind}")) as aside:
            figure.savefig(aside, format=kind, dpi=150)
