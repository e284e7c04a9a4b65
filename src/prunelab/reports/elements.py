"""The elements of a section; the HTML page and the Markdown report render each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    from prunelab.reports.chart import Chart


@dataclass(frozen=True)
class TableCell:
    """One cell of a table.

    Attributes:
        text: displayed text.
        value: number for sorting and for the CSV file; None to use the text.
        tip: text of the tooltip.
        heat: shading, from -1 (worst) to 1; None for no shading.
        mark: `worse` or `better` for a significant change.
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
        cells: one cell per column.
        model: the row's model; empty if the row applies to all models.
        baseline: whether the row's method is a baseline.
        strategy: key of the marker's colour.
    """

    cells: tuple[TableCell, ...]
    model: str = ""
    baseline: bool = False
    strategy: str = ""


@dataclass(frozen=True)
class TableData:
    """A table.

    Attributes:
        name: stem of the table's file names.
        caption: caption above the table.
        columns: column headings.
        rows: rows of cells.
        heading: index of the column that identifies a row.
        folded: whether the page shows the table collapsed.
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
        """For each column, whether it holds numbers."""
        return tuple(
            any(cell.value is not None for cell in column) for column in zip(*(r.cells for r in self.rows), strict=True)
        )

    @property
    def has_baselines(self) -> bool:
        """Whether the table has both baselines and other pruned models, so that hiding baselines leaves rows."""
        return len({row.baseline for row in self.rows}) == 2


@dataclass(frozen=True)
class Figure:
    """A chart, shown on the page and written to files."""

    kind: ClassVar[str] = "figure"
    chart: Chart


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    kind: ClassVar[str] = "prose"
    text: str


@dataclass(frozen=True)
class Code:
    """A command or other verbatim text; `model` is the model that it applies to."""

    kind: ClassVar[str] = "code"
    text: str
    model: str = ""


@dataclass(frozen=True)
class Listing:
    """A heading with a list of lines; `folded` shows it collapsed."""

    kind: ClassVar[str] = "listing"
    title: str
    lines: tuple[str, ...]
    model: str = ""
    folded: bool = False


@dataclass(frozen=True)
class ClaimVerdict:
    """A claim of the paper and its verdict on a run.

    Attributes:
        name: the claim's number, such as C4.
        statement: the claim in one sentence.
        verdict: the verdict, in one or two words.
        tone: key of the verdict's colour: `good`, `bad`, `open` or `none`.
        text: the finding, with its numbers.
        test: the decision rule.
        evidence: table of the underlying comparisons; None if there are none.
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
    """One model's answer to a sample.

    Attributes:
        who: label of the model.
        text: the generated text, shortened.
        verdict: how the answer was scored, in words.
        right: whether the answer is correct.
    """

    who: str
    text: str
    verdict: str
    right: bool


@dataclass(frozen=True)
class AnswerComparison:
    """One sample: the dense model's answer alongside those of pruned models.

    Attributes:
        sample: name of the sample.
        model: name of the model.
        lost: how many pruned models answer it incorrectly, in words.
        prompt: the prompt, shortened; empty if the records do not hold it.
        answers: the answers, the dense model's first.
        picture: the question's image as a data URI; empty if it has none.
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
    """One section of the report.

    Attributes:
        name: anchor on the page.
        title: heading.
        lead: introduction, one or two sentences.
        parts: the elements, in reading order.
        short: short heading for the navigation bar; the title if empty.
    """

    name: str
    title: str
    lead: str
    parts: tuple[Part, ...]
    short: str = ""
