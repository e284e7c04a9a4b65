"""A hostile checkpoint, budget, disk or moment for a model that is streamed: one line, and nothing half done."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ran, tiny_calibration, tiny_model
from safetensors.torch import load_file, save_file
from test_streaming import assert_equal

from prunelab.calibration import calibrate
from prunelab.calibration.streaming import HiddenStates, calibrate_streaming
from prunelab.errors import CheckpointError, InvalidRequest
from prunelab.models.loading import load_model, parse_device
from prunelab.models.memory import format_bytes, parse_memory
from prunelab.models.streaming.model import open_streamed
from prunelab.models.tensor_files import TensorFiles
from prunelab.studies.config import study_config

CheckpointOf = Callable[[str], Path]
Command = Callable[..., Ran]


def safetensors(header: Any, data: bytes = b"") -> bytes:
    """A file with a header of one's own."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def one(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    """The header of a file with one tensor."""
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (safetensors("text"), "cannot be read as safetensors"),
        (safetensors([1]), "cannot be read as safetensors"),
        (safetensors({"a": "b"}), "cannot be read as safetensors"),
        (safetensors({"a": {}}), "cannot be read as safetensors"),
        (safetensors(b"[" * 99_999), "cannot be read as safetensors"),
        (safetensors(one(shape=["2"]), bytes(8)), "a has an invalid shape or invalid offsets"),
        (safetensors(one(shape=[-2]), bytes(8)), "a has an invalid shape or invalid offsets"),
        (safetensors(one(offsets=(-8, 0)), bytes(8)), "a has an invalid shape or invalid offsets"),
        (safetensors(one(offsets=(0,)), bytes(8)), "cannot be read as safetensors"),
        (safetensors(one(shape=[3]), bytes(8)), "a has 8 bytes, and its shape implies 12"),
        (safetensors(one(dtype=["F32"]), bytes(8)), "cannot be read as safetensors"),
        (safetensors(one(dtype="F8_E4M3", shape=[8]), bytes(8)), "holds a as F8_E4M3, which cannot be pruned"),
        (safetensors(one(), bytes(7)), r"has \d+ bytes instead of \d+, so its download is incomplete"),
        (safetensors(one(), bytes(9)), r"has \d+ bytes instead of \d+, so its download is incomplete"),
        (b"", "cannot be read as safetensors"),
        (b"\xff" * 64, "cannot be read as safetensors"),
    ],
)
def test_a_file_that_is_not_what_it_says(content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=match) as raised:
        TensorFiles.open(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("shard", ["../theirs.safetensors", "/etc/passwd", "", ".", 7, ["a"], "part/../../theirs"])
def test_an_index_that_names_what_is_no_file_of_its_folder(shard: Any, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "theirs.safetensors")
    (tmp_path / "m" / "part").mkdir(parents=True)
    (tmp_path / "m" / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"a": shard}})
    )
    expected = "outside its folder" if isinstance(shard, str) and len(shard) > 1 else "cannot be read|is damaged"
    with pytest.raises(CheckpointError, match=expected):
        TensorFiles.open(tmp_path / "m")


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is too large for memory."""
    monkeypatch.setattr("prunelab.models.streaming.model.is_too_large", lambda weights, budget: True)


def refused(ran: Ran, said: str, out: Path) -> None:
    """One line on what is wrong, exit 2, and nothing of the output is there."""
    assert ran.code == 2, ran
    assert said in " ".join(ran.err.split()), ran
    assert sum(line.startswith("error:") for line in ran.err.splitlines()) == 1, ran
    assert "Traceback" not in ran.err
    assert not list(out.parent.glob(f"*{out.name}*")), "nothing half written"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--memory", "8 bananas"), "--memory 8 bananas is not an amount of memory"),
        (("--memory", "-8GB"), "is not an amount of memory"),
        (("--memory", "0.0000001B"), "is not an amount of memory"),
        (("--memory", "9" * 400 + "GB"), "is not an amount of memory"),
        (("--memory", "nanGB"), "is not an amount of memory"),
        (("--memory", "1e9GB"), "is not an amount of memory"),
        (("--memory", "1KB"), "a memory of 0.001 MB does not hold one block and one sample: give --memory"),
        (("--device", "cuda"), "device 'cuda' is not available: give cpu or auto"),
        (("--device", "meta"), "device 'meta' is not available: give cpu or auto"),
        (("--dtype", "int8"), "dtype 'int8' is not supported"),
    ],
)
def test_what_cannot_be_asked_for(
    options: tuple[str, str], said: str, streams: None, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path,
    command: Command,
) -> None:  # fmt: skip
    if options == ("--device", "cuda") and torch.cuda.is_available():
        pytest.skip("there is one")
    ran = command(
        "prune", tiny_checkpoint("llama"), "--out", tmp_path / "out", "--calibration", corpus, "--samples", 4, *options
    )
    refused(ran, said, tmp_path / "out")


@pytest.mark.parametrize("options", [("--method", "auto"), ("--method", "angular"), ("--compensation", "sequential")])
def test_what_takes_the_whole_model_is_refused_before_it_is_calibrated(
    options: tuple[str, str], streams: None, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path,
    command: Command,
) -> None:  # fmt: skip
    ran = command(
        "prune", tiny_checkpoint("llama"), "--out", tmp_path / "out", "--calibration", corpus, "--samples", 4, *options
    )
    refused(ran, "needs the dense model in memory", tmp_path / "out")
    assert not ran.out, "nothing was begun"


def test_amounts_are_told_as_they_may_be_given() -> None:
    for size in (1e3, 999.4e6, 999.7e6, 1e9, 5.5e9, 999.6e9, 1.34e12):
        again = parse_memory(format_bytes(size))
        assert again is not None
        assert abs(again / size - 1) < 0.006, format_bytes(size)
    with pytest.raises(InvalidRequest, match=r"ray\.memory_a_cell: memory_a_cell much is not an amount of memory"):
        study_config({"models": ["x"], "ray": {"memory_a_cell": "much"}})
    assert parse_device("cpu").type == "cpu"


def test_damaged_checkpoints_are_named_by_the_command(
    streams: None, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, command: Command
) -> None:
    base = tmp_path / "base"
    tiny_model("llama").save_pretrained(base, max_shard_size="40KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((tiny_checkpoint("llama") / name).read_bytes())
    shard = sorted(base.glob("model-*.safetensors"))[1]
    whole = shard.read_bytes()

    def prune() -> Ran:
        return command("prune", base, "--out", tmp_path / "out", "--calibration", corpus, "--samples", 4)

    shard.write_bytes(whole[:-1])
    refused(prune(), f"{shard.name} has {len(whole) - 1:,} bytes instead of {len(whole):,}", tmp_path / "out")
    shard.write_bytes(whole + b"\0")
    refused(prune(), f"{shard.name} has {len(whole) + 1:,} bytes instead of {len(whole):,}", tmp_path / "out")
    shard.unlink()
    refused(prune(), f"lacks {shard.name} of", tmp_path / "out")
    shard.write_bytes(whole)
    assert prune().code == 0


class Stopped(Exception):
    pass


def test_a_base_that_changed_between_two_stops_is_not_mixed_with_the_other(
    tiny_checkpoint: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hidden states of the pass in between are another model's; what the first pass wrote of its own is gone."""
    bases = {"one": str(tiny_checkpoint("llama")), "other": str(tmp_path / "other")}
    tiny_model("llama", seed=1).save_pretrained(bases["other"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "other" / name).write_bytes((tiny_checkpoint("llama") / name).read_bytes())
    write, left = HiddenStates.write, [0]

    def stopping(self: HiddenStates, start: int, states: torch.Tensor) -> None:
        left[0] -= 1
        if not left[0]:
            raise Stopped
        write(self, start, states)

    monkeypatch.setattr(HiddenStates, "write", stopping)

    def go(name: str, writes: int = -1) -> Any:
        left[0] = writes
        decoder = open_streamed(bases[name]).decoder
        return calibrate_streaming(decoder, tiny_calibration(), tmp_path / "w", name, in_memory=False)

    for name, writes in (("one", 6 + 1 + 1), ("other", 6 + 1)):  # in the second block, in the first
        with pytest.raises(Stopped):
            go(name, writes)
    assert_equal(go("one"), calibrate(load_model(bases["one"]).decoder, tiny_calibration()))


@pytest.mark.parametrize("damage", ["cut short", "gone", "nonsense"])
def test_a_pass_whose_files_were_damaged_begins_anew(
    damage: str, tiny_checkpoint: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, calls = open_streamed(str(tiny_checkpoint("llama"))).decoder, [0]
    plain = type(decoder).loaded

    def loaded(self: Any, block: int) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            raise Stopped
        return plain(self, block)

    monkeypatch.setattr(type(decoder), "loaded", loaded)
    with pytest.raises(Stopped):
        calibrate_streaming(decoder, tiny_calibration(), tmp_path / "w", "k", in_memory=False)
    state = json.loads((tmp_path / "w" / "state.json").read_text())
    hidden = tmp_path / "w" / f"hidden-{state['current']}.bin"
    if damage == "cut short":
        os.truncate(hidden, 100)
    elif damage == "gone":
        hidden.unlink()
    else:
        (tmp_path / "w" / "state.json").write_text(json.dumps({**state, "blocks": "all"}))
    found = calibrate_streaming(decoder, tiny_calibration(), tmp_path / "w", "k", in_memory=False)
    assert_equal(found, calibrate(load_model(str(tiny_checkpoint("llama"))).decoder, tiny_calibration()))
    assert calls[0] == 3 + 4


def test_two_calibrations_at_once_do_not_write_into_one_another(tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    decoder = open_streamed(str(tiny_checkpoint("llama"))).decoder
    code = f"""
from pathlib import Path
from prunelab.io.folder_lock import locked
with locked(Path({str(tmp_path / "w")!r})):
    print("held", flush=True)
    input()
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        said = f"{tmp_path / 'w'} is in use by another calibration (process {other.pid} on"
        with pytest.raises(InvalidRequest, match=re.escape(said)):
            calibrate_streaming(decoder, tiny_calibration(), tmp_path / "w", "k")
        other.communicate(b"\n")
    calibrate_streaming(decoder, tiny_calibration(), tmp_path / "w", "k")
    assert not (tmp_path / "w").exists()


def test_a_disk_that_knows_no_locks_is_worked_on_all_the_same(
    tiny_checkpoint: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", lacking)
    decoder = open_streamed(str(tiny_checkpoint("llama"))).decoder
    number = errno.ENOSYS
    calibrate_streaming(decoder, tiny_calibration(), tmp_path / "w", "k")
    number = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        calibrate_streaming(decoder, tiny_calibration(), tmp_path / "w", "k")


def test_too_little_disk_for_hidden_states_is_said_with_the_need(
    streams: None, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("prunelab.calibration.streaming.HiddenStates.write", lambda *_: pytest.fail("computed"))
    real = 2 * 4 * 64 * 32 * 4  # two copies of four samples of 64 tokens, 32 wide, in float32
    for free in (real, real - 1):
        usage = type("Usage", (), {"free": 10**9})
        tight = type("Usage", (), {"free": free})
        cache = str(tmp_path / "cache")
        monkeypatch.setenv("PRUNELAB_CACHE", cache)
        monkeypatch.setattr("shutil.disk_usage", lambda path: tight if str(path).startswith(cache) else usage)  # noqa: B023
        if free == real:
            with pytest.raises(pytest.fail.Exception, match="computed"):
                _prune(command, tiny_checkpoint("llama"), corpus, tmp_path / "out")
        else:
            ran = _prune(command, tiny_checkpoint("llama"), corpus, tmp_path / "out")
            refused(ran, "needs 6.55e-05 GB and its disk has 6.55e-05 GB left", tmp_path / "out")


def _prune(command: Command, base: Path, corpus: Path, out: Path, *options: object) -> Ran:
    return command(
        "prune", base, "--out", out, "--calibration", corpus, "--samples", 4, "--sequence-length", 64, "--device",
        "cpu", *options,
    )  # fmt: skip


def test_writing_that_was_stopped_leaves_nothing(
    streams: None, tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def interrupt(*_: Any) -> Any:
        assert list(tmp_path.glob(".out-*/model.safetensors")), "it is being written"
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("prunelab.checkpoint.writer.Moved.write", interrupt)
        ran = _prune(command, tiny_checkpoint("llama"), corpus, tmp_path / "out")
        assert (ran.code, list(tmp_path.glob("*out*"))) == (130, [])
    assert _prune(command, tiny_checkpoint("llama"), corpus, tmp_path / "out").code == 0
    assert load_file(tmp_path / "out" / "model.safetensors")


def test_half_precision_on_a_processor(
    tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, command: Command, streams: None
) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        out = tmp_path / name
        ran = _prune(command, tiny_checkpoint("llama"), corpus, out, "--dtype", name)
        assert ran.code == 0, ran
        written = load_file(out / "model.safetensors")
        assert {tensor.dtype for tensor in written.values()} == {dtype}
        assert all(bool(tensor.isfinite().all()) for tensor in written.values())
