"""What the documentation shows is true: every command is run, or parsed by the real command line where it needs more.

A block behind `<!-- run -->` is run, in one folder a page; every other line that begins with `prunelab` is parsed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml
from conftest import Ran, Tiny

from prunelab.cli import app
from prunelab.pruning.apply import make_pruning_plan
from prunelab.pruning.methods import methods

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
FENCE = re.compile(r"(<!-- run -->\n)?```(\w*)\n(.*?)```", re.DOTALL)


def blocks(text: str, language: str, run: bool | None = None) -> list[str]:
    """The code in a text's fences."""
    return [
        code for marked, kind, code in FENCE.findall(text) if kind == language and (run is None or bool(marked) == run)
    ]


def whole_lines(code: str) -> list[str]:
    """A block's lines, those that go on behind a backslash joined."""
    return code.replace("\\\n", " ").splitlines()


def commands(text: str) -> list[list[str]]:
    """The words of every line of a block that calls prunelab."""
    lines = [line for code in (*blocks(text, "bash"), *blocks(text, "")) for line in whole_lines(code)]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("prunelab ")]


def parse(words: list[str]) -> None:
    """Let the real command line read a command; raises what it would say."""
    group = typer.main.get_command(app)
    parent = group.make_context("prunelab", list(words), resilient_parsing=True)
    name, command, rest = group.resolve_command(parent, list(words))  # type: ignore[attr-defined]
    command.make_context(name, rest, parent=parent)


SHOWN = [(page, words) for page in PAGES for words in commands(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(
    ("page", "words"), SHOWN, ids=lambda value: shlex.join(value) if isinstance(value, list) else value.stem
)
def test_every_command_shown_is_one(page: Path, words: list[str]) -> None:
    parse(words)


def test_a_wrong_command_would_be_seen() -> None:
    with pytest.raises(Exception, match="--rato"):
        parse(["prune", "MODEL", "--rato", "0.2", "--out", "x"])
    assert len(SHOWN) > 40


RUN = [page for page in PAGES if blocks(page.read_text(encoding="utf-8"), "bash", run=True)]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_commands_run(page: Path, command: Callable[..., Ran], corpus: Path, in_folder: Path) -> None:
    Path("text.txt").write_text(corpus.read_text())
    for code in blocks(page.read_text(encoding="utf-8"), "bash", run=True):
        for line in whole_lines(code):
            if line.startswith("prunelab export"):
                pytest.importorskip("gguf", reason="needs pip install 'prunelab[gguf]'")
            ran = command(*shlex.split(line)[1:])
            assert ran.code == 0, (line, ran.err)


def test_python_runs(in_folder: Path) -> None:
    pytest.importorskip("gguf", reason="needs pip install 'prunelab[gguf]'")
    names: dict[str, object] = {}
    shown = blocks((ROOT / "docs/how-to/notebook.md").read_text(encoding="utf-8"), "python")
    assert len(shown) == 2
    for code in shown:
        exec(code, names)
    assert (in_folder / "pruned.gguf").exists()


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/how-to/extend.md"])
def test_the_method_shown_prunes(page: str, tiny: Callable[[str], Tiny], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "_things", dict(methods._things))
    (code,) = blocks((ROOT / page).read_text(encoding="utf-8"), "python")
    exec(code, {})
    t = tiny("gemma2")
    plan = make_pruning_plan(t.model, "output_energy", 0.2, statistics=t.statistics)
    assert plan.achieved_ratio == pytest.approx(0.2, abs=0.01)
    # Of block 0's MLP the channels of least mean square times squared norm have gone.
    moments = t.statistics.mlp[0]
    square = moments.mean**2 + moments.deviations / moments.count
    energy = square * t.model.decoder.weight(0, "mlp.down_proj").double().square().sum(dim=0)
    kept = plan.blocks[0].channels
    assert 0 < len(kept) < 40
    assert set(kept) == set(energy.argsort(descending=True)[: len(kept)].tolist())


def test_what_takes_the_whole_model_is_named() -> None:
    page = (ROOT / "docs/how-to/larger-than-memory.md").read_text(encoding="utf-8")
    streamed, _, whole = page.partition("**Which methods.**")[2].partition("What compares losses")
    for method in methods.values():
        baseline = method.name.startswith(("random_", "magnitude_"))
        says = whole.partition("**Evaluation**")[0] if method.needs_loss or method.runs_model else streamed
        assert baseline or f"`{method.name}`" in says, method.name


def test_every_page_is_in_the_navigation() -> None:
    written = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = set(re.findall(r"[\w/-]+\.md", str(written)))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}


def test_every_benchmark_is_explained() -> None:
    from prunelab.evaluation.benchmarks import benchmarks

    page = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert not [name for name in benchmarks if f"`{name}`" not in page]
