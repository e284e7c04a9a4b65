"""The lists in the README and the documentation: generated from the registries, and checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunelab.api.doctor import EXTRAS
from prunelab.evaluation.benchmarks import benchmarks
from prunelab.evaluation.benchmarks.suites import suites
from prunelab.models.families import families
from prunelab.pruning.methods import PruningMethod, WidthMethod, methods
from tools.generate_lists import LISTS, ROOT, built_in_methods, main, pages


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of two pages with one list each, up to date."""
    (tmp_path / "docs/how-to").mkdir(parents=True)
    (tmp_path / "README.md").write_text("before\n\n<!-- generated: methods -->\n<!-- end -->\n\nafter\n")
    (tmp_path / "CONTRIBUTING.md").write_text("no list\n")
    (tmp_path / "docs/how-to/page.md").write_text("<!-- generated: suites -->\n<!-- end -->\n")
    assert main([], tmp_path) == 0
    return tmp_path


def test_the_lists_of_this_repository_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err


def test_every_list_stands_in_the_documentation() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in pages(ROOT))
    assert [name for name in LISTS if f"<!-- generated: {name} -->" not in text] == []


def test_a_list_is_filled_and_what_surrounds_it_stays(project: Path) -> None:
    text = (project / "README.md").read_text()
    assert text.startswith("before\n\n<!-- generated: methods -->\n\n| method |")
    assert text.endswith("|\n\n<!-- end -->\n\nafter\n")
    assert main(["--check"], project) == 0


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/page.md"])
def test_a_list_that_was_changed_by_hand_is_named_and_left_alone(
    project: Path, page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = (project / page).read_text().replace("<!-- end -->", "| by hand |\n<!-- end -->")
    (project / page).write_text(stale)
    assert main(["--check"], project) == 1
    assert capsys.readouterr().err == f"{page}: a generated list is out of date: run python -m tools.generate_lists\n"
    assert (project / page).read_text() == stale
    assert main([], project) == 0
    assert "by hand" not in (project / page).read_text()


def test_a_method_that_is_new_makes_the_list_out_of_date(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(methods, "_things", {**methods._things, "new": new_method("prunelab.pruning.methods.new")})
    assert main(["--check"], project) == 1
    assert capsys.readouterr().err.startswith("README.md: ")


def test_a_plug_in_of_a_third_party_does_not(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "_things", {**methods._things, "new": new_method("another_package.new")})
    assert main(["--check"], project) == 0


def new_method(module: str) -> PruningMethod:
    """A width method as a file of `module` would define it."""
    attributes = {"name": "new", "summary": "a new method", "source": "a paper", "__module__": module}
    made = type("New", (WidthMethod,), {**attributes, "raw": lambda *given: given})
    return made()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<!-- generated: method -->\n<!-- end -->\n", "no list is called 'method': use one of methods, "),
        ("<!-- generated: methods -->\n", "'<!-- generated: methods -->' has no '<!-- end -->'"),
        ("<!-- generated: methods -->\n<!-- generated: suites -->\n<!-- end -->\n", "methods -->' has no"),
        ("text\n<!-- end -->\n", "'<!-- end -->' has no '<!-- generated: NAME -->' before it"),
    ],
)
def test_a_marker_that_cannot_be_filled_is_an_error(
    project: Path, text: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "README.md").write_text(text)
    assert main(["--check"], project) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: README.md: ")
    assert reason in error


@pytest.mark.parametrize(
    ("name", "members"),
    [("methods", methods), ("benchmarks", benchmarks), ("suites", suites), ("families", families)],
)
def test_a_table_has_one_row_for_each_registered_thing(name: str, members: object) -> None:
    lines = LISTS[name]()[2:]
    assert all(sum(line.startswith(f"| `{member}` |") for line in lines) == 1 for member in members)  # type: ignore[attr-defined]


def test_every_extra_has_its_command() -> None:
    assert [f"| `pip install 'prunelab[{extra}]'` |" in "\n".join(LISTS["extras"]()) for extra in EXTRAS] == [
        True
    ] * len(EXTRAS)


def test_a_method_can_be_streamed_or_needs_the_model_in_memory() -> None:
    streamed, in_memory = "\n".join(LISTS["streamed-methods"]()), "\n".join(LISTS["in-memory-methods"]())
    for method in built_in_methods():
        line = f"- `{method.name}`: "
        assert (line in in_memory) == (method.needs_loss or method.runs_model)
        assert (line in streamed) != (line in in_memory)
    assert all(f"`{name}`" in streamed for name in ("shortgpt", "flap", "wanda_sp"))
    assert all(f"`{name}`" in in_memory for name in ("hybrid", "auto", "angular"))
