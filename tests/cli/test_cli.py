"""The command line as its user meets it: what works, and one line and exit code 2 for what does not."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ran
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import prunelab
from prunelab.api.doctor import Diagnosis
from prunelab.errors import CheckpointError

Command = Callable[..., Ran]
CheckpointOf = Callable[[str], Path]


def refused(ran: Ran, *texts: str) -> None:
    """One line, exit code 2, and the texts in it."""
    assert ran.code == 2, ran
    lines = [line for line in ran.err.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1, lines
    for text in texts:
        assert text in lines[0]


def quick(corpus: Path) -> list[object]:
    return ["--calibration", corpus, "--samples", 8, "--sequence-length", 64, "--device", "cpu"]


def test_the_version(command: Command) -> None:
    ran = command("--version")
    assert (ran.code, ran.out) == (0, f"prunelab {prunelab.__version__}\n")
    assert "--version" in command("--help").out
    assert "structured pruning of language models" in command("--help").out


def test_prune_evaluate_and_measure(
    command: Command, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pruned"
    ran = command("prune", tiny_checkpoint("llama"), "--method", "flap", "--ratio", 0.25, "--out", out, *quick(corpus))
    assert ran.code == 0, ran
    assert "of the blocks' weights removed (requested: 25.00%)" in ran.out
    assert "of all weights" in ran.out
    model = AutoModelForCausalLM.from_pretrained(out, trust_remote_code=True)
    assert model.num_parameters() < 40_000

    scores = tmp_path / "scores.json"
    ran = command("evaluate", out, "--benchmark", f"text:{corpus}", "--out", scores, "--device", "cpu")
    assert ran.code == 0, ran
    rows = json.loads(scores.read_text())
    assert {"token_perplexity", "word_perplexity", "byte_perplexity"} <= {row["metric"] for row in rows}
    assert all(row["method"] == "dense" and row["window"] == 256 for row in rows)

    ran = command("throughput", out, "--prompt-tokens", 16, "--new-tokens", 4, "--repeats", 1, "--device", "cpu")
    weights = sum(tensor.numel() * tensor.element_size() for tensor in load_file(out / "model.safetensors").values())
    assert f" {weights:,} " in ran.out, "bytes are whole numbers"
    assert ran.code == 0, ran
    assert "decode_tokens_per_second" in ran.out
    assert "cache_bytes_per_token" in ran.out


def test_a_second_ratio_uses_the_first_ones_statistics(
    command: Command, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path
) -> None:
    statistics = tmp_path / "s.safetensors"
    for ratio in (0.2, 0.4):
        out = tmp_path / str(ratio)
        arguments = ["--ratio", ratio, "--out", out, "--statistics", statistics, *quick(corpus)]
        assert command("prune", tiny_checkpoint("qwen2"), *arguments).code == 0
        written = statistics.stat().st_mtime_ns
        assert written == getattr(test_a_second_ratio_uses_the_first_ones_statistics, "written", written)
        test_a_second_ratio_uses_the_first_ones_statistics.__dict__["written"] = written


def test_a_plan_can_be_applied_again(
    command: Command, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path
) -> None:
    model = tiny_checkpoint("llama")
    first, second = tmp_path / "first", tmp_path / "second"
    assert command("prune", model, "--ratio", 0.3, "--out", first, *quick(corpus)).code == 0
    plan = first / "pruning_plan.json"
    assert command("prune", model, "--plan", plan, "--out", second, *quick(corpus)).code == 0
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert all(torch.equal(a[name], b[name]) for name in a)
    refused(
        command("prune", tiny_checkpoint("qwen2"), "--plan", plan, "--out", tmp_path / "x", *quick(corpus)),
        "the plan was made for tiny-llama (fingerprint",
        "but tiny-qwen2 has fingerprint",
    )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--ratio", 1.2], ["ratio 1.2 is not possible", "at least 0 and below 1"]),
        (["--ratio", -0.1], ["ratio -0.1 is not possible"]),
        (["--ratio", 0.99], ["ratio 0.99 is out of reach", "request at most"]),
        (["--ratio", 0.05, "--method", "shortgpt"], ["removes nothing", "at least 0.125"]),
        (["--method", "shrotgpt"], ["no method is called 'shrotgpt'", "did you mean 'shortgpt'"]),
        (["--dtype", "int8"], ["dtype 'int8' is not supported"]),
        (["--calibration", "wikitext3"], ["unknown corpus 'wikitext3'", "wikitext2"]),
        (["--calibration", "gone.txt"], ["gone.txt does not exist"]),
        (["--samples", 100000], ["100016 were requested", "--samples"]),
        (["--samples", 0], ["samples 0 is not possible", "from 1 to"]),
        (["--protect-first", 9], ["protecting the first 9", "protect fewer"]),
        (["--plan", "gone.json"], ["gone.json does not exist"]),
        (["--channel-multiple", 0], ["--channel-multiple", "greater than or equal to 1"]),
        (["--compensation", "least"], ["--compensation", "'bias'"]),
    ],
)
def test_bad_requests_get_one_line(
    arguments: list[object], texts: list[str], command: Command, tiny_checkpoint: CheckpointOf, corpus: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    refused(command("prune", tiny_checkpoint("llama"), "--out", out, *quick(corpus), *arguments), *texts)
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name not in ("cache",)]


def test_an_output_folder_that_exists(command: Command, tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    refused(command("prune", tiny_checkpoint("llama"), "--out", tmp_path), "exists", "--overwrite")


def test_a_quantised_checkpoint_is_refused(command: Command, tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    folder = tmp_path / "quantised"
    shutil.copytree(tiny_checkpoint("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    refused(
        command("prune", folder, "--out", tmp_path / "out"), "is quantised", "give the checkpoint it was quantised from"
    )


def test_a_missing_and_a_truncated_checkpoint(command: Command, tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    refused(command("evaluate", tmp_path / "gone", "--benchmark", "throughput"), "gone does not exist")
    folder = tmp_path / "cut"
    shutil.copytree(tiny_checkpoint("llama"), folder)
    (folder / "model.safetensors").write_bytes(b"short")
    refused(
        command("evaluate", folder, "--benchmark", "throughput"),
        "model.safetensors cannot be read as safetensors",
        "fetch it again",
    )


def test_nan_in_activations_is_named(
    command: Command, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "nan"
    shutil.copytree(tiny_checkpoint("llama"), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.3.self_attn.v_proj.weight"][0] = float("nan")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    out = tmp_path / "out"
    refused(command("prune", folder, "--out", out, *quick(corpus)), "model.layers.3.self_attn.o_proj", "--dtype")
    assert not out.exists()
    refused(command("evaluate", folder, "--benchmark", f"text:{corpus}"), "NaN or infinite in window 0")


def test_unknown_benchmarks_and_commands(command: Command, tiny_checkpoint: CheckpointOf) -> None:
    model = tiny_checkpoint("llama")
    refused(command("evaluate", model, "--benchmark", "wikitxt2"), "did you mean 'wikitext2'")
    refused(command("evaluate", model, "--benchmark", "text:gone.txt"), "gone.txt does not exist")
    refused(command("prnue"), "No such command 'prnue'")
    refused(command("prune", model), "Missing option '--out'")


@pytest.mark.parametrize("what", ["methods", "benchmarks", "families"])
def test_lists(what: str, command: Command) -> None:
    ran = command("list", what)
    assert ran.code == 0
    expected = {"methods": "flap", "benchmarks": "wikitext2", "families": "Gemma2ForCausalLM"}
    assert expected[what] in ran.out


def test_the_doctor_examines(command: Command, shared: Path) -> None:
    ran = command("doctor", "--datasets-root", shared / "hub")
    assert ran.code == 0
    assert "torch" in ran.out
    assert "extra gguf" in ran.out
    assert "Salesforce/wikitext" in ran.out


def test_what_the_doctor_prescribes_is_printed_to_the_letter(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    remedy = "pip install '.[wandb]'"
    monkeypatch.setattr("prunelab.api.doctor.examine", lambda _: [Diagnosis("extra wandb", "not installed", remedy)])
    assert remedy in command("doctor").out


def test_the_package_is_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["prunelab", "list", "suites"])
    runpy.run_module("prunelab", run_name="__main__")
    assert "commonsense" in capsys.readouterr().out


def test_places_that_cannot_be_written(command: Command, tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    model, file, folder = tiny_checkpoint("llama"), tmp_path / "file", tmp_path / "folder"
    file.write_text("mine")
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    refused(command("prune", model, "--out", file / "x"), "is a file, not a folder")
    refused(command("prune", model, "--out", file, "--overwrite"), "is a file, and the output is a folder")
    refused(command("prune", model, "--out", folder, "--overwrite"), "something other than a checkpoint")
    refused(command("prune", model, "--out", model, "--overwrite"), "is the input model")
    refused(command("prune", model, "--out", tmp_path / "x", "--statistics", folder), "is a folder: give a file")
    refused(command("throughput", model, "--out", file / "x.json"), "is a file, not a folder")
    refused(command("throughput", model, "--out", folder, "--overwrite"), "is a folder, and the output is a file")
    refused(command("study", "--model", model, "--benchmark", "throughput", "--out", file), "is a file, not a folder")
    assert file.read_text() == (folder / "mine.txt").read_text() == "mine"


def test_a_plan_leaves_no_choice(command: Command, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path) -> None:
    model, first = tiny_checkpoint("llama"), tmp_path / "first"
    assert command("prune", model, "--ratio", 0.3, "--out", first, *quick(corpus)).code == 0
    plan = first / "pruning_plan.json"
    refused(command("prune", model, "--plan", plan, "--ratio", 0.4, "--out", tmp_path / "x"), "leave out --method")
    for option in (("--compensation", "none"), ("--uniform",), ("--channel-multiple", 8)):
        again = command("prune", model, "--plan", plan, *option, "--out", tmp_path / "x")
        refused(again, "leave out --compensation, --uniform")
    # The plan knows how it was calibrated; other text under the same options is refused.
    other = tmp_path / "other.txt"
    other.write_text("quite another text " * 400)
    given = ["--plan", plan, "--out", tmp_path / "x", "--calibration", other, "--device", "cpu"]
    refused(command("prune", model, *given), "compensation was made from calibration", "samples 8")


def test_a_study_whose_cells_failed_does_not_end_as_if_all_were_well(
    command: Command, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_checkpoint("llama"), base)
    study = ("study", "--model", base, "--method", "magnitude_width", "--ratio", 0.2, "--benchmark", f"text:{corpus}")

    def damaged(*_: object, **__: object) -> None:
        raise CheckpointError("a file was cut short while the study ran")

    with monkeypatch.context() as patched:
        patched.setattr("prunelab.studies.plans.open_model", damaged)
        ran = command(*study, "--out", tmp_path / "damaged")
    assert (ran.code, "cells failed" in ran.err) == (2, True), ran
    monkeypatch.setattr("prunelab.studies.model_runner.ModelStudy.run", lambda self: 1 / 0)
    ran = command(*study, "--out", tmp_path / "faulty")
    assert (ran.code, "cells failed" in ran.err) == (1, True), ran


def test_a_study_of_a_damaged_model_is_refused_before_its_other_models_are_measured(
    command: Command, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_checkpoint("llama"), base)
    (base / "model.safetensors").write_bytes((base / "model.safetensors").read_bytes()[:-1])
    monkeypatch.setattr(
        "prunelab.studies.model_runner.ModelStudy.run", lambda self: pytest.fail("something was computed")
    )
    models = ("--model", tiny_checkpoint("qwen2"), "--model", base)
    ran = command("study", *models, "--method", "magnitude_width", "--ratio", 0.2, "--benchmark", f"text:{corpus}",
                  "--out", tmp_path / "out")  # fmt: skip
    assert (ran.code, "model.safetensors has" in ran.err) == (2, True), ran
    assert not (tmp_path / "out" / "cells").exists()


def test_a_command_that_is_interrupted_says_so_in_its_code(
    command: Command, tiny_checkpoint: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("prunelab.models.streaming.model.open_model", interrupted)
    ran = command("prune", tiny_checkpoint("llama"), "--out", tmp_path / "out")
    assert (ran.code, ran.err) == (130, "interrupted: completed work is kept\n")
