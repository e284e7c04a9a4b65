"""The table that everyone wants first: one row a cut, one column a benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from prunelab.comparison import Difference
from prunelab.results import Measurement


@dataclass(frozen=True)
class Table:
    """Columns and rows of text."""

    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """As Markdown."""
        lines = ["| " + " | ".join(self.columns) + " |", "|" + "|".join(["---"] * len(self.columns)) + "|"]
        return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in self.rows])


def main_table(measurements: Sequence[Measurement], differences: Sequence[Difference] = ()) -> Table:
    """Each model's cuts with every benchmark's primary figure.

    Cells that differ by their seed alone stand in one row: mean and sample standard deviation over the seeds. Speed is
    printed as a multiple of the dense model's, since seconds say something about a machine. An asterisk marks a change
    from the dense model that was seen (5 %, after Holm), where a row is one cell.
    """
    primary = [m for m in measurements if m.primary]
    seen = {_key(d.measurement) for d in differences if d.comparison.significant}
    columns = list(dict.fromkeys((m.benchmark, m.metric, m.shots) for m in primary))
    cuts = list(dict.fromkeys((m.model, m.method, m.ratio) for m in primary))
    rows = []
    for model, method, ratio in cuts:
        own = [m for m in primary if (m.model, m.method, m.ratio) == (model, method, ratio)]
        achieved = mean({m.seed: m.achieved_ratio for m in own}.values())
        dense = [m for m in primary if m.model == model and m.method == "dense"]
        row = [model, method, f"{ratio:.0%}", f"{achieved:.1%}", str(len({m.seed for m in own}))]
        rows.append(row + [_entry(own, dense, column, seen) for column in columns])
    names = [_heading(*column) for column in columns]
    return Table(["model", "method", "ratio", "achieved", "seeds", *names], rows)


Key = tuple[str, str, float, int | None, str, int | None]


def _key(m: Measurement) -> Key:
    return m.model, m.method, m.ratio, m.seed, m.benchmark, m.shots


def _heading(benchmark: str, metric: str, shots: int | None) -> str:
    return f"{benchmark}{'' if shots is None else f' {shots}-shot'} {_short(metric)}"


def _short(metric: str) -> str:
    return {"token_perplexity": "perplexity", "decode_tokens_per_second": "decode speed"}.get(metric, metric)


def _entry(
    own: Sequence[Measurement], dense: Sequence[Measurement], column: tuple[str, str, int | None], seen: set[Key]
) -> str:
    cells = [m for m in own if (m.benchmark, m.metric, m.shots) == column]
    values = [m.value for m in cells]
    if not values:
        return "–"
    if column[1] == "decode_tokens_per_second":
        base = next((m.value for m in dense if (m.benchmark, m.metric, m.shots) == column), math.nan)
        return f"{mean(values) / base:.2f}x"
    spread = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
    mark = "*" if len(cells) == 1 and _key(cells[0]) in seen else ""
    return f"{mean(values):.4g}{mark}{spread}"
