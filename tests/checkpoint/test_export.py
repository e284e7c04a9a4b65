"""`prunelab export` as its user meets it, and what a GGUF file holds."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ran, make_tiny, tiny_model
from test_cli import quick, refused

from prunelab.checkpoint.gguf.architecture import layout_of
from prunelab.checkpoint.gguf.export import export_gguf
from prunelab.checkpoint.gguf.tensors import named_tensors, neighbours_rotate
from prunelab.checkpoint.gguf.tokenizer import vocabulary_of
from prunelab.errors import DiskFull, UnsupportedModel
from prunelab.models.loading import LanguageModel, load_model

gguf: Any = pytest.importorskip("gguf", reason="needs pip install 'prunelab[gguf]'")
Command = Callable[..., Ran]


@pytest.fixture
def pocket(tmp_path: Path) -> Path:
    """A checkpoint with a tokenizer that llama.cpp knows."""
    from prunelab.models.bundled import checkpoint_of

    folder = checkpoint_of("pocket-llama")
    assert folder is not None
    return folder


def fields(path: Path) -> dict[str, Any]:
    reader = gguf.GGUFReader(path)
    return {name: field.contents() for name, field in reader.fields.items()}


def test_the_command_writes_a_pruned_model(command: Command, pocket: Path, corpus: Path, tmp_path: Path) -> None:
    pruned, out = tmp_path / "pruned", tmp_path / "models" / "pruned.gguf"
    assert command("prune", pocket, "--out", pruned, *quick(corpus)).code == 0
    ran = command("export", pruned, "--to", "gguf", "--out", out, "--type", "q8_0")
    assert ran.code == 0, ran
    assert "llama.cpp architecture deci" in ran.out
    assert f"llama-server -m {out}" in ran.out
    found = fields(out)
    config = json.loads((pruned / "config.json").read_text())
    own = [config["per_layer_config"].get(str(i), {}) for i in range(config["num_hidden_layers"])]
    groups, channels = (
        [{**config, **one}[name] for one in own] for name in ("num_key_value_heads", "intermediate_size")
    )
    assert found["deci.attention.head_count_kv"] == groups
    assert found["deci.feed_forward_length"] == [-(-count // 32) * 32 for count in channels]
    assert found["tokenizer.chat_template"] == (pocket / "chat_template.jinja").read_text()
    assert found["tokenizer.ggml.pre"] == "qwen2"
    refused(command("export", pruned, "--out", out), "exists", "--overwrite")
    assert command("export", pruned, "--out", out, "--overwrite").code == 0


def test_places_that_cannot_be_written(
    command: Command, pocket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    refused(command("export", pocket, "--out", tmp_path / "file" / "x.gguf"), "is a file, not a folder")
    refused(command("export", pocket, "--out", tmp_path), "is a folder, and the output is a file")
    refused(command("export", pocket, "--out", tmp_path / ("x" * 300)), "cannot be written (File name too long)")
    refused(command("export", pocket, "--out", "/dev/null", "--overwrite"), "neither a file nor a folder")
    refused(command("export", pocket, "--out", "/proc/x.gguf"), "/proc/x.gguf", "choose another path")
    with monkeypatch.context() as patch:
        patch.setattr("prunelab.models.loading.load_model", lambda *_, **__: pytest.fail("too early"))
        patch.setattr("prunelab.io.atomic_write.os.access", lambda *_: False)
        refused(command("export", pocket, "--out", tmp_path / "x.gguf"), f"{tmp_path} is not writable")

    def forbidden(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("prunelab.io.unfinished.tempfile.mkstemp", forbidden)
    refused(command("export", pocket, "--out", tmp_path / "x.gguf"), "x.gguf cannot be written", "choose another path")


def test_no_room(pocket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunelab.io.atomic_write.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(DiskFull, match="needs"):
        export_gguf(load_model(str(pocket), device="cpu"), tmp_path / "x.gguf")
    assert not list(tmp_path.iterdir())


def test_without_the_package(command: Command, pocket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    refused(command("export", pocket, "--out", tmp_path / "x.gguf"), "pip install 'prunelab[gguf]'")


def test_unknown_types_and_formats(command: Command, pocket: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.gguf"
    refused(command("export", pocket, "--out", out, "--type", "q4_k"), "--type", "'q8_0'")
    refused(command("export", pocket, "--out", out, "--to", "onnx"), "--to", "'gguf'")


def with_tokenizer(model: LanguageModel, changes: dict[str, Any]) -> LanguageModel:
    """The model with parts of its tokenizer.json replaced."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    whole = {**json.loads(model.tokenizer.backend_tokenizer.to_str()), **changes}
    core = Tokenizer.from_str(json.dumps(whole))
    return LanguageModel(model.name, model.model, PreTrainedTokenizerFast(tokenizer_object=core))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
         "adds a space before"),
        ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "a+"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}]}},
         r"pre-tokenizer Split\(pattern=\"a\+\".*then ByteLevel"),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}},
         r"normalizer Lowercase\(\)"),
        ({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}, "added_tokens": []}, "WordLevel"),
    ],
)  # fmt: skip
def test_tokenizers_that_llama_cpp_does_not_compute(changes: dict[str, Any], text: str, pocket: Path) -> None:
    model = with_tokenizer(load_model(str(pocket), device="cpu"), changes)
    with pytest.raises(UnsupportedModel, match=text):
        vocabulary_of(model)


def test_all_chat_templates_come_along(pocket: Path, tmp_path: Path) -> None:
    model = load_model(str(pocket), device="cpu")
    model.tokenizer.chat_template = {"default": "D", "tool_use": "T", "with-hyphen": "H", "with_hyphen": "U"}
    notes = export_gguf(model, tmp_path / "x.gguf").notes
    found = fields(tmp_path / "x.gguf")
    assert found["tokenizer.chat_template"] == "D"
    assert set(found["tokenizer.chat_templates"]) == {"tool_use", "with_hyphen"}
    assert found["tokenizer.chat_template.tool_use"] == "T"
    assert found["tokenizer.chat_template.with_hyphen"] == "H"
    assert [note for note in notes if "'with_hyphen' is left out" in note]


def test_chat_templates_without_a_default(pocket: Path, tmp_path: Path) -> None:
    model = load_model(str(pocket), device="cpu")
    model.tokenizer.chat_template = {"rag": "R"}
    notes = export_gguf(model, tmp_path / "x.gguf").notes
    found = fields(tmp_path / "x.gguf")
    assert "tokenizer.chat_template" not in found
    assert found["tokenizer.chat_template.rag"] == "R"
    assert "no chat template is called default" in notes[-1]


def test_no_chat_template_is_none(pocket: Path, tmp_path: Path) -> None:
    model = load_model(str(pocket), device="cpu")
    model.tokenizer.chat_template = None
    assert export_gguf(model, tmp_path / "x.gguf").notes == ()
    assert not [name for name in fields(tmp_path / "x.gguf") if "chat_template" in name]


@pytest.mark.parametrize(
    ("variant", "changes", "text"),
    [
        ("llama", {"hidden_act": "gelu"}, "has the activation gelu"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "of type dynamic"),
        ("gemma2", {"final_logit_softcapping": None}, "without soft-capped logits"),
        ("gemma2", {"use_bidirectional_attention": True}, "bidirectional attention"),
        (
            "gemma2",
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
            "scaled rotary positions",
        ),
    ],
)
def test_models_that_llama_cpp_does_not_compute(variant: str, changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UnsupportedModel, match=text):
        layout_of(make_tiny(variant, **changes).model)


@pytest.fixture
def mapped(command: Command, tiny_checkpoint: Callable[[str], Path], corpus: Path, tmp_path: Path) -> Path:
    """A Gemma-2 that keeps the linear map in place of a removed block behind a norm."""
    out = tmp_path / "mapped"
    ran = command("prune", tiny_checkpoint("gemma2"), "--method", "replaceme", "--ratio", 0.25, "--out", out,
                  *quick(corpus))  # fmt: skip
    assert ran.code == 0, ran
    return out


def test_a_linear_map_behind_a_norm_is_refused(command: Command, mapped: Path, tmp_path: Path) -> None:
    out = tmp_path / "models" / "x.gguf"
    for more in ([], ["--pad-widths"], ["--type", "f32"]):
        refused(
            command("export", mapped, "--out", out, *more),
            "mapped has a linear map after a norm (block",
            "llama.cpp has no such tensor in a gemma2",
            "prune the dense model again with --compensation none",
        )
        assert not out.parent.exists(), "nothing was written"
    card = (mapped / "README.md").read_text()
    assert "prunelab export PATH" not in card
    assert "llama.cpp cannot serve this model. `prunelab export` refuses it: tiny-gemma2-replaceme" in card
    assert "has a linear map after a norm (block 2)" in card
    assert "The model has a linear map in place of removed blocks, which the stock classes" in card


def test_what_has_no_place_in_a_block_is_refused() -> None:
    model = make_tiny("qwen2").model
    model.decoder.blocks[1].self_attn.register_parameter(  # type: ignore[union-attr]
        "q_norm_weight", torch.nn.Parameter(torch.ones(8))
    )
    with pytest.raises(UnsupportedModel, match=r"has self_attn\.q_norm_weight in its blocks, for which llama.cpp"):
        layout_of(model)


def test_rotary_channels_become_neighbours() -> None:
    rows = torch.arange(8)[:, None]  # two heads of four channels
    assert neighbours_rotate(rows, 4).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_biases_of_zeros_are_left_out() -> None:
    model = make_tiny("llama_biased").model
    for block in model.decoder.blocks:
        for name, parameter in block.named_parameters():
            if name.endswith("bias") and "down" not in name:
                parameter.data.zero_()
    names = [tensor.name for tensor in named_tensors(model, layout_of(model))]
    assert [name for name in names if name.endswith("bias")] == [f"blk.{i}.ffn_down.bias" for i in range(4)]


def test_numbers_too_large_for_f16(pocket: Path, tmp_path: Path) -> None:
    model = load_model(str(pocket), device="cpu", dtype="float32")
    model.decoder.blocks[0].mlp.up_proj.weight.data[0, 0] = 1e6  # type: ignore[union-attr,operator]
    with pytest.raises(Exception, match=r"blk.0.ffn_up.weight has values outside the range of f16: give --type bf16"):
        export_gguf(model, tmp_path / "x.gguf", "f16")
    assert not list(tmp_path.iterdir())


def test_tied_embeddings_are_written_once() -> None:
    tied = LanguageModel("tied", tiny_model("qwen2"), make_tiny("qwen2").model.tokenizer)
    untied = LanguageModel("untied", tiny_model("llama"), tied.tokenizer)
    for model, expected in ((tied, 0), (untied, 1)):
        names = [tensor.name for tensor in named_tensors(model, layout_of(model))]
        assert names.count("output.weight") == expected
