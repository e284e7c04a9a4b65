"""Table 3: what is left of a model that sees, with the paper's figures beside."""

from __future__ import annotations

from typing import get_args

from prunelab.paper import Strategy, Table, paper_note, paper_rows
from prunelab.report.grid import Cut, Study
from prunelab.report.parts import Cell, Row, Section, Sheet
from prunelab.results import Measurement

BENCHMARKS: tuple[Table, ...] = ("pope", "textvqa", "mmmu")
TITLES = {"pope": "POPE", "textvqa": "TextVQA", "mmmu": "MMMU"}
PAPER = "Idefics3-8B"


def section(study: Study) -> Section | None:
    """The cuts of every model that was shown pictures, beside the paper's cuts of the same kind and ratio."""
    found: dict[tuple[Cut, str], Measurement] = {}
    for m in study.run.measurements:
        if m.benchmark in BENCHMARKS and m.primary:
            found.setdefault((Cut(m.model, m.method, m.ratio), m.benchmark), m)
    cuts = [cut for cut in study.grid.sorted_cuts if any((cut, name) in found for name in BENCHMARKS)]
    if not cuts:
        return None
    columns = ("model", "cut", *(f"{TITLES[b]}{who}" for b in BENCHMARKS for who in ("", f" ({PAPER})")))
    rows = [
        Row(
            (
                Cell(cut.model),
                Cell(cut.label),
                *(cell for b in BENCHMARKS for cell in (_ours(found.get((cut, b))), _papers(b, cut))),
            ),
            cut.model,
            cut.is_baseline,
            cut.strategy,
        )
        for cut in cuts
    ]
    lead = (
        "In percent: POPE's accuracy over its three categories, TextVQA's soft accuracy, MMMU's accuracy. Beside them "
        f"the paper's Table 3, of another model and other data unless this is {PAPER}: compare directions. "
        f"{paper_note('pope')}"
    )
    sheet = Sheet("multimodal", "POPE, TextVQA and MMMU, with the paper's figures", columns, tuple(rows), 1)
    return Section("multimodal", "Models that see", lead, (sheet,), "Seeing")


def _ours(m: Measurement | None) -> Cell:
    if m is None:
        return Cell("–")
    error = "" if m.standard_error is None else f"± {100 * m.standard_error:.1f}, "
    return Cell(f"{100 * m.value:.1f}", m.value, f"{error}n = {m.n}")


def _papers(benchmark: Table, cut: Cut) -> Cell:
    """The paper's figure for a cut of this kind and ratio, whichever model is cut here."""
    strategy = "baseline" if cut.is_dense else cut.strategy
    if strategy not in get_args(Strategy) or cut.is_baseline:
        return Cell("–")
    for row in paper_rows(benchmark):
        if (row.strategy, round(100 * row.ratio)) == (strategy, round(100 * cut.ratio)):
            return Cell(f"{row.value:.2f}", row.value / 100)
    return Cell("–")
