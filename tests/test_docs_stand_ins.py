"""Commands of the documentation that want a large model or a GPU are run as they stand with a small model in its place.

What a page marks with `<!-- run -->` is run to the letter by `test_docs.py`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ran
from test_docs import PAGES, blocks, whole_lines

SMALLER = (
    (
        r"\b(MODEL|Qwen/Qwen2-1\.5B|models/qwen2-1\.5b|meta-llama/Meta-Llama-3-8B-Instruct"
        r"|HuggingFaceTB/SmolLM2-135M-Instruct)\b",
        "pocket-llama",
    ),
    (r"HuggingFaceM4/Idefics3-8B-Llama3", "pocket-idefics3"),
    (r"--suite vision|--benchmark pope:QUESTIONS:IMAGES", "--benchmark pope"),
    (r"--suite commonsense", "--benchmark arc_easy --benchmark winogrande"),
    (r"--suite quick(?= --ratio .* --out runs/mine)", "--benchmark arc_easy --benchmark throughput"),
    (r"--suite quick|--benchmark ifeval", "--benchmark arc_easy --benchmark wikitext2"),
    (r"--model pocket-llama --model pocket-qwen2 --model pocket-gemma2", "--model pocket-llama --model pocket-qwen2"),
    (r"--benchmark text:mine\.txt --benchmark throughput", "--benchmark text:mine.txt"),
    (r"text:wikitext2\.txt", "text:mine.txt"),
    (r"--method shortgpt --method flap --method two_stage (?=.*--out runs/smollm2)", "--method shortgpt "),
    (r"--seed 0 --seed 1 --seed 2", "--seed 0 --seed 1"),
    (r"--benchmark arc_challenge --benchmark boolq --benchmark winogrande --benchmark mmlu ", ""),
    (r"^(study .*)$", r"\1 --limit 2 --samples 4 --device cpu"),
    (r"^(study (?!.*(--method|\.yaml)).*)$", r"\1 --method shortgpt --method magnitude_width"),
    (r"^(study .*)--ratio 0\.1 --ratio 0\.2", r"\1--ratio 0.2"),
    (r"^(study (?!.*(--ratio|\.yaml)).*)$", r"\1 --ratio 0.2"),
    (r"^(study (?!.*\.yaml).*)$", r"\1 --sequence-length 128"),
    (r"^(prune .*)$", r"\1 --samples 4 --sequence-length 128 --overwrite"),
    (r"--calibration own\.jsonl", "--calibration wikitext2"),
    (r"^(evaluate .*)$", r"\1 --limit 2 --datasets-root pocket"),
    (r"^(throughput .*)$", r"\1 --new-tokens 4 --repeats 1"),
    (r"--device cuda", "--device cpu"),
    (r"--datasets-root data", "--datasets-root pocket"),
    (r"--limit 100", "--limit 2"),
    (r"\bRUN\b", "runs/mine"),
)
"""What stands in the documentation, and what is run in its place, one after the other."""
ELSEWHERE = {
    "fetch": "needs the hub; test_datasets.py",
    "--engine ray": "test_engine_ray.py",
    "compare runs/local runs/ray": "needs a run of Ray's; test_engine_ray.py, test_runs_compared.py",
    "push pruned --to me/qwen2-pruned": "test_push.py",
    "--calibration c4 --method shortgpt --method flap --method wanda_sp": "a measurement of half an hour",
}
GRID = """\
models: [pocket-llama]
methods: [shortgpt]
ratios: [0.1]
benchmarks: [arc_easy]
calibration: {corpus: wikitext2, samples: 4, sequence_length: 128}
out: runs/grid
"""


def unmarked(page: Path) -> list[str]:
    """The page's commands behind `prunelab` that are not run to the letter."""
    text = page.read_text(encoding="utf-8")
    shown = [line for kind in ("bash", "") for code in blocks(text, kind, run=False) for line in whole_lines(code)]
    return [line.removeprefix("prunelab ") for line in shown if line.startswith("prunelab ")]


def smaller(line: str) -> str:
    """The command with a small model, a few samples and a few questions."""
    line = line.partition("  #")[0].strip()
    for pattern, instead in SMALLER:
        line = re.sub(pattern, instead, line)
    return line


@pytest.mark.parametrize("page", [page for page in PAGES if unmarked(page)], ids=lambda page: page.stem)
def test_commands_run_with_a_small_model(
    page: Path, command: Callable[..., Ran], corpus: Path, in_folder: Path
) -> None:
    for name in ("grid.yaml", "configs/one_gpu.yaml"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(GRID)
    Path("mine.txt").write_text(corpus.read_text())
    for line in unmarked(page):
        if any(part in line for part in ELSEWHERE):
            continue
        if line.startswith("export"):
            pytest.importorskip("gguf", reason="needs pip install 'prunelab[gguf]'")
        ran = command(*shlex.split(smaller(line)))
        assert ran.code == 0, (line, smaller(line), ran.err)


def test_nothing_is_left_out_for_nothing() -> None:
    lines = [line for page in PAGES for line in unmarked(page)]
    assert all(any(part in line for line in lines) for part in ELSEWHERE)
