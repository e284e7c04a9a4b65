"""A dry run: what is done, what is missing and what it costs, without weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import VARIANTS, Ran, byte_tokenizer, tiny_model
from transformers import AutoConfig

from prunelab.evaluation.benchmarks import EvaluationSettings, benchmarks
from prunelab.models.metadata import ModelMetadata, load_outline
from prunelab.studies.config import study_config
from prunelab.studies.dry_run import dry_run
from prunelab.studies.runner import run_study

CheckpointOf = Callable[[str], Path]


@pytest.fixture
def given(tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "models": [str(tiny_checkpoint("llama"))], "methods": ["shortgpt", "flap"], "ratios": [0.25],
        "benchmarks": [f"text:{corpus}", "throughput"], "out": str(tmp_path / "run"), "device": "cpu",
        "calibration": {"corpus": str(corpus), "samples": 8, "sequence_length": 64, "held_out": 2},
    }  # fmt: skip


def text_tokens(corpus: Path) -> int:
    """Bytes of every document, and a start token for every window of 255 of them."""
    lengths = [len(part.strip("\n").encode()) for part in corpus.read_text().split("<|endoftext|>")]
    return sum(length + math.ceil(length / 255) for length in lengths)


def test_nothing_is_loaded_computed_or_written(
    given: dict[str, Any], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("prunelab.studies.plans.open_model", "prunelab.studies.plans.calibrated"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("weights are not needed"))
    found = dry_run(study_config(given))
    assert [one.cell.label for one in found.cells] == [
        "tiny-llama dense",
        "tiny-llama shortgpt 25%",
        "tiny-llama flap 25%",
    ]
    for one in found.cells:
        assert (one.done, one.missing, one.unknown) == ([], [f"text:{corpus.name}", "throughput"], [])
        # five runs and a warm-up of 128 prompt tokens and 64 new ones
        assert one.tokens == text_tokens(corpus) + 6 * (128 + 64)
    assert found.calibration_tokens == {"tiny-llama": 8 * 64}
    assert not found.notes
    assert not (tmp_path / "run").exists()


def test_weights_are_counted_without_them(tiny_checkpoint: CheckpointOf) -> None:
    outline = load_outline(str(tiny_checkpoint("llama")))
    parameters = tiny_model("llama").num_parameters()
    # Four blocks of 32 x 32 queries and outputs, 16 x 32 keys and values, three MLP projections of 40 x 32.
    blocks = 4 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 40 * 32)
    assert outline.weight_bytes() == 4 * parameters
    assert outline.weight_bytes(0.25, "bfloat16") == 2 * (parameters - blocks // 4)


def test_what_is_done_is_told(given: dict[str, Any]) -> None:
    run_study(study_config(given), say=lambda line: None)
    found = dry_run(study_config(given))
    assert [len(one.done) for one in found.cells] == [2, 2, 2]
    assert not any(one.missing or one.tokens for one in found.cells)
    assert not found.calibration_tokens
    limited = dry_run(study_config({**given, "limit": 3}))
    assert [one.done for one in limited.cells] == [["throughput"]] * 3, "another limit is another measurement"
    other = {**given, "calibration": {**given["calibration"], "samples": 6}}
    assert [len(one.done) for one in dry_run(study_config(other)).cells] == [2, 0, 0], "other plans, the same model"
    assert dry_run(study_config(other)).calibration_tokens == {"tiny-llama": 6 * 64}
    damaged = next(Path(given["out"]).glob("cells/*flap*/text*.json"))
    damaged.write_text("{")
    assert [len(one.done) for one in dry_run(study_config(given)).cells] == [2, 2, 1]
    assert damaged.exists(), "a dry run sets nothing aside"


def test_the_command(given: dict[str, Any], command: Callable[..., Ran], tmp_path: Path) -> None:
    asked = [
        part for key in ("model", "method", "ratio", "benchmark") for v in given[f"{key}s"] for part in (f"--{key}", v)
    ]
    ran = command("study", *asked, "--out", tmp_path / "run", "--dry-run", "--samples", 8, "--sequence-length", 64)
    assert ran.code == 0, ran
    assert "3 cells, 6 benchmarks: 0 measured, 6 missing" in ran.out
    assert "tiny-llama: 512 calibration tokens" in ran.out
    gone = command("study", "--model", "./gone", *asked[2:], "--out", tmp_path / "run", "--dry-run")
    assert gone.code == 0, gone
    assert "unknown" in gone.out
    assert "./gone does not exist" in gone.err
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def outline() -> ModelMetadata:
    name, _ = VARIANTS["llama"]
    assert name == "Llama"
    config = AutoConfig.for_model("llama", max_position_embeddings=4096)
    return ModelMetadata("tiny", config, byte_tokenizer())


def test_a_choices_prompt_is_counted_once(outline: ModelMetadata, miniature: Path) -> None:
    settings = EvaluationSettings(datasets_root=miniature)
    animals = ("fox", "bird", "frog", "horse", "mouse", "goose", "sheep", "tiger")
    prompts = [f"The {a} runs.\nQuestion: does the {a} run?\nAnswer:" for a in animals]
    # a start token, the prompt, " no" and " yes"
    assert benchmarks["boolq"].expected_tokens(outline, settings) == sum(1 + len(p) + 3 + 4 for p in prompts)


@pytest.mark.parametrize("name", ["gsm8k", "wikitext2", "stereoset", "humaneval", "mmlu"])
def test_every_kind_of_benchmark_is_counted(name: str, outline: ModelMetadata, miniature: Path) -> None:
    some, all_of_it = (
        benchmarks[name].expected_tokens(outline, EvaluationSettings(datasets_root=miniature, limit=limit, window=64))
        for limit in (1, None)
    )
    assert some is not None
    assert all_of_it is not None
    assert 0 < some < all_of_it
