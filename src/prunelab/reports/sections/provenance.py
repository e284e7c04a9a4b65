"""Provenance: failures, conditions and commands, to judge the results and to reproduce them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prunelab.analysis.claims.evidence import MeasuredCut
from prunelab.analysis.recommend.command import prune_command
from prunelab.reports.columns import is_baseline
from prunelab.reports.elements import Code, Listing, Part, Prose, Row, Section, TableCell, TableData
from prunelab.reports.grid import ReportCut, Study

if TYPE_CHECKING:
    from prunelab.studies.store import Measurement

VERSIONS = ("prunelab", "python", "torch", "transformers")


def section(study: Study) -> Section:
    """Failed cells first, then versions, calibration, seeds, the command, and the time of each cell."""
    parts: list[Part] = []
    if study.run.failures:
        lines = tuple(f"{f.cell}: {f.error.strip().splitlines()[-1]}" for f in study.run.failures if f.error.strip())
        parts.append(Listing("Failed cells", lines))
    parts += [_facts(study), Prose("To repeat the study, reusing complete cells:"), Code(_command(study))]
    if study.grid.cuts:
        parts += [_time(study), _cells(study)]
    lead = (
        "results.csv holds all metrics, plans/ the pruning plans, study.yaml the configuration, and report/tables/ and "
        "report/figures/ the tables and figures of this page."
    )
    return Section("made", "Provenance", lead, tuple(parts), "Provenance")


def _command(study: Study) -> str:
    folder = study.run.folder.name
    return f"prunelab study {folder}/study.yaml --out {folder}"


def _facts(study: Study) -> TableData:
    config = study.run.config
    of_figures = [m.details for m in study.run.measurements]
    calibration = config.calibration
    rows = {
        "versions": ", ".join(f"{name} {_once(details.get(name) for details in of_figures)}" for name in VERSIONS),
        "hardware": _once(details.get("hardware") for details in of_figures),
        "number format": _once(details.get("dtype") for details in of_figures),
        "calibration": f"{calibration.corpus}, {calibration.samples} samples of {calibration.sequence_length} tokens, "
        f"{calibration.held_out} more held out to choose the hybrid split",
        "seeds": f"{', '.join(map(str, config.seeds))}"
        + (", each with different calibration text" if config.vary_calibration else ""),
        "documents per benchmark": "all" if config.limit is None else f"the first {config.limit}",
        "perplexity windows": f"{config.window} tokens, or the model's context length if shorter",
    }
    if any(details.get("shots_from_validation") for details in of_figures):
        rows["shots"] = "drawn from the validation split for benchmarks without a train split, without the scored item"
    same = _same(study.run.measurements)
    if same:
        rows["duplicate cuts, measured once"] = "; ".join(same)
    pruning = {name: value for name, value in config.pruning.model_dump().items() if value != "auto"}
    rows["pruning"] = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in pruning.items())
    rows_of_table = tuple(Row((TableCell(name), TableCell(text))) for name, text in rows.items())
    return TableData("how_it_was_made", "Conditions of this run", ("what", "how"), rows_of_table)


def _same(measurements: Iterable[Measurement]) -> list[str]:
    """Duplicate cuts: different names for the same pruned model."""
    named: dict[tuple[str, str | None], dict[str, None]] = defaultdict(dict)
    for m in measurements:
        if m.plan is not None:
            seed = f" seed {m.seed}" if m.seed else ""
            named[m.model, m.plan][f"{m.method} {m.ratio:.0%}{seed}"] = None
    return [f"{model}: {' = '.join(names)}" for (model, _), names in named.items() if len(names) > 1]


def _once(values: Iterable[object]) -> str:
    """The distinct values, as text."""
    distinct = dict.fromkeys(str(value) for value in values if value is not None)
    return ", ".join(distinct) if distinct else "unknown"


def _time(study: Study) -> TableData:
    seconds: dict[ReportCut, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for measured in study.run.measured:
        m = measured.primary
        seconds[ReportCut(m.model, m.method, m.ratio)][m.benchmark] += m.seconds or 0.0
    benchmarks = list(dict.fromkeys(column.benchmark for column in study.grid.columns))
    rows = []
    for cut in study.grid.sorted_cuts:
        cut_seconds = seconds[cut]
        times = [sum(cut_seconds.values()), *(cut_seconds.get(name) for name in benchmarks)]
        cells = tuple(TableCell("–") if t is None else TableCell(f"{t:.1f}", t) for t in times)
        rows.append(Row((TableCell(cut.model), TableCell(cut.label), *cells), cut.model, cut.is_baseline, cut.strategy))
    total = sum(sum(cut_seconds.values()) for cut_seconds in seconds.values())
    caption = f"Evaluation time in seconds, summed over a cut's seeds; {total / 3600:.2f} hours in total"
    return TableData("seconds", caption, ("model", "cut", "all", *benchmarks), tuple(rows), heading=1, folded=True)


def _cells(study: Study) -> TableData:
    """Each pruned cell's size, time, plan and command."""
    by_cut: dict[MeasuredCut, tuple[Measurement, list[float]]] = {}
    for measured in study.run.measured:
        m = measured.primary
        if m.method != "dense":
            cut = MeasuredCut(m.model, m.method, m.ratio, m.achieved_ratio, m.seed)
            by_cut.setdefault(cut, (m, []))[1].append(m.seconds or 0.0)
    rows = []
    for cut, (first, seconds) in by_cut.items():
        plan, share = study.plans.get(first.plan or ""), first.details.get("share_of_model")
        cells = (
            TableCell(cut.model),
            TableCell(f"{cut.method} {cut.ratio:.0%}"),
            TableCell(str(cut.seed or 0), cut.seed or 0),
            TableCell(f"{cut.achieved_ratio:.1%}", cut.achieved_ratio),
            TableCell(f"{share:.1%}", share) if isinstance(share, float) else TableCell("–"),
            TableCell(f"{sum(seconds):.1f}", sum(seconds)),
            TableCell("–" if plan is None else plan.path.name),
            TableCell(prune_command(study.run, cut, plan)),
        )
        rows.append(Row(cells, cut.model, is_baseline(cut.method), cut.strategy))
    caption = "All cells: removed share of the blocks and of the model, evaluation time, plan and command"
    columns = ("model", "cut", "seed", "of the blocks", "of the model", "seconds", "plan", "command")
    return TableData("cells", caption, columns, tuple(rows), heading=1, folded=True)
