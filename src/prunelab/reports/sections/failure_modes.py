"""Failure modes of generation: programs that do not compile, answers that cannot be parsed, repeated text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from statistics import mean
from typing import TYPE_CHECKING

from prunelab.evaluation.benchmarks.humaneval import HumanEval
from prunelab.evaluation.metrics.repetition import repeats_itself
from prunelab.reports.columns import Column
from prunelab.reports.elements import Row, Section, TableCell, TableData
from prunelab.reports.grid import ReportCut, Study

if TYPE_CHECKING:
    import pandas as pd

PROGRAMS = {"tampered": "tampers with its test", "syntax_error": "does not compile", "timed_out": "does not end"}
UNREADABLE, REPEATS = "cannot be read", "repeats itself"
NO_ANSWER = "[invalid]"
"""The value that lm-eval's filters return for a text without an answer."""
Failing = tuple[Column, str]
"""A benchmark's column and a failure mode."""


def section(study: Study) -> Section | None:
    """One row per cut, one column per benchmark and failure mode."""
    values_by_cut: dict[ReportCut, dict[Failing, list[float]]] = defaultdict(lambda: defaultdict(list))
    for measured in study.run.measured:
        m, column = measured.primary, Column.of(measured.primary)
        values = values_by_cut[ReportCut(m.model, m.method, m.ratio)]
        shares = {x.metric: x.value for x in measured.measurements if not x.group}
        for metric, words in {**PROGRAMS, "unparseable": UNREADABLE, "repeats": REPEATS}.items():
            if metric in shares:
                values[column, words].append(shares[metric])
        if column.benchmark != HumanEval.name:
            for words, share in _of_records(measured.samples).items():
                if (column, words) not in values or words == REPEATS:
                    values[column, words].append(share)
    failings = list(dict.fromkeys(failing for values in values_by_cut.values() for failing in values))
    if not failings:
        return None
    cuts = [cut for cut in study.grid.sorted_cuts if values_by_cut.get(cut)]
    rows = tuple(
        Row(
            (
                TableCell(cut.model),
                TableCell(cut.label),
                *(_cell(values_by_cut, cut, failing) for failing in failings),
            ),
            cut.model,
            cut.is_baseline,
            cut.strategy,
        )
        for cut in cuts
    )
    columns = ("model", "cut", *(f"{column.title.split(',')[0]}: {words}" for column, words in failings))
    caption = "Share of generated texts, shaded by the increase over the dense model"
    sheet = TableData("breakage", caption, columns, rows, heading=1)
    lead = (
        "A text repeats itself if the four words before its last word occur in it four times. Truncated programs often "
        "do not compile. An answer cannot be read if the benchmark's extraction rule finds none in the text."
    )
    return Section("breakage", "Failure modes of generation", lead, (sheet,), "Failure modes")


def _of_records(records: pd.DataFrame | None) -> dict[str, float]:
    """Each failure mode's share of a benchmark's texts; empty if there are no texts."""
    if records is None or "text" not in records or not len(records):
        return {}
    texts = records["text"].astype(str)
    repeats = records["repeats"] if "repeats" in records else texts.map(repeats_itself)
    shares = {}
    if "unparseable" in records:
        shares[UNREADABLE] = float(records["unparseable"].mean())
    elif "prediction" in records:
        shares[UNREADABLE] = float((records["prediction"].astype(str) == NO_ANSWER).mean())
    return {**shares, REPEATS: float(repeats.mean())}


def _cell(
    values_by_cut: Mapping[ReportCut, Mapping[Failing, list[float]]], cut: ReportCut, failing: Failing
) -> TableCell:
    values, dense = (
        values_by_cut.get(cell_cut, {}).get(failing) for cell_cut in (cut, ReportCut(cut.model, "dense", 0.0))
    )
    if not values:
        return TableCell("–")
    share = mean(values)
    return TableCell(f"{share:.1%}", share, heat=max(-1.0, min(mean(dense) - share, 1.0)) if dense else None)
