"""Text from outside is printed, drawn and written as it is."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_up_study import MadeUpStudy
from markdown_it import MarkdownIt
from rich.table import Table

from prunelab.errors import InvalidRequest
from prunelab.errors.text import one_line
from prunelab.io.markup import fenced, indented, markdown, markdown_paragraph
from prunelab.io.terminal import Terminal, labelled, plain
from prunelab.reports import write_report
from prunelab.reports.chart import AnyPanel, Chart, HeatMap, Panel, Point, Radar, Series
from prunelab.reports.figures.files import write_chart
from prunelab.reports.tables import Table as Written
from prunelab.studies.progress import PlainView

NASTY = [
    "[red]name[/red]",
    "[/nothing]",
    "back\\[slash]",
    "ends in a backslash\\",
    "\\",
    ":cat: and :warning:",
    "$x_1$ and $\\frac{",
    "$",
    "_hidden",
    "line\nbreak\r\nand\ttab",
    "\x1b[31mred\x1b[0m\x07",
    "\x9b31m",
    "\u202eevil",
    "half \ud800 pair",
    "<img src=x onerror=alert(1)>",
    "![x](http://example.org/x.png) [y](javascript:z) [z]: http://example.org",
    "a | b || c",
    "`code` ``more``",
    "**bold** *it* __b__ _i_ ~~gone~~",
    "&lt;b&gt; &#60; &copy;",
    "# heading",
    "1. one",
    "- item",
    "> quoted",
    "===",
    "https://example.org www.example.org",
    "x" * 5000,
    "日本語 🙂",
    "",
]
TEXTS = st.text(st.sampled_from("[]()<>*_`~#-+=|\\!&;$:.1 ab\n\x1b/") | st.characters(), max_size=30)
READER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def printed(*what: Any, width: int = 40_000) -> str:
    file = io.StringIO()
    Terminal(file=file, width=width).print(*what)
    return file.getvalue()


@settings(max_examples=200)
@given(TEXTS)
def test_any_text_is_printed_on_its_line_as_it_is(text: str) -> None:
    assert printed(text) == one_line(text) + "\n"
    assert printed(labelled("error:", "red", text)) == f"error: {one_line(text)}\n"
    assert one_line(text).isprintable() or not text.isprintable()


@pytest.mark.parametrize("text", NASTY)
def test_tables_hold_any_text(text: str) -> None:
    table = Table("name", text or "-", title=text)
    table.add_row(text, plain(text, "red"))
    shown = printed(table)
    assert shown.count(one_line(text)) >= 4
    assert all(character == "\n" or character.isprintable() for character in shown)


def test_lines_of_a_study_hold_any_text() -> None:
    lines: list[str] = []
    view = PlainView(lines.append)
    for text in NASTY:
        view.note(text)
    assert lines == [one_line(text) for text in NASTY]


def in_words(markdown_text: str, kind: str) -> str:
    """The text that a reader of Markdown sees, where it is nothing but text in one block of a kind."""
    tokens = READER.parse(markdown_text)
    assert [token.type for token in tokens] == [f"{kind}_open", "inline", f"{kind}_close"], tokens
    children = tokens[1].children or []
    assert {child.type for child in children} <= {"text", "text_special", "entity"}, children
    return "".join(child.content for child in children)


def seen(text: str) -> str:
    return one_line(" ".join(text.split()))


@settings(max_examples=500)
@given(TEXTS)
@example("\\")
@example("a\\")
@example("*a*")
@example("_a_b_")
@example("<b>")
@example("1) x")
@example("_ _ _")
@example("* * *")
@example(">0")
def test_any_text_is_only_text_in_markdown(text: str) -> None:
    if seen(text):
        assert in_words(markdown_paragraph(text), "paragraph") == seen(text)
        assert in_words(f"## {markdown(text)}.", "heading") == f"{seen(text)}."
    assert len(markdown(text).splitlines()) <= 1


@settings(max_examples=200)
@given(TEXTS, TEXTS)
def test_any_text_is_one_cell_of_a_markdown_table(first: str, second: str) -> None:
    tokens = READER.parse(Written(["a", "b"], [[first, second]]).markdown())
    cells = [token.children or [] for token in tokens if token.type == "inline"]
    assert len(cells) == 4
    assert ["".join(child.content for child in cell) for cell in cells[2:]] == [seen(first), seen(second)]
    assert not [token for token in tokens if token.type == "html_block"]


@settings(max_examples=200)
@given(TEXTS.filter(lambda text: text.strip() != ""))
def test_code_is_not_left(text: str) -> None:
    tokens = READER.parse(f"before\n\n{fenced(text, 'json')}\n\n<b>after</b>")
    assert [token.type for token in tokens if token.type == "fence"] == ["fence"]
    assert len([token for token in tokens if token.type == "inline"]) == 2
    assert len(READER.parse(indented(text.strip() or "x"))) == 1


@pytest.mark.parametrize("text", NASTY)
def test_any_text_can_label_a_figure(text: str, tmp_path: Path) -> None:
    line = Series(text, "depth", (Point(0.0, 1.0, tip=text), Point(1.0, 2.0, 1.5, 2.5, text), Point(2.0, 2.0)))
    lines = (line, replace(line, name=f"{text}2"))
    panels: tuple[AnyPanel, ...] = (
        Panel(text, text, lines, text, text),
        Panel(text, text, lines, text, categories=(text, text, text)),
        Radar(text, text, (text, text, text), lines, 2.0),
        HeatMap(text, text, (text,), (text, text), ((0.5, None),), ((text, text),), text),
    )
    for number, panel in enumerate(panels):
        written = write_chart(Chart(f"c{number}", text, text, (panel,)), tmp_path)
        assert all(path.stat().st_size > 1000 for path in written)


@pytest.mark.parametrize("name", ["_$x_1$ [red]<b>`|\\[&lt;<!--", "a\\frac$ _b_ # c [31m"])
def test_a_study_of_a_model_with_any_name_is_reported(name: str, tmp_path: Path) -> None:
    run = MadeUpStudy(tmp_path, (name,), ("shortgpt", "flap"), (0.2,), (0,), 0.01, ("arc_easy",), 4).run()
    write_report(run)
    text = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    for token in READER.parse(text):
        assert token.type != "html_block", token.content
        kinds = {child.type for child in token.children or ()}
        assert not kinds & {"html_inline", "link_open"}, token.content
    assert "\x1b" not in text
    assert "<b>" not in (tmp_path / "report" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", NASTY)
def test_an_error_is_one_line_whatever_stands_in_it(text: str) -> None:
    message = str(InvalidRequest(f"{text} is not possible: give another"))
    assert len(message.splitlines()) == 1
    assert len(message) <= 2000
    assert message.endswith(" is not possible: give another")
