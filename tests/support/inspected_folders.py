"""Folders as trainers, converters and hubs leave them: what each reader must make of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
Tensors = dict[str, Tensor]
Change = Callable[[Path], None]


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    """Change the tensors of a folder's single file."""
    tensors = change(load_file(folder / SINGLE))
    save_file({name: one.clone() for name, one in tensors.items()}, folder / SINGLE, metadata={"format": "pt"})


def configure(folder: Path, **fields: Any) -> None:
    """Set fields of config.json; those that are None are left out."""
    config = json.loads((folder / "config.json").read_text())
    config.update(fields)
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def shard(folder: Path, parts: int = 2) -> dict[str, str]:
    """Split the single file into shards with an index; gives the index's map."""
    tensors = load_file(folder / SINGLE)
    names, of_file = sorted(tensors), {}
    for number in range(parts):
        file = f"model-{number + 1:05}-of-{parts:05}.safetensors"
        own = {name: tensors[name] for name in names[number::parts]}
        save_file(own, folder / file, metadata={"format": "pt"})
        of_file.update(dict.fromkeys(own, file))
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": of_file}))
    (folder / SINGLE).unlink()
    return of_file


def in_shards(parts: int = 2) -> Change:
    def apply(folder: Path) -> None:
        shard(folder, parts)

    return apply


def tensors_by(change: Callable[[Tensors], Tensors], **fields: Any) -> Change:
    """A change of tensors, and of config.json where fields are given."""

    def apply(folder: Path) -> None:
        rewrite(folder, change)
        if fields:
            configure(folder, **fields)

    return apply


def renamed(rename: Callable[[str], str], **fields: Any) -> Change:
    return tensors_by(lambda tensors: {rename(name): one for name, one in tensors.items()}, **fields)


def with_config(**fields: Any) -> Change:
    return lambda folder: configure(folder, **fields)


def beside(*names: str) -> Change:
    """Other files, which hold the same tensors times two where they are safetensors."""

    def apply(folder: Path) -> None:
        doubled = {name: 2 * one for name, one in load_file(folder / SINGLE).items()}
        for name in names:
            if name.endswith(".safetensors"):
                save_file(doubled, folder / name)
            else:
                (folder / name).write_bytes(b"{}")

    return apply


def instead(*names: str) -> Change:
    def apply(folder: Path) -> None:
        beside(*names)(folder)
        (folder / SINGLE).unlink()

    return apply


def after(*changes: Change) -> Change:
    def apply(folder: Path) -> None:
        for change in changes:
            change(folder)

    return apply


def header(change: Callable[[dict[str, Any]], None], data: Callable[[bytes], bytes] = bytes) -> Change:
    """A change of the safetensors header itself, and of the bytes behind it."""

    def apply(folder: Path) -> None:
        content = (folder / SINGLE).read_bytes()
        length = int.from_bytes(content[:8], "little")
        fields = json.loads(content[8 : 8 + length])
        change(fields)
        text = json.dumps(fields).encode()
        (folder / SINGLE).write_bytes(len(text).to_bytes(8, "little") + text + data(content[8 + length :]))

    return apply


def _quantised(tensors: Tensors) -> Tensors:
    made: Tensors = {}
    for name, one in tensors.items():
        if name.endswith("_proj.weight"):
            made[name.replace("weight", "qweight")] = torch.zeros(
                one.shape[1] // 8 + 1, one.shape[0], dtype=torch.int32
            )
            made[name.replace("weight", "scales")] = torch.ones(1, one.shape[0])
        else:
            made[name] = one
    return made


def _as(dtype: torch.dtype, scale: str | None = None) -> Callable[[Tensors], Tensors]:
    """Projections in another number format, with a scale beside each where one is named."""

    def change(tensors: Tensors) -> Tensors:
        made: Tensors = {}
        for name, one in tensors.items():
            made[name] = one.to(dtype) if name.endswith("_proj.weight") else one
            if scale and name.endswith("_proj.weight"):
                made[name.replace("weight", scale)] = torch.ones(one.shape[0], 1)
        return made

    return change


def _all_in(dtype: torch.dtype, but: str | None = None) -> Callable[[Tensors], Tensors]:
    return lambda t: {n: one if but is not None and but in n else one.to(dtype) for n, one in t.items()}


def _head(factor: float = 1.0, name: str = "lm_head.weight") -> Callable[[Tensors], Tensors]:
    return lambda t: {**t, name: factor * t["model.embed_tokens.weight"]}


def _without(*parts: str) -> Callable[[Tensors], Tensors]:
    return lambda t: {name: one for name, one in t.items() if not any(part in name for part in parts)}


def _and(**more: Tensor) -> Callable[[Tensors], Tensors]:
    return lambda t: {**t, **{name.replace("__", "."): one for name, one in more.items()}}


def _numbered(name: str, new: Mapping[int, int]) -> str:
    for old, number in new.items():
        if f".layers.{old}." in name:
            return name.replace(f".layers.{old}.", f".layers.{number}.")
    return name


def _unindexed(folder: Path) -> None:
    """A shard holds a tensor that the index does not name."""
    of_file = shard(folder)
    lost = of_file.pop("model.norm.weight")
    assert lost
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": of_file}))


def _twice(folder: Path) -> None:
    """Two shards hold a tensor."""
    of_file = shard(folder)
    files = sorted(set(of_file.values()))
    other = next(file for file in files if file != of_file["model.norm.weight"])
    held = load_file(folder / other)
    save_file({**held, "model.norm.weight": torch.ones(32)}, folder / other)


def _stray(folder: Path) -> None:
    shard(folder)
    shutil.copy(next(folder.glob("model-*.safetensors")), folder / "model-00003-of-00003.safetensors")


def _both(folder: Path) -> None:
    shutil.copy(folder / SINGLE, folder / "kept")
    shard(folder)
    (folder / "kept").rename(folder / SINGLE)


def _index_of_single(folder: Path) -> None:
    names = load_file(folder / SINGLE)
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, SINGLE)}))


def _overlap(fields: dict[str, Any]) -> None:
    tensors = sorted((v["data_offsets"][0], k) for k, v in fields.items() if k != "__metadata__")
    size = fields[tensors[1][1]]["data_offsets"]
    size[0], size[1] = size[0] - 4, size[1] - 4


def _hole(fields: dict[str, Any]) -> None:
    del fields["model.layers.1.mlp.up_proj.weight"]


@dataclass(frozen=True)
class Opens:
    """A folder that every reader opens.

    Attributes:
        change: makes it from a copy of the variant's checkpoint.
        variant: the model.
        dtype: the number format that it has.
        tied: whether head and embedding are one.
    """

    change: Change = field(default=lambda folder: None)
    variant: str = "llama"
    dtype: str = "float32"
    tied: bool = False


@dataclass(frozen=True)
class Refused:
    """A folder that every reader refuses with the same line.

    Attributes:
        change: makes it from a copy of the variant's checkpoint.
        match: what the line says.
        variant: the model.
    """

    change: Change
    match: str
    variant: str = "llama"


TIED: dict[str, Any] = {"variant": "qwen2", "tied": True}
OPENING: dict[str, Opens] = {
    "llama": Opens(),
    "biases that config.json announces": Opens(variant="llama_biased"),
    "tied embeddings": Opens(**TIED),
    "gemma2": Opens(variant="gemma2", tied=True),
    "mistral with a window": Opens(variant="mistral_window"),
    "idefics3": Opens(variant="idefics3"),
    "smolvlm": Opens(variant="smolvlm"),
    "llava under the names of its first version": Opens(variant="llava"),
    "llava around a qwen2": Opens(variant="llava_qwen2"),
    "shards": Opens(in_shards(3)),
    "an index that names the single file": Opens(_index_of_single),
    "a stored head equal to the tied embeddings": Opens(tensors_by(_head()), **TIED),
    "a stored head that differs, though config.json ties": Opens(tensors_by(_head(1.5)), variant="qwen2"),
    "the same in shards": Opens(after(tensors_by(_head(0.5)), in_shards()), variant="gemma2"),
    "equal embeddings and head that are not tied": Opens(tensors_by(_head())),
    "only the head of a tied pair stored": Opens(
        tensors_by(lambda t: _without("embed_tokens")(_head()(t))), **TIED),
    "a head in another number format that differs": Opens(
        tensors_by(lambda t: {**t, "lm_head.weight": 1.1 * t["model.embed_tokens.weight"].half()}), variant="qwen2"),
    "no number format, bfloat16 weights": Opens(
        tensors_by(_all_in(torch.bfloat16), dtype=None), dtype="bfloat16"),
    "no number format, float16 weights in shards": Opens(
        after(tensors_by(_all_in(torch.float16), dtype=None), in_shards()), dtype="float16"),
    "no number format, norms in float32": Opens(
        tensors_by(_all_in(torch.bfloat16, but="norm"), dtype=None), dtype="float32"),
    "a number format under its old name": Opens(with_config(dtype=None, torch_dtype="bfloat16"), dtype="bfloat16"),
    "float64 weights of a float32 model": Opens(tensors_by(_all_in(torch.float64))),
    "rotary frequencies of an old version": Opens(
        tensors_by(_and(model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(2)))),
    "a masked bias of an old version": Opens(
        tensors_by(_and(model__layers__1__self_attn__masked_bias=torch.tensor(-1e4)))),
    "pickled weights beside": Opens(beside("pytorch_model.bin", "training_args.bin")),
    "a variant beside": Opens(beside("model.fp16.safetensors")),
    "another layout beside": Opens(beside("consolidated.safetensors")),
    "saved as the model without a head": Opens(renamed(lambda name: name.removeprefix("model.")), **TIED),
    "a prefix that transformers takes off": Opens(renamed(lambda name: f"model.{name}"), **TIED),
}  # fmt: skip

REFUSED: dict[str, Refused] = {
    "a head under another name": Refused(
        renamed(lambda n: n.replace("lm_head.weight", "lm_head.0.weight")), r"lm_head\.weight is not.*lm_head\.0"),
    "a head as an embedding's": Refused(
        renamed(lambda n: n.replace("lm_head.weight", "output.weight")), "output.weight, which has the same shape"),
    "no head, and none tied": Refused(
        tensors_by(_without("lm_head")), "tie_word_embeddings in config.json is false: set it to true"),
    "blocks taken out and not numbered anew": Refused(
        tensors_by(_without(".layers.1."), num_hidden_layers=3), r"numbers 0, 2-3.* renumber the stored blocks"),
    "numbered from one": Refused(
        renamed(lambda n: _numbered(n, {3: 4, 2: 3, 1: 2, 0: 1})), r"numbers 1-4.*renumber the stored.*0 are missing"),
    "a block that was not fetched": Refused(tensors_by(_without(".layers.2.")), "fetch the missing 2"),
    "fewer blocks in config.json": Refused(with_config(num_hidden_layers=3), "set num_hidden_layers to 4"),
    "more blocks in config.json": Refused(with_config(num_hidden_layers=5), "set num_hidden_layers to 4"),
    "blocks beyond counting": Refused(with_config(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "compiled": Refused(renamed(lambda n: f"_orig_mod.{n}"), r"wrapper \(_orig_mod\.\).*tensor is called \w"),
    "data parallel": Refused(renamed(lambda n: f"module.{n}"), r"wrapper \(module\.\)"),
    "of peft": Refused(renamed(lambda n: f"base_model.model.{n}"), r"wrapper \(base_model\."),
    "checkpointed blocks": Refused(
        renamed(lambda n: n.replace(".self_attn.", "._checkpoint_wrapped_module.self_attn.")),
        r"wrapper \(_checkpoint_wrapped_module\.\)"),
    "inside another model": Refused(renamed(lambda n: f"policy.net.{n}"), r"wrapper \(policy\.net\.\)"),
    "an adapter that was not merged": Refused(
        renamed(lambda n: n.replace("q_proj.weight", "q_proj.base_layer.weight")), "merge the adapter, and save"),
    "GPTQ": Refused(tensors_by(_quantised), r"quantised \(.*(qweight|scales) is stored\)"),
    "int8 with scales": Refused(tensors_by(_as(torch.int8, "weight_scale")), r"quantised \(.*weight_scale is "),
    "int8 without scales": Refused(tensors_by(_as(torch.int8)), r"quantised \(.* as int8 is stored"),
    "fp8": Refused(tensors_by(_as(torch.float8_e4m3fn, "weight_scale_inv")), "as F8_E4M3, which cannot be pruned"),
    "bits and bytes": Refused(
        tensors_by(lambda t: {**t, "model.layers.0.mlp.up_proj.weight.absmax": torch.ones(3)}), "quantised .*absmax"),
    "quantised, and announced": Refused(
        with_config(quantization_config={"quant_method": "gptq", "bits": 4}), "is quantised, and cannot be pruned"),
    "biases that config.json does not announce": Refused(
        tensors_by(lambda t: {**t, **{f"model.layers.{i}.self_attn.q_proj.bias": torch.ones(32) for i in range(4)}}),
        r"q_proj\.bias and 3 more are stored.*set attention_bias or mlp_bias to true"),
    "announced biases that are not there": Refused(
        with_config(attention_bias=True), r"self_attn\.\w_proj\.bias and 15 more, which the"),
    "a norm missing": Refused(tensors_by(_without("model.norm")), r"model\.norm\.weight, which the model needs"),
    "a value head left over": Refused(tensors_by(_and(v_head__summary__weight=torch.ones(1, 32))), "v_head.summary"),
    "more tokens than config.json says": Refused(
        with_config(vocab_size=250), r"shape \(258, 32\).*implies \(250, 32\): correct vocab_size"),
    "a wider MLP than config.json says": Refused(with_config(intermediate_size=44), "correct intermediate_size"),
    "fewer key-value heads": Refused(with_config(num_key_value_heads=2), r"[kv]_proj\.weight \(and \d+ more\) is "),
    "two names of one tensor": Refused(
        tensors_by(lambda t: {**t, "norm.weight": torch.ones(32)}), r"norm\.weight are both stored for model\.norm"),
    "a single file beside shards": Refused(_both, "which may be two models"),
    "a stray shard": Refused(_stray, "model-00003-of-00003.safetensors beside the shards"),
    "a stray shard beside a single file": Refused(
        beside("model-00001-of-00002.safetensors"), "model-00001-of-00002.safetensors beside model.safetensors"),
    "a distributed checkpoint beside": Refused(
        beside("shard-00000-model-00001-of-00001.safetensors"), "shard-00000-model-00001-of-00001"),
    "shards without their index": Refused(
        after(in_shards(), lambda f: (f / INDEX).unlink()), f"but no {INDEX}: fetch the index"),
    "an index that leaves a tensor out": Refused(_unindexed, r"holds model\.norm\.weight, which .* does not name"),
    "a tensor in two shards": Refused(_twice, r"holds model\.norm\.weight twice"),
    "pickled weights only": Refused(instead("pytorch_model.bin"), "pickled weights .*never opens"),
    "a variant only": Refused(instead("model.fp16.safetensors"), "rename the file to model.safetensors"),
    "another layout only": Refused(instead("consolidated.safetensors"), "consolidated.safetensors but neither"),
    "nothing at all": Refused(instead(), "has neither model.safetensors nor"),
    "weights under a name of config.json's": Refused(
        after(beside("other.safetensors"), with_config(transformers_weights="other.safetensors")),
        "transformers_weights in config.json names other.safetensors"),
    "an adapter beside": Refused(
        beside("adapter_config.json", "adapter_model.safetensors"), "beside a model: merge the adapter first"),
    "an adapter's weights beside": Refused(beside("adapter_model.safetensors"), "merge the adapter first"),
    "an adapter instead": Refused(
        after(instead("adapter_config.json", "adapter_model.safetensors"), lambda f: (f / "config.json").unlink()),
        "and no model: merge the adapter first"),
    "a number format in which nothing computes": Refused(with_config(dtype="int8"), "dtype is 'int8'"),
    "overlapping tensors": Refused(header(_overlap), "overlaps the tensor before it by 4 bytes"),
    "bytes between tensors": Refused(
        header(_hole), "bytes before .* belong to no tensor"),
    "bytes behind the tensors": Refused(header(lambda h: None, lambda data: data + bytes(8)), "bytes instead of"),
    "a missing projection inside a vision-language model": Refused(
        tensors_by(_without("layers.1.mlp.up_proj")), "layers.1.mlp.up_proj.weight, which the model needs", "llava"),
    "a vision encoder left out": Refused(
        tensors_by(_without("vision_model")), r"vision_model\.\S+ and \d+ more, which the model needs", "idefics3"),
}  # fmt: skip
