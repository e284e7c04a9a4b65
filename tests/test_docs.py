"""What the documentation shows is true: every command is run, or parsed by the real command line where it needs more.

A block behind `<!-- run -->` is run, in one folder a page; every other line that begins with `prunelab` is parsed.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml
from conftest import Ran, Tiny

from prunelab.cli import app
from prunelab.evaluation.benchmarks import EvaluationSettings, benchmarks
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
    codes = blocks((ROOT / "docs/how-to/notebook.md").read_text(encoding="utf-8"), "python")
    assert len(codes) == 2
    for code in codes:
        exec(code, names)
    assert (in_folder / "pruned.gguf").exists()


def shown(page: str, containing: str) -> str:
    """The one block of Python on a page that contains a string."""
    (code,) = [code for code in blocks((ROOT / page).read_text(encoding="utf-8"), "python") if containing in code]
    return code


def test_the_python_of_the_readme_runs_with_a_small_model(in_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = shown("README.md", "prunelab.load")
    assert len([line for line in code.splitlines() if line]) <= 6
    for given, small in {
        "HuggingFaceTB/SmolLM2-135M-Instruct": "pocket-llama",
        "samples=48": "samples=4",
        '"wikitext2")': '"wikitext2", limit=2)',
    }.items():
        assert given in code
        code = code.replace(given, small)
    exec(code, {})
    assert "wikitext2 token_perplexity" in capsys.readouterr().out
    assert (in_folder / "pruned" / "model.safetensors").exists()


def test_the_method_shown_prunes(tiny: Callable[[str], Tiny], monkeypatch: pytest.MonkeyPatch) -> None:
    others = {name: method for name, method in methods._things.items() if name != "output_energy"}
    monkeypatch.setattr(methods, "_things", others)
    exec(shown("docs/how-to/extend.md", "WidthMethod"), {})
    t = tiny("gemma2")
    plan = make_pruning_plan(t.model, "output_energy", 0.2, statistics=t.statistics)
    assert plan.achieved_ratio == pytest.approx(0.2, abs=0.01)
    # Of block 0's MLP, the channels with the least mean square times squared norm were removed.
    moments = t.statistics.mlp[0]
    square = moments.mean**2 + moments.deviations / moments.count
    energy = square * t.model.decoder.weight(0, "mlp.down_proj").double().square().sum(dim=0)
    kept = plan.blocks[0].channels
    assert 0 < len(kept) < 40
    assert set(kept) == set(energy.argsort(descending=True)[: len(kept)].tolist())


def test_the_benchmark_shown_is_evaluated(
    tiny: Callable[[str], Tiny], in_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks, "_things", {k: v for k, v in benchmarks._things.items() if k != "quiz"})
    exec(shown("docs/how-to/extend.md", "MultipleChoice"), {})
    rows = [{"question": f"What is {n}?", "choices": ["a", "b", "cc", "d"], "answer": n % 4} for n in range(6)]
    (in_folder / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluation = benchmarks["quiz"].evaluate(tiny("llama").model, EvaluationSettings())
    assert [score.metric for score in evaluation.scores] == ["acc", "acc_norm"]
    assert [sample["target"] for sample in evaluation.samples] == [0, 1, 2, 3, 0, 1]
    assert evaluation.scores[0].value == sum(sample["acc"] for sample in evaluation.samples) / 6


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and mkdocs make it."""
    return re.sub(r"[^\w -]", "", heading.replace("`", "")).strip().lower().replace(" ", "-")


def target_of(page: Path, link: str) -> str:
    """What is wrong with a link of a page; nothing if it leads somewhere."""
    path, _, anchor = link.partition("#")
    target = page if not path else (page.parent / path).resolve()
    if not target.exists():
        return f"{link}: no such file"
    if anchor and anchor not in {
        slug(line.lstrip("#")) for line in target.read_text("utf-8").splitlines() if line[:1] == "#"
    }:
        return f"{link}: no such heading"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    assert [wrong for link in links if not link.startswith("https://") if (wrong := target_of(page, link))] == []


def test_a_wrong_link_would_be_seen() -> None:
    page = ROOT / "docs/index.md"
    assert target_of(page, "none.md") == "none.md: no such file"
    assert target_of(page, "pocket.md#none") == "pocket.md#none: no such heading"
    assert target_of(page, "pocket.md#images") == ""


def test_every_page_is_in_the_navigation() -> None:
    written = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    listed = set(re.findall(r"[\w/-]+\.md", str(written)))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
