"""How it was made: what to know before believing it, and to make it again."""

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
    """Failures first, then versions, calibration, seeds, the command and the time of every cell."""
    parts: list[Part] = []
    if study.run.failures:
        lines = tuple(f"{f.cell}: {f.error.strip().splitlines()[-1]}" for f in study.run.failures if f.error.strip())
        parts.append(Listing("What failed", lines))
    parts += [_facts(study), Prose("The same again, keeping what is whole:"), Code(_command(study))]
    if study.grid.cuts:
        parts += [_time(study), _cells(study)]
    lead = (
        "results.csv holds every figure, plans/ what each cut kept, study.yaml the configuration, and report/tables/ "
        "and report/figures/ what this page shows."
    )
    return Section("made", "How it was made", lead, tuple(parts), "How")


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
        f"{calibration.held_out} more held out to choose the hybrid's split",
        "seeds": f"{', '.join(map(str, config.seeds))}"
        + (", each with calibration text of its own" if config.vary_calibration else ""),
        "documents a benchmark": "all" if config.limit is None else f"the first {config.limit}",
        "perplexity windows": f"{config.window} tokens, or the model's context where that is shorter",
    }
    if any(details.get("shots_from_validation") for details in of_figures):
        rows["shots"] = "of benchmarks without a train split drawn from validation, the scored item left out"
    same = _same(study.run.measurements)
    if same:
        rows["the same model, measured once"] = "; ".join(same)
    pruning = {name: value for name, value in config.pruning.model_dump().items() if value != "auto"}
    rows["pruning"] = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in pruning.items())
    made = tuple(Row((TableCell(name), TableCell(text))) for name, text in rows.items())
    return TableData("how_it_was_made", "The conditions of this run", ("what", "how"), made)


def _same(measurements: Iterable[Measurement]) -> list[str]:
    """Cuts of different names that arrived at the same model."""
    named: dict[tuple[str, str | None], dict[str, None]] = defaultdict(dict)
    for m in measurements:
        if m.plan is not None:
            seed = f" seed {m.seed}" if m.seed else ""
            named[m.model, m.plan][f"{m.method} {m.ratio:.0%}{seed}"] = None
    return [f"{model}: {' = '.join(names)}" for (model, _), names in named.items() if len(names) > 1]


def _once(values: Iterable[object]) -> str:
    """What the figures say, each answer once."""
    found = dict.fromkeys(str(value) for value in values if value is not None)
    return ", ".join(found) if found else "unknown"


def _time(study: Study) -> TableData:
    seconds: dict[ReportCut, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for one in study.run.measured:
        m = one.primary
        seconds[ReportCut(m.model, m.method, m.ratio)][m.benchmark] += m.seconds or 0.0
    benchmarks = list(dict.fromkeys(column.benchmark for column in study.grid.columns))
    rows = []
    for cut in study.grid.sorted_cuts:
        own = seconds[cut]
        times = [sum(own.values()), *(own.get(name) for name in benchmarks)]
        cells = tuple(TableCell("–") if t is None else TableCell(f"{t:.1f}", t) for t in times)
        rows.append(Row((TableCell(cut.model), TableCell(cut.label), *cells), cut.model, cut.is_baseline, cut.strategy))
    total = sum(sum(own.values()) for own in seconds.values())
    caption = f"Seconds of evaluation, all seeds of a cut together; {total / 3600:.2f} hours in all"
    return TableData("seconds", caption, ("model", "cut", "all", *benchmarks), tuple(rows), heading=1, folded=True)


def _cells(study: Study) -> TableData:
    """Every pruned cell's plan, size, time and command."""
    found: dict[MeasuredCut, tuple[Measurement, list[float]]] = {}
    for one in study.run.measured:
        m = one.primary
        if m.method != "dense":
            cut = MeasuredCut(m.model, m.method, m.ratio, m.achieved_ratio, m.seed)
            found.setdefault(cut, (m, []))[1].append(m.seconds or 0.0)
    rows = []
    for cut, (first, seconds) in found.items():
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
    caption = "Every cell: what it removes of the blocks and of the whole model, what it took, its plan and its command"
    columns = ("model", "cut", "seed", "of the blocks", "of the model", "seconds", "plan", "command")
    return TableData("cells", caption, columns, tuple(rows), heading=1, folded=True)
