"""How generation breaks: programs that do not compile, that do not end, that go round in circles."""

from __future__ import annotations

from prunelab.report.columns import number
from prunelab.report.grid import Cut, Study
from prunelab.report.parts import Cell, Row, Section, Sheet
from prunelab.results import Measurement

METRICS = {
    "pass@1": "pass@1",
    "pass@5": "pass@5",
    "syntax_error": "does not compile",
    "timed_out": "does not end",
    "repeats": "repeats itself",
}


def section(study: Study) -> Section | None:
    """HumanEval's shares, one row a cut."""
    found: dict[Cut, dict[str, list[Measurement]]] = {}
    for m in study.run.measurements:
        if m.benchmark == "humaneval" and m.metric in METRICS and not m.group:
            found.setdefault(Cut(m.model, m.method, m.ratio), {}).setdefault(m.metric, []).append(m)
    if not found:
        return None
    metrics = [name for name in METRICS if any(name in own for own in found.values())]
    cuts = [cut for cut in study.grid.sorted_cuts if cut in found]
    rows = tuple(
        Row(
            (Cell(cut.model), Cell(cut.label), *(_cell(found[cut].get(name)) for name in metrics)),
            cut.model,
            cut.is_baseline,
            cut.strategy,
        )
        for cut in cuts
    )
    columns = ("model", "cut", *(METRICS[name] for name in metrics))
    sheet = Sheet("programs", "HumanEval: how completions end, shares of them", columns, rows, heading=1)
    lead = "Shares of HumanEval's completions, mean over problems. A program that was cut off often does not compile."
    return Section("programs", "How generation breaks", lead, (sheet,))


def _cell(own: list[Measurement] | None) -> Cell:
    if not own:
        return Cell("–")
    value = sum(m.value for m in own) / len(own)
    error = own[0].standard_error if len(own) == 1 else None
    return Cell(f"{value:.1%}" + ("" if error is None else f" ± {number(100 * error, 2)}"), value)
