"""How generation breaks: programs that do not compile, answers that cannot be read, texts that go round in circles."""

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
"""What lm-eval's filters make of a text that holds no answer."""
Failing = tuple[Column, str]
"""A benchmark, and how its texts fail."""


def section(study: Study) -> Section | None:
    """One row a cut, one column a benchmark and way of failing."""
    found: dict[ReportCut, dict[Failing, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one in study.run.measured:
        m, column = one.primary, Column.of(one.primary)
        own = found[ReportCut(m.model, m.method, m.ratio)]
        shares = {x.metric: x.value for x in one.measurements if not x.group}
        for metric, words in {**PROGRAMS, "unparseable": UNREADABLE, "repeats": REPEATS}.items():
            if metric in shares:
                own[column, words].append(shares[metric])
        if column.benchmark != HumanEval.name:
            for words, share in _of_records(one.samples).items():
                if (column, words) not in own or words == REPEATS:
                    own[column, words].append(share)
    failings = list(dict.fromkeys(failing for own in found.values() for failing in own))
    if not failings:
        return None
    cuts = [cut for cut in study.grid.sorted_cuts if found.get(cut)]
    rows = tuple(
        Row(
            (
                TableCell(cut.model),
                TableCell(cut.label),
                *(_cell(found, cut, failing) for failing in failings),
            ),
            cut.model,
            cut.is_baseline,
            cut.strategy,
        )
        for cut in cuts
    )
    columns = ("model", "cut", *(f"{column.title.split(',')[0]}: {words}" for column, words in failings))
    caption = "Shares of what was written, shaded by the rise over the dense model"
    sheet = TableData("breakage", caption, columns, rows, heading=1)
    lead = (
        "A text repeats itself where the four words before its last one stand in it four times. A program that was cut "
        "off often does not compile; an answer cannot be read where the benchmark's rule finds none in it."
    )
    return Section("breakage", "How generation breaks", lead, (sheet,), "Breakage")


def _of_records(records: pd.DataFrame | None) -> dict[str, float]:
    """Shares of a benchmark's texts; nothing where it has none."""
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


def _cell(found: Mapping[ReportCut, Mapping[Failing, list[float]]], cut: ReportCut, failing: Failing) -> TableCell:
    own, dense = (found.get(one, {}).get(failing) for one in (cut, ReportCut(cut.model, "dense", 0.0)))
    if not own:
        return TableCell("–")
    share = mean(own)
    return TableCell(f"{share:.1%}", share, heat=max(-1.0, min(mean(dense) - share, 1.0)) if dense else None)
