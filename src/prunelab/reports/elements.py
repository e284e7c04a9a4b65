"""What a section is made of; the page and the Markdown report each know how to show every part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from prunelab.reports.chart import Chart


@dataclass(frozen=True)
class TableCell:
    """One cell of a table.

    Attributes:
        text: what is read.
        value: what is sorted by and written as CSV; the text where there is none.
        tip: more, for those who point at it.
        heat: how much it is shaded, from -1 (worst) to 1.
        mark: `worse` or `better` where a change was seen.
    """

    text: str
    value: float | None = None
    tip: str = ""
    heat: float | None = None
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        cells: one a column.
        model: whose it is; empty for all.
        baseline: whether it is only there for comparison.
        strategy: for the colour of its mark.
    """

    cells: tuple[TableCell, ...]
    model: str = ""
    baseline: bool = False
    strategy: str = ""


@dataclass(frozen=True)
class TableData:
    """A table.

    Attributes:
        name: of its files.
        caption: what it shows.
        columns: their headings.
        rows: of cells.
        heading: number of the column that names a row.
        folded: whether the page shows it only when asked.
    """

    kind: ClassVar[str] = "sheet"
    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    heading: int = 0
    folded: bool = False

    @property
    def of_numbers(self) -> tuple[bool, ...]:
        """Which columns hold numbers."""
        return tuple(
            any(cell.value is not None for cell in column) for column in zip(*(r.cells for r in self.rows), strict=True)
        )

    @property
    def has_baselines(self) -> bool:
        """Whether there is something to hide and something left then."""
        return len({row.baseline for row in self.rows}) == 2


@dataclass(frozen=True)
class Figure:
    """A chart and the files it is written to."""

    kind: ClassVar[str] = "figure"
    chart: Chart


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    kind: ClassVar[str] = "prose"
    text: str


@dataclass(frozen=True)
class Code:
    """Something to be typed or read as it stands; `model` is whose it is."""

    kind: ClassVar[str] = "code"
    text: str
    model: str = ""


@dataclass(frozen=True)
class Listing:
    """A heading and lines under it; folded where there are many."""

    kind: ClassVar[str] = "listing"
    title: str
    lines: tuple[str, ...]
    model: str = ""
    folded: bool = False


@dataclass(frozen=True)
class ClaimVerdict:
    """A statement and what a run says to it.

    Attributes:
        name: such as C4.
        statement: what is claimed.
        verdict: in a word or two.
        tone: `good`, `bad`, `open` or `none`, for its colour.
        text: the numbers.
        test: how it was judged.
        evidence: a table; None where there is none.
    """

    kind: ClassVar[str] = "finding"
    name: str
    statement: str
    verdict: str
    tone: str
    text: str
    test: str
    evidence: TableData | None = None


@dataclass(frozen=True)
class ModelAnswer:
    """What one model said.

    Attributes:
        who: which model.
        text: shortened.
        verdict: what became of it.
        right: whether it is right.
    """

    who: str
    text: str
    verdict: str
    right: bool


@dataclass(frozen=True)
class AnswerComparison:
    """One sample: the dense model's answer beside those of pruned ones.

    Attributes:
        sample: its name.
        model: whose.
        lost: how many of the cuts got it wrong, in words.
        prompt: what was asked, shortened; empty where the records do not say.
        answers: the dense one's first.
        picture: what the question is about, as a data URI; empty where it is about none.
    """

    kind: ClassVar[str] = "pair"
    sample: str
    model: str
    lost: str
    prompt: str
    answers: tuple[ModelAnswer, ...]
    picture: str = ""


Part: TypeAlias = TableData | Figure | Prose | Code | Listing | ClaimVerdict | AnswerComparison


@dataclass(frozen=True)
class Section:
    """One part of the report.

    Attributes:
        name: its place on the page.
        title: its heading.
        lead: what to look for, in a sentence or two.
        parts: in the order of reading.
        short: its heading where there is little room; the title if empty.
    """

    name: str
    title: str
    lead: str
    parts: tuple[Part, ...]
    short: str = ""
