"""Checkpoints as files: what lies in them, and that nothing is ever half there."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from conftest import Tiny, tiny_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from prunelab.checkpoint.save import save_checkpoint
from prunelab.errors import CheckpointError, DiskFull, InvalidRequest, OutputExists, UnsupportedModel
from prunelab.io.atomic_write import atomic_folder, require_space, write_text
from prunelab.models.loading import LanguageModel, load_model
from prunelab.pruning.apply import make_pruning_plan, pruned_model
from prunelab.pruning.plan import PruningPlan

TinyOf = Callable[[str], Tiny]


def pruned_tiny(t: Tiny, method: str) -> tuple[LanguageModel, PruningPlan]:
    plan = make_pruning_plan(t.model, method, 0.25, statistics=t.statistics, calibration=t.calibration)
    return pruned_model(t.model, plan, t.statistics), plan


@pytest.mark.parametrize("method", ["shortgpt", "flap"])
def test_a_checkpoint_holds_all_that_it_needs(method: str, tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny("llama")
    pruned, plan = pruned_tiny(t, method)
    pruned.model.generation_config.max_new_tokens = 7
    out = tmp_path / "out"
    save_checkpoint(pruned, plan, out, command="prunelab prune tiny --method x")
    names = {path.name for path in out.iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "pruning_plan.json", "README.md"} <= names
    assert {"tokenizer.json", "tokenizer_config.json"} <= names
    assert ("modeling_prunelab.py" in names) == (method == "flap")
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".pth"))]
    assert PruningPlan.load(out / "pruning_plan.json") == plan
    assert json.loads((out / "generation_config.json").read_text())["max_new_tokens"] == 7
    card = (out / "README.md").read_text()
    assert "prunelab prune tiny --method x" in card
    assert ("trust_remote_code=True" in card) == (method == "flap")
    again = load_model(str(out), device="cpu")
    assert again.tokenizer("hello").input_ids == t.model.tokenizer("hello").input_ids


def test_the_stock_class_refuses_a_mixed_checkpoint_loudly(tiny: TinyOf, tmp_path: Path) -> None:
    """Without its modelling file the weights do not fit: nothing is silently built wrong."""
    pruned, plan = pruned_tiny(tiny("llama"), "flap")
    save_checkpoint(pruned, plan, tmp_path / "out")
    with pytest.raises(RuntimeError, match="mismatched"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_code_in_a_checkpoint_is_never_run(tiny: TinyOf, tmp_path: Path) -> None:
    pruned, plan = pruned_tiny(tiny("llama"), "flap")
    out, trace = tmp_path / "out", tmp_path / "trace"
    save_checkpoint(pruned, plan, out)
    (out / "modeling_prunelab.py").write_text(f"open({str(trace)!r}, 'w').close()\n")
    load_model(str(out), device="cpu")
    assert not trace.exists()


def test_an_output_that_exists_stays_unless_it_may_go(tiny: TinyOf, tmp_path: Path) -> None:
    pruned, plan = pruned_tiny(tiny("llama"), "shortgpt")
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(OutputExists, match="--overwrite"):
        save_checkpoint(pruned, plan, out)
    with pytest.raises(OutputExists, match="something other than a checkpoint"):
        save_checkpoint(pruned, plan, out, overwrite=True)
    assert (out / "mine.txt").read_text() == "precious"
    (out / "config.json").write_text("{}")
    with pytest.raises(OutputExists, match=r"something other than a checkpoint \(such as mine.txt\)"):
        save_checkpoint(pruned, plan, out, overwrite=True)
    assert (out / "mine.txt").read_text() == "precious"
    (out / "mine.txt").unlink()
    save_checkpoint(pruned, plan, out, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device (os error 28)")],
)
def test_a_full_disk_leaves_nothing_behind(
    error: Exception, tiny: TinyOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pruned, plan = pruned_tiny(tiny("llama"), "shortgpt")

    def fail(self: PreTrainedModel, folder: Path) -> None:
        (Path(folder) / "half").write_text("half")
        raise error

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", fail)
    with pytest.raises(DiskFull, match="no space left"):
        save_checkpoint(pruned, plan, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_really_full(tiny: TinyOf, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    if (
        not mounted
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("a small file system cannot be mounted here")
    try:
        pruned, plan = pruned_tiny(tiny("llama"), "shortgpt")
        with pytest.raises(DiskFull, match="GB and its disk has"):
            save_checkpoint(pruned, plan, small / "out")
        with pytest.raises(DiskFull, match="no space left"):
            write_text(small / "large.txt", "x" * 200_000)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_space_is_asked_for_before_writing(tmp_path: Path) -> None:
    with pytest.raises(DiskFull, match="needs 1e\\+09 GB"):
        require_space(tmp_path / "not" / "there" / "yet", 10**18)


def test_an_interrupted_folder_vanishes(tmp_path: Path) -> None:
    def write_half() -> None:
        with atomic_folder(tmp_path / "out") as aside:
            (aside / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_half_written_is_removed_by_the_next(tmp_path: Path) -> None:
    ends: list[int] = []
    for _ in range(2):
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with atomic_folder(tmp_path / "out") as aside:
                    (aside / "half").write_text("half")
                    os.write(write, b"!")
                    time.sleep(60)
            finally:
                os._exit(1)
        assert os.read(read, 1) == b"!"
        ends.append(child)
        for end in (read, write):
            os.close(end)
    assert len(list(tmp_path.glob(".out-unfinished-*/half"))) == 2, "nobody removes what another is writing"
    for child in ends:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    (tmp_path / ".out-of-mine").mkdir()
    with atomic_folder(tmp_path / "out") as aside:
        (aside / "whole").write_text("whole")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        ".out-of-mine",
        "out",
        "out/whole",
    ]


def broken_copy(tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint("llama"), folder)
    return folder


def test_a_truncated_checkpoint_is_named(tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = broken_copy(tiny_checkpoint, tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors has 180,760 bytes instead of 181,760"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("remove", "match"),
    [
        ("model.safetensors", "has neither model.safetensors nor model.safetensors.index.json"),
        ("config.json", "give the folder that contains config.json"),
        ("tokenizer.json", "no readable tokenizer"),
    ],
)
def test_a_checkpoint_with_a_file_missing(
    remove: str, match: str, tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = broken_copy(tiny_checkpoint, tmp_path)
    (folder / remove).unlink()
    if remove == "tokenizer.json":
        (folder / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match=match) as error:
        load_model(str(folder))
    assert "\n" not in str(error.value)


def test_pickled_weights_are_not_opened(tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = broken_copy(tiny_checkpoint, tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save(tiny_model("llama").state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="never opens: convert them to safetensors"):
        load_model(str(folder))


def test_other_bad_models(tiny_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_model(str(tmp_path / "nowhere"))
    with pytest.raises(InvalidRequest, match="dtype 'int4' is not supported: give float32"):
        load_model(str(tiny_checkpoint("llama")), dtype="int4")
    with pytest.raises(InvalidRequest, match="device 'cuda:99' is not available"):
        load_model(str(tiny_checkpoint("llama")), device="cuda:99")
    folder = broken_copy(tiny_checkpoint, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["FalconForCausalLM"]}))
    with pytest.raises(UnsupportedModel, match=r"FalconForCausalLM.*give one of .*LlamaForCausalLM"):
        load_model(str(folder))


def test_a_gated_repository_is_named_with_the_login_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import GatedRepoError

    class Response:
        headers: ClassVar[dict[str, str]] = {}
        request = None

    def refuse(*_: object, **__: object) -> None:
        try:
            raise GatedRepoError("Access denied", response=Response())
        except GatedRepoError as error:
            raise OSError("You are trying to access a gated repo.") from error

    monkeypatch.setattr("transformers.utils.hub.cached_file", refuse)
    with pytest.raises(CheckpointError, match=r"meta-llama/Llama-9 is gated.*hf auth login"):
        load_model("meta-llama/Llama-9")
