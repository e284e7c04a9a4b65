"""The paper's tables as they are read, and its advice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import prunelab.analysis.paper
from prunelab.analysis.paper import Table, paper_model, paper_note, paper_rows, paper_value
from prunelab.analysis.paper.advice import paper_advice
from prunelab.errors import UnknownName


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "LLaMA-3-8B"),
        ("meta-llama/Meta-Llama-3-8B", "LLaMA-3-8B"),
        ("LLaMA-3-8B", "LLaMA-3-8B"),
        ("models/llama_3_8b/", "LLaMA-3-8B"),
        ("google/gemma-2-2b-it", "Gemma-2-2B"),
        ("HuggingFaceM4/Idefics3-8B-Llama3", "Idefics3-8B"),
        ("meta-llama/Llama-3.1-8B", None),
        ("meta-llama/Meta-Llama-3-70B", None),
        ("google/gemma-2-27b", None),
        ("google/gemma-2-9b", None),
        ("google/gemma-2b", None),
        ("Qwen/Qwen2-1.5B", None),
        ("", None),
    ],
)
def test_names_on_the_hub(name: str, known: str | None) -> None:
    assert paper_model(name) == known


def test_values() -> None:
    assert paper_value("ifeval", "meta-llama/Meta-Llama-3-8B-Instruct", "width", 0.2) == 0.258
    assert paper_value("ifeval", "LLaMA-3-8B", "depth", 0.2) == 0.216
    assert paper_value("throughput", "google/gemma-2-2b", "dense", 0.0) == 31.35
    assert paper_value("throughput", "google/gemma-2-2b", "baseline", 0.0) == 31.35
    assert paper_value("throughput", "LLaMA-3-8B", "depth", 0.1 + 0.2) == 54.40, "0.30000000000000004 is 30 %"
    assert paper_value("pope", "Idefics3-8B", "width", 0.2) == 54.24
    assert paper_value("ifeval", "google/gemma-2-2b-it", "depth", 0.3) is None
    assert paper_value("ifeval", "Qwen/Qwen2-1.5B", "depth", 0.1) is None


@pytest.mark.parametrize(
    ("table", "count"), [("ifeval", 12), ("throughput", 14), ("pope", 5), ("textvqa", 5), ("mmmu", 5)]
)
def test_rows(table: Table, count: int) -> None:
    rows = paper_rows(table)
    assert len(rows) == count
    assert all(row.value > 0 for row in rows)
    assert all((row.strategy == "baseline") == (row.ratio == 0) for row in rows)
    assert all(paper_model(row.model) == row.model for row in rows)
    assert paper_note(table).startswith("Table ")


def test_an_unknown_table() -> None:
    with pytest.raises(UnknownName, match="did you mean 'ifeval'"):
        paper_rows("ifeva")  # type: ignore[arg-type]


def test_the_copy_is_the_original(shared: Path) -> None:
    own = Path(prunelab.analysis.paper.__file__).parent / "tables.json"
    assert json.loads(own.read_text()) == json.loads((shared / "paper" / "tables.json").read_text())


@pytest.mark.parametrize(
    ("keep", "speedup", "ratio"),
    [(None, None, 0.1), (0.95, None, 0.1), (0.8, None, 0.2), (None, 1.01, 0.1), (None, 1.1, 0.2), (None, 1.4, 0.3)],
)
def test_advice(keep: float | None, speedup: float | None, ratio: float) -> None:
    """Table 2: Gemma-2-2B gains 1.02, 1.14 and 1.42 under depth, LLaMA-3-8B 1.13, 1.23 and 1.46."""
    found = paper_advice(keep, speedup)
    assert (found.method, found.ratio) == ("shortgpt", ratio)
    assert ("up to 20 % only" in found.caution) == (ratio > 0.2)


def test_a_speed_that_the_paper_never_reached() -> None:
    found = paper_advice(speedup=2.0)
    assert found.ratio == 0.3
    assert "no ratio of its Table 2 reaches 2x" in found.caution
    assert "Gemma-2-2B 1.42x" in found.why
