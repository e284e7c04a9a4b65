"""A table's rows as compact HTML: the report of a large study has tens of thousands of cells.

Optional end tags are omitted, a row's model is not repeated if its first cell holds it, and a cell's sort value is
written only if its text does not determine the order. The page's script handles the last two cases.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from prunelab.reports.elements import Row, TableCell, TableData

STEPS = 20
"""Number of shades in each direction; the style sheet has a class for each."""
DASH = "–"
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]\d+)?")


def table_rows(sheet: TableData) -> Markup:
    """The HTML of a table's body."""
    sortable_by_text = [_sorts_by_text(column) for column in zip(*(row.cells for row in sheet.rows), strict=True)]
    first_is_model = sheet.columns[0] == "model"
    return Markup("".join(_row(row, sheet.heading, sortable_by_text, first_is_model) for row in sheet.rows))


def text_columns(sheet: TableData) -> str:
    """CSS classes of the text columns, which are left-aligned: `t1 t4`."""
    return " ".join(f"t{place}" for place, numbers in enumerate(sheet.of_numbers, start=1) if not numbers)


def _sorts_by_text(column: Sequence[TableCell]) -> bool:
    """Whether the numbers at the start of the texts have the same order as the values."""
    shown = []
    for cell in column:
        match = _NUMBER.match(cell.text)
        if (match is None) != (cell.value is None):
            return False
        if match is not None and cell.value is not None:
            shown.append((cell.value, float(match[0])))
    shown.sort()
    return all(a[1] <= b[1] for a, b in itertools.pairwise(shown))


def _row(row: Row, heading: int, sortable_by_text: Sequence[bool], first_is_model: bool) -> str:
    model_is_shown = first_is_model and row.cells[0].text == row.model
    model = f' data-model="{escape(row.model)}"' if row.model and not model_is_shown else ""
    cells = [
        _named(cell, row.strategy) if place == heading else _cell(cell, sortable_by_text[place])
        for place, cell in enumerate(row.cells)
    ]
    return f"<tr{model}{' data-baseline' if row.baseline else ''}>{''.join(cells)}\n"


def _named(cell: TableCell, strategy: str) -> str:
    return f"<th scope=row{f' class=s-{strategy}' if strategy else ''}>{escape(cell.text)}"


def _cell(cell: TableCell, sortable_by_text: bool) -> str:
    value = "" if sortable_by_text or cell.value is None else f" data-v={cell.value:.6g}"
    tip = f' data-tip="{escape(cell.tip)}"' if cell.tip else ""
    shade = 0 if cell.heat is None else round(STEPS * abs(cell.heat))
    looks = ["d"] if cell.text == DASH else []
    looks += [f"{'n' if (cell.heat or 0) < 0 else 'p'}{shade}"] if shade and not looks else []
    text = escape(cell.text)
    if cell.mark in ("worse", "better"):
        looks.append(cell.mark)
    elif cell.mark:
        text = Markup('<span class="m-{}">{}</span>').format(cell.mark, text)
    classes = f' class="{" ".join(looks)}"' if len(looks) > 1 else f" class={looks[0]}" if looks else ""
    return f"<td{value}{tip}{classes}>{text}"
