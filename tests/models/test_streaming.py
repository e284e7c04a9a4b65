"""Calibrated and pruned block by block from the disk: the numbers and files of the way through memory."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import VARIANTS, Ran, byte_tokenizer, tiny_calibration, tiny_model
from safetensors.torch import load_file, save_file
from torch import nn

from prunelab.calibration import ActivationStatistics, CalibrationSet, calibrate
from prunelab.calibration.streaming import HiddenStates, calibrate_streaming
from prunelab.checkpoint.save import save_checkpoint
from prunelab.checkpoint.streamed_save import save_streamed
from prunelab.checkpoint.writer import Announced, Moved, write_tensors
from prunelab.errors import CheckpointError, InvalidRequest, NonFiniteValue
from prunelab.models.families import BlockShape
from prunelab.models.loading import load_model
from prunelab.models.memory import Eyes, parse_memory, plan_streaming
from prunelab.models.streaming.model import StreamedModel, open_model, open_streamed
from prunelab.models.tensor_files import TensorFiles
from prunelab.pruning.apply import PruningOptions, calibrated, make_pruning_plan, pruned_model
from prunelab.pruning.methods import methods

CheckpointOf = Callable[[str], Path]


def assert_equal(one: ActivationStatistics, other: ActivationStatistics) -> None:
    assert one.tokens == other.tokens
    assert torch.equal(one.cosine_sum, other.cosine_sum)
    for a, b in zip((*one.attention, *one.mlp), (*other.attention, *other.mlp), strict=True):
        assert a.count == b.count
        assert torch.equal(a.mean, b.mean)
        assert torch.equal(a.deviations, b.deviations)
    assert one.provenance == other.provenance


@pytest.mark.parametrize("variant", VARIANTS)
def test_block_by_block_is_the_one_pass_to_the_bit(variant: str, tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    folder = str(tiny_checkpoint(variant))
    for dtype in ("float32", "bfloat16"):
        whole, streamed = load_model(folder, dtype=dtype), open_streamed(folder, dtype=dtype)
        assert streamed.fingerprint == whole.fingerprint
        assert (streamed.dtype, streamed.device, streamed.context_length) == (dtype, whole.device, 256)
        expected = calibrate(whole.decoder, tiny_calibration(), tokens_a_batch=60)
        for in_memory in (True, False):
            done: list[int] = []
            found = calibrate_streaming(
                streamed.decoder, tiny_calibration(), tmp_path / "work", "k", in_memory=in_memory, tokens_a_batch=60,
                progress=done.append,
            )  # fmt: skip
            assert_equal(found, expected)
            assert done[-1] == 6
            assert done == sorted(done)
            assert not (tmp_path / "work").exists()
    assert all(p.is_meta for p in streamed.model.parameters()), "nothing stays behind"


def test_padding_is_left_out_as_in_the_one_pass(tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    for variant in ("llama", "gemma2"):
        folder = str(tiny_checkpoint(variant))
        ids = tiny_calibration().token_ids
        mask = torch.ones_like(ids)
        mask[1::2, -7:] = 0
        padded = CalibrationSet(ids, mask)
        expected = calibrate(load_model(folder).decoder, padded, tokens_a_batch=60)
        found = calibrate_streaming(open_streamed(folder).decoder, padded, tmp_path / "w", "k", tokens_a_batch=60)
        assert_equal(found, expected)


class Stopped(Exception):
    pass


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_pass_that_was_stopped_goes_on_at_its_block(
    in_memory: bool, tiny_checkpoint: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, calibration = str(tiny_checkpoint("llama")), tiny_calibration()
    expected = calibrate(load_model(folder).decoder, calibration, tokens_a_batch=48)
    ran: list[int] = []
    model = open_streamed(folder)
    plain = model.decoder.loaded

    def loaded(block: int) -> AbstractContextManager[nn.Module]:
        ran.append(block)
        return plain(block)

    monkeypatch.setattr(model.decoder, "loaded", loaded)
    writes: list[int] = []
    write = HiddenStates.write

    def stopping(self: HiddenStates, start: int, states: torch.Tensor) -> None:
        writes.append(start)
        # 6 samples embedded, then 3 batches a block: within the third block
        if len(writes) == 6 + 3 + 3 + 2:
            raise Stopped
        write(self, start, states)

    monkeypatch.setattr(HiddenStates, "write", stopping)

    said: list[str] = []

    def go(key: str = "k") -> ActivationStatistics:
        return calibrate_streaming(
            model.decoder, calibration, tmp_path / "work", key, in_memory=in_memory, tokens_a_batch=48, note=said.append
        )

    with pytest.raises(Stopped):
        go()
    assert ran == [0, 1, 2]
    assert not said
    ran.clear()
    assert_equal(go(), expected)
    assert ran == [2, 3]
    assert said == ["calibration resumes after block 2 of 4, where it was interrupted"]
    writes[:] = [0] * 20  # stopped no more
    ran.clear()
    state = tmp_path / "work" / "state.json"
    state.parent.mkdir()
    state.write_text(json.dumps({"key": "another", "blocks": 3, "current": 0}))
    assert_equal(go(), expected)
    assert ran == [0, 1, 2, 3], "another's pass is not gone on with"


def test_nan_is_named_by_its_layer(tmp_path: Path) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[3] = float("nan")
    model.save_pretrained(tmp_path / "m")
    byte_tokenizer().save_pretrained(tmp_path / "m")
    decoder = open_streamed(str(tmp_path / "m")).decoder
    with pytest.raises(NonFiniteValue, match=r"model\.layers\.2\.mlp\.down_proj"):
        calibrate_streaming(decoder, tiny_calibration(), tmp_path / "work", "k")


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix != ".safetensors"}


@pytest.mark.parametrize("variant", ["llama", "llama_biased", "qwen2", "gemma2", "mistral_window"])
def test_every_method_that_is_arithmetic_makes_the_same_checkpoint(
    variant: str, tiny_checkpoint: CheckpointOf, tmp_path: Path
) -> None:
    folder, calibration = str(tiny_checkpoint(variant)), tiny_calibration()
    whole, streamed = load_model(folder), open_streamed(folder)
    statistics = calibrated(streamed, calibration, tmp_path / "s.safetensors")
    assert_equal(statistics, calibrated(whole, calibration, tmp_path / "s.safetensors"))
    names = [method.name for method in methods.values() if not (method.needs_loss or method.runs_model)]
    assert {"shortgpt", "flap", "magnitude_width"} <= set(names)
    for name in names:
        for uniform in {False, name == "flap"}:
            options = PruningOptions(uniform=uniform)
            plans = [
                make_pruning_plan(m, name, 0.3, statistics=statistics, calibration=calibration, options=options)
                for m in (whole, streamed)
            ]
            assert plans[0] == plans[1]
            one, other = tmp_path / f"{name}-{uniform}-whole", tmp_path / f"{name}-{uniform}-streamed"
            save_checkpoint(pruned_model(whole, plans[0], statistics), plans[0], one, command="c")
            save_streamed(streamed, plans[1], statistics, other, command="c")
            assert files(one) == files(other)
            expected = load_file(one / "model.safetensors")
            found = load_file(other / "model.safetensors")
            assert expected.keys() == found.keys()
            assert all(torch.equal(expected[tensor], found[tensor]) for tensor in expected)


@pytest.mark.parametrize("variant", ["llama", "llama_biased", "qwen2", "gemma2", "mistral_window"])
def test_least_squares_block_by_block_makes_the_same_checkpoint(
    variant: str, tiny_checkpoint: CheckpointOf, tmp_path: Path
) -> None:
    folder, calibration = str(tiny_checkpoint(variant)), tiny_calibration(samples=20)
    whole, streamed = load_model(folder), open_streamed(folder)
    statistics = calibrated(whole, calibration, tmp_path / "s.safetensors")
    for method in ("shortgpt+least_squares", "flap+least_squares"):
        plan = make_pruning_plan(streamed, method, 0.3, statistics=statistics, calibration=calibration)
        one, other = tmp_path / f"{method}-whole", tmp_path / f"{method}-streamed"
        save_checkpoint(pruned_model(whole, plan, statistics, calibration), plan, one, command="c")
        save_streamed(streamed, plan, statistics, other, calibration, command="c")
        assert files(one) == files(other)
        expected, found = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[tensor], found[tensor]) for tensor in expected)
    assert all(p.is_meta for p in streamed.model.parameters()), "nothing stays behind"
    with pytest.raises(InvalidRequest, match="needs the calibration tokens"):
        save_streamed(streamed, plan, statistics, tmp_path / "out")


def test_a_checkpoint_in_shards_loads_and_is_read_again(tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    folder = str(tiny_checkpoint("llama"))
    streamed = open_streamed(folder)
    plan = make_pruning_plan(streamed, "random_depth", 0.25)
    save_streamed(streamed, plan, None, tmp_path / "out", shard_bytes=30_000)
    assert len(list((tmp_path / "out").glob("model-*-of-*.safetensors"))) > 2
    again = load_model(str(tmp_path / "out"))
    expected = pruned_model(load_model(folder), plan)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(again.model(ids).logits, expected.model(ids).logits)
    assert open_streamed(str(tmp_path / "out")).fingerprint == again.fingerprint
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_parameters"] == again.decoder.parameters
    shard = tmp_path / "out" / "model-00002-of-00003.safetensors"
    shard = shard if shard.exists() else sorted((tmp_path / "out").glob("model-00002-*"))[0]
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-10])
    for opening in (open_streamed, load_model):
        with pytest.raises(CheckpointError, match=rf"{shard.name} has [\d,]+ bytes instead of"):
            opening(str(tmp_path / "out"))
    shard.unlink()
    for opening in (open_streamed, load_model):
        with pytest.raises(CheckpointError, match=f"lacks {shard.name} of"):
            opening(str(tmp_path / "out"))


def test_tensors_survive_the_file(tmp_path: Path) -> None:
    tensors = {
        "a": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3), "none": torch.zeros(4, 0), "b": torch.tensor([True]),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
    }  # fmt: skip
    announced = [Announced(name, tuple(t.shape), t.dtype) for name, t in tensors.items()]
    write_tensors(tmp_path, announced, tensors.items(), 7)
    assert all(torch.equal(load_file(tmp_path / "model.safetensors")[name], t) for name, t in tensors.items())
    read = TensorFiles.open(tmp_path)
    assert all(torch.equal(read.tensors[name].read(), t) for name, t in tensors.items())
    assert read.bytes == 12 + 1 + 8
    (tmp_path / "model.safetensors").write_bytes(b"nonsense" * 20)
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        TensorFiles.open(tmp_path)


def refused(*_: Any) -> int:
    raise OSError(errno.EXDEV, "Invalid cross-device link")


@pytest.mark.parametrize("system", ["moves", "moves nothing", "refuses", "lacks it"])
def test_rows_are_moved_from_file_to_file(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if system == "lacks it":
        monkeypatch.delattr(os, "copy_file_range")
    elif system != "moves":
        monkeypatch.setattr(os, "copy_file_range", refused if system == "refuses" else lambda *_: 0)
    tensor = torch.randn(9, 5)
    save_file({"before": torch.zeros(3), "t": tensor}, tmp_path / "model.safetensors")
    stored = TensorFiles.open(tmp_path).tensors["t"]
    for rows in (None, [0, 1, 4, 6, 7, 8], [3], []):
        whole = Moved(stored, None if rows is None else torch.tensor(rows, dtype=torch.long))
        expected = tensor if rows is None else tensor[rows]
        with (tmp_path / "moved").open("wb", buffering=0) as file:
            file.write(b"in front")
            whole.write(file)
        assert (tmp_path / "moved").read_bytes() == b"in front" + expected.numpy().tobytes()
    os.truncate(stored.file, stored.offset + 100)
    with (
        (tmp_path / "moved").open("wb", buffering=0) as file,
        pytest.raises(CheckpointError, match="was truncated while it was read"),
    ):
        Moved(stored).write(file)
    with pytest.raises(CheckpointError, match="was truncated while it was read"):
        list(stored.parts(2))


def test_what_takes_the_whole_model_is_refused_by_name(tiny_checkpoint: CheckpointOf) -> None:
    streamed = open_streamed(str(tiny_checkpoint("llama")))
    with pytest.raises(InvalidRequest, match=r"hybrid compares candidates by their loss.*give more --memory.*flap"):
        make_pruning_plan(streamed, "hybrid", 0.2)
    with pytest.raises(InvalidRequest, match="sequential compensation needs the dense model in memory"):
        make_pruning_plan(streamed, "magnitude_width", 0.2, options=PruningOptions(compensation="sequential"))


def test_the_budget_decides(tiny_checkpoint: CheckpointOf) -> None:
    folder = str(tiny_checkpoint("llama"))
    size = open_streamed(folder).weight_bytes
    assert isinstance(open_model(folder, memory=2 * size - 1), StreamedModel)
    assert not isinstance(open_model(folder, memory=2 * size), StreamedModel)
    assert not isinstance(open_model(folder), StreamedModel)


LLAMA_3_8B: dict[str, Any] = {
    "shapes": [BlockShape(4096, 8, 4, 128, 14336)] * 32, "itemsize": 2, "vocabulary": 128256, "samples": 64,
    "sequence_length": 512, "tokens_a_batch": 4096,
}  # fmt: skip


def test_hidden_states_leave_memory_before_batches_become_smaller() -> None:
    def plan(budget: float) -> tuple[bool, int]:
        found = plan_streaming(**LLAMA_3_8B, budget=int(budget * 1e9), already=int(0.7e9))
        assert found.need <= budget * 1e9
        return found.in_memory, found.tokens_a_batch

    assert plan(4) == (True, 4096)
    least = next(budget / 100 for budget in range(400, 0, -1) if plan(budget / 100)[0] is False)
    assert plan(least) == (False, 4096)
    assert plan(1.8) == (False, 512)
    eyes = Eyes(weights=int(2e9), a_sample=int(1e9))  # of the eight samples of a batch that is not made smaller
    assert plan_streaming(**LLAMA_3_8B, budget=int(11e9), already=0, eyes=eyes).tokens_a_batch == 4096
    assert plan_streaming(**LLAMA_3_8B, budget=int(9e9), already=0, eyes=eyes).tokens_a_batch == 512
    with pytest.raises(InvalidRequest, match=r"does not hold one block and one sample: give --memory 1\.\d+GB or more"):
        plan(1)


@pytest.mark.parametrize(("text", "size"), [("8GB", 8e9), ("7.5 GiB", 7.5 * 2**30), ("500mb", 5e8), (None, None)])
def test_amounts_of_memory(text: str | None, size: float | None) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["8", "GB", "-1GB", "8 bananas", "0GB"])
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is not an amount of memory: give one such as 8GB"):
        parse_memory(text)


def test_the_command_streams_what_does_not_fit_and_says_so(
    tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, command: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder = tiny_checkpoint("llama")
    options = ("--calibration", corpus, "--samples", 4, "--sequence-length", 64, "--device", "cpu", "--ratio", 0.2)
    ran = command("prune", folder, "--out", tmp_path / "whole", *options)
    assert ran.code == 0, ran
    assert "block by block" not in ran.out
    monkeypatch.setattr("prunelab.models.streaming.model.is_too_large", lambda weights, budget: True)
    monkeypatch.setenv("PRUNELAB_CACHE", str(tmp_path / "cache"))
    ran = command("prune", folder, "--out", tmp_path / "streamed", "--memory", "8GB", *options)
    assert ran.code == 0, ran
    assert "do not fit in --memory: they are read block by block" in ran.out
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "streamed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    ran = command("prune", folder, "--out", tmp_path / "h", "--method", "hybrid", *options)
    assert (ran.code, "hybrid compares candidates" in ran.err) == (2, True)


def test_too_little_disk_is_said_before_anything_is_computed(
    tiny_checkpoint: CheckpointOf, corpus: Path, tmp_path: Path, command: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    monkeypatch.setattr("prunelab.calibration.cache.calibrate", lambda *_, **__: pytest.fail("computed"))
    ran = command("prune", tiny_checkpoint("llama"), "--out", tmp_path / "o", "--calibration", corpus, "--samples", 4)
    assert ran.code == 2
    assert "needs" in ran.err
    assert "its disk has" in ran.err
