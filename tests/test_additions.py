"""One file per addition: a temporary third-party package adds a family, a method and two benchmarks, and nothing else.

The package registers through entry points, as an installed one does; its modules are written to a folder on the path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import byte_tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM

FAMILY = """\
from prunelab.models.families import register
from prunelab.models.layout import ModelFamily

QWEN3 = register(ModelFamily("qwen3_of_a_plugin", "Qwen3ForCausalLM"))
"""
METHOD = '''\
from typing import ClassVar

from torch import Tensor

from prunelab.models.layout import UnitLayout
from prunelab.pruning.methods import MethodInputs, WidthMethod, register


@register
class OutputNorm(WidthMethod):
    """Remove the units whose columns of the output projection are smallest."""

    name: ClassVar[str] = "output_norm"
    summary: ClassVar[str] = "drop units of smallest output columns"
    source: ClassVar[str] = "an example"
    needs_statistics: ClassVar[bool] = False

    def raw(self, evidence: MethodInputs, block: int, layout: UnitLayout) -> Tensor:
        """The norm of each column."""
        return evidence.decoder.weight(block, layout.output_projection).float().norm(dim=0)
'''
BENCHMARK = '''\
from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.multiple_choice import JsonLines, MultipleChoice, Question


@register
class Quiz(MultipleChoice):
    """A quiz of my own."""

    name = "quiz"
    title = "my quiz"
    source = JsonLines("quiz.jsonl")

    def question(self, row: dict) -> Question:
        """A row of the file."""
        return Question(f"Question: {row['question']}\\nAnswer:", row["choices"], row["answer"])
'''
ROWS = [{"question": f"What is {n} + 1?", "choices": [str(n), str(n + 1), "a frog"], "answer": 1} for n in range(6)]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the package, its entry points, its data and a model of its family."""
    folder = tmp_path_factory.mktemp("plugin")
    for name, text in {"my_family": FAMILY, "my_method": METHOD, "my_benchmark": BENCHMARK}.items():
        (folder / f"{name}.py").write_text(text)
    information = folder / "my_plugin-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n")
    groups = {"families": "my_family", "methods": "my_method", "benchmarks": "my_benchmark"}
    lines = [f"[prunelab.{group}]\nmine = {module}\n" for group, module in groups.items()]
    (information / "entry_points.txt").write_text("\n".join(lines))
    (folder / "quiz.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (folder / "text.txt").write_text("The pond was still. A frog sat on a leaf and waited for the rain. " * 40)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=258, hidden_size=32, intermediate_size=40, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, head_dim=4, max_position_embeddings=256, bos_token_id=256, eos_token_id=257,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder / "model")
    byte_tokenizer().save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def run(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The commands, one after the other in one process that has the plug-in on its path."""
    cache = tmp_path_factory.mktemp("cache")
    text = f"--calibration={plugin / 'text.txt'}"
    small = f"{text} --samples=4 --sequence-length=32 --device=cpu"
    commands = [
        "list families", "list methods", "list benchmarks",
        f"prune model --method output_norm --ratio 0.2 --out width {small}",
        f"prune model --method flap --ratio 0.2 --out flap {small}",
        f"prune model --method sublayer --ratio 0.2 --out dropped {small}",
        "evaluate dropped --benchmark quiz --datasets-root . --out scores.json",
        f"study --model model --method output_norm --method shortgpt --ratio 0.25 --benchmark quiz --datasets-root . "
        f"--out run {small}",
    ]  # fmt: skip
    script = (
        "import contextlib, io, sys, warnings\nfrom prunelab.cli import main\n"
        f"for line in {commands!r}:\n"
        "    sys.argv = ['prunelab', *line.split()]\n"
        "    try:\n        main()\n    except SystemExit as stop:\n"
        "        print('EXIT', line, stop.code)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PRUNELAB_CACHE": str(cache)}
    environment["PYTHONPATH"] = f"{plugin}{os.pathsep}{environment['PYTHONPATH']}"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=plugin, env=environment, capture_output=True, text=True, check=False
    )


def test_every_command_takes_the_additions(run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 0, run.stderr
    assert "EXIT" not in run.stdout, run.stdout + run.stderr
    for name in ("qwen3_of_a_plugin", "output_norm", "quiz"):
        assert name in run.stdout


def test_the_study_measured_every_cell(run: subprocess.CompletedProcess[str], plugin: Path) -> None:
    assert run.returncode == 0
    assert json.loads((plugin / "run" / "failures.json").read_text()) == []
    rows = (plugin / "run" / "results.csv").read_text()
    assert all(f",{method}," in rows for method in ("dense", "output_norm", "shortgpt"))


def test_the_benchmark_is_right_by_hand(run: subprocess.CompletedProcess[str], plugin: Path) -> None:
    """The accuracy is that of log-likelihoods by transformers, one choice at a time."""
    assert run.returncode == 0
    model, tokenizer = Qwen3ForCausalLM.from_pretrained(plugin / "model").eval(), byte_tokenizer()
    right = 0
    for row in ROWS:
        prompt = tokenizer(f"Question: {row['question']}\nAnswer:").input_ids
        sums = []
        for choice in row["choices"]:  # type: ignore[attr-defined]
            ids = tokenizer(f"Question: {row['question']}\nAnswer: {choice}").input_ids
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
            sums.append(sum(logits[i - 1, ids[i]].item() for i in range(len(prompt), len(ids))))
        right += sums.index(max(sums)) == row["answer"]
    measured = [
        line.split(",") for line in (plugin / "run" / "results.csv").read_text().splitlines() if "dense" in line
    ]
    assert {float(row[6]) for row in measured if row[5] == "acc"} == {right / len(ROWS)}


def test_lengths_of_the_files() -> None:
    assert len(FAMILY.splitlines()) <= 5
    assert len(METHOD.splitlines()) <= 25
    assert len(BENCHMARK.splitlines()) <= 25
