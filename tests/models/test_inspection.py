"""A folder's tensors are its model's, or it is refused; the head follows the weights through every cut."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import Ran, Tiny, make_tiny, tiny_calibration, tiny_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inspected_folders import configure, rewrite, shard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.utils.hub import cached_file

from prunelab.checkpoint.save import save_checkpoint
from prunelab.checkpoint.streamed_save import save_streamed
from prunelab.checkpoint.vision_language import extract_language_model, reconnect
from prunelab.checkpoint.writer import Announced, _header_bytes
from prunelab.errors import CheckpointError
from prunelab.models.bundled import ALL_MODELS
from prunelab.models.families import decoder_of
from prunelab.models.inspection import findings
from prunelab.models.loading import LanguageModel, inspected, load_model
from prunelab.models.mismatch import Mismatch
from prunelab.models.streaming.model import open_streamed
from prunelab.models.tying import config_of, is_tied, with_flag
from prunelab.pruning.allocation import KeptUnits
from prunelab.pruning.apply import PruningOptions, calibrated, make_pruning_plan, pruned_model
from prunelab.pruning.methods import methods
from prunelab.pruning.plan import PruningPlan
from prunelab.pruning.surgery import cut

CheckpointOf = Callable[[str], Path]
Command = Callable[..., Ran]
REAL = Path("~/.cache/prunelab-real-models").expanduser()
QUICK = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def _corrections_are_no_errors() -> Iterator[None]:
    """What is corrected is told as a warning, which tests elsewhere take for an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def copy(tiny_checkpoint: CheckpointOf, variant: str, folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(tiny_checkpoint(variant), folder)
    return folder


def with_own_head(folder: Path, factor: float = 1.5) -> Path:
    """A head that differs, in a folder whose config.json ties."""
    embedding = next(name for name in load_file(folder / "model.safetensors") if name.endswith("embed_tokens.weight"))
    head = "language_model.lm_head.weight" if embedding.startswith("language_model.") else "lm_head.weight"
    rewrite(folder, lambda tensors: {**tensors, head: factor * tensors[embedding]})
    configure(folder, tie_word_embeddings=True)
    return folder


# Any tensor of any model


@QUICK
@given(variant=st.sampled_from(["llama", "qwen2", "gemma2", "idefics3", "llava"]), place=st.integers(0, 999))
def test_any_tensor_that_is_missing_is_named(
    variant: str, place: int, tiny_checkpoint: CheckpointOf, tmp_path: Path
) -> None:
    folder = copy(tiny_checkpoint, variant, tmp_path / "m")
    names = sorted(load_file(folder / "model.safetensors"))
    lost = names[place % len(names)]
    rewrite(folder, lambda tensors: {name: one for name, one in tensors.items() if name != lost})
    with pytest.raises(CheckpointError) as raised:
        inspected(str(folder))
    assert ".".join(lost.split(".")[-2:]) in str(raised.value)


@QUICK
@given(
    variant=st.sampled_from(["llama", "qwen2", "mistral_window", "smolvlm", "llava_qwen2"]), place=st.integers(0, 999),
    grown=st.booleans(),
)  # fmt: skip
def test_any_tensor_of_another_shape_is_named(
    variant: str, place: int, grown: bool, tiny_checkpoint: CheckpointOf, tmp_path: Path
) -> None:
    folder = copy(tiny_checkpoint, variant, tmp_path / "m")
    names = sorted(load_file(folder / "model.safetensors"))
    changed = names[place % len(names)]

    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        one = tensors[changed]
        return {**tensors, changed: torch.cat([one, one[:1]]) if grown else one[1:]}

    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=r"is stored with shape \(.*config\.json implies") as raised:
        inspected(str(folder))
    assert changed in str(raised.value)


names_of_wrappers = st.from_regex(r"[a-z_]{3,12}(\.[a-z_]{3,12}){0,2}", fullmatch=True)


@QUICK
@given(prefix=names_of_wrappers, variant=st.sampled_from(["llama", "gemma2", "idefics3"]))
def test_any_wrapper_is_named(prefix: str, variant: str, tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    folder = copy(tiny_checkpoint, variant, tmp_path / "m")
    rewrite(folder, lambda tensors: {f"{prefix}.{name}": one for name, one in tensors.items()})
    if prefix == "model":  # transformers takes it off
        assert inspected(str(folder))
        return
    with pytest.raises(CheckpointError, match=r"wrapper|is not stored|which the model needs"):
        inspected(str(folder))


@QUICK
@given(extra=st.from_regex(r"[a-z]{2,8}(\.[a-z0-9]{1,8}){1,3}\.(weight|bias)", fullmatch=True))
def test_anything_left_over_is_named(extra: str, tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    folder = copy(tiny_checkpoint, "llama", tmp_path / "m")
    rewrite(folder, lambda tensors: {**tensors, extra: torch.ones(3)})
    with pytest.raises(CheckpointError) as raised:
        inspected(str(folder))
    assert extra in str(raised.value)


def test_what_the_inspection_overlooks_is_not_filled_at_random(
    tiny_checkpoint: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second net: what transformers itself reports of its reading."""
    folder = copy(tiny_checkpoint, "llama", tmp_path / "m")
    rewrite(folder, lambda tensors: {name: one for name, one in tensors.items() if name != "model.norm.weight"})
    monkeypatch.setattr(Mismatch, "explanation", lambda self: None)
    with pytest.raises(CheckpointError, match=r"transformers did not load model\.norm\.weight"):
        load_model(str(folder), device="cpu")


# Tying


@pytest.mark.parametrize("variant", ["qwen2", "gemma2", "llama", "idefics3", "llava"])
def test_a_head_of_its_own_survives_every_cut(variant: str, tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    """In memory and streamed, in depth and width; what is written says so and is read so by transformers as well."""
    folder = with_own_head(copy(tiny_checkpoint, variant, tmp_path / "m"))
    whole, streamed = load_model(str(folder), device="cpu"), open_streamed(str(folder), device="cpu")
    assert whole.fingerprint == streamed.fingerprint
    head = whole.model.lm_head.weight.detach().clone()
    assert not torch.equal(head, whole.model.get_input_embeddings().weight)
    for method in ("random_depth", "magnitude_width"):
        plan = make_pruning_plan(whole, method, 0.3, options=PruningOptions(compensation="none"))
        assert plan == make_pruning_plan(streamed, method, 0.3, options=PruningOptions(compensation="none"))
        assert any("using the stored head" in note for note in plan.notes)
        one, other = tmp_path / f"{method}-whole", tmp_path / f"{method}-streamed"
        save_checkpoint(pruned_model(whole, plan), plan, one)
        save_streamed(streamed, plan, None, other)
        for out in (one, other):
            config = json.loads((out / "config.json").read_text())
            assert not config.get("tie_word_embeddings")
            again = load_model(str(out), device="cpu")
            assert torch.equal(again.model.lm_head.weight, head)
            assert not is_tied(again.model)
            assert again.inspection is not None
            assert not again.inspection.corrections
            assert "using the stored head" in (out / "README.md").read_text()


def test_a_model_whose_flag_says_otherwise_is_cut_as_its_weights_are() -> None:
    """As transformers leaves it when it finds a head that differs: untied, and the flag still set."""
    model = tiny_model("llama")
    model.config.tie_word_embeddings = True
    assert not is_tied(model)
    assert config_of(model).tie_word_embeddings is False
    assert model.config.tie_word_embeddings is True, "the model given is left as it was"
    decoder = decoder_of(model)
    pruned = cut(decoder, KeptUnits.everything(decoder.shapes))
    assert torch.equal(pruned.lm_head.weight, model.lm_head.weight)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(pruned(ids).logits, model(ids).logits)
    tied = tiny_model("qwen2")
    tied.config.tie_word_embeddings = False
    assert config_of(tied).tie_word_embeddings is True
    assert is_tied(cut(decoder_of(tied), KeptUnits.everything(decoder_of(tied).shapes)))


@pytest.mark.parametrize("variant", ["idefics3", "llava"])
def test_a_head_of_its_own_goes_out_and_in_with_its_language_model(variant: str) -> None:
    t = make_tiny(variant)
    t.model.model.config.tie_word_embeddings = True  # though the weights are not
    taken = extract_language_model(t.model)
    assert not taken.model.config.tie_word_embeddings
    assert torch.equal(taken.model.lm_head.weight, t.model.model.lm_head.weight)
    with torch.no_grad():
        taken.model.lm_head.weight.data = 2 * taken.model.lm_head.weight
    back = reconnect(taken, t.model)
    assert torch.equal(back.model.lm_head.weight, taken.model.lm_head.weight)
    assert not is_tied(back.model)


def test_flags_are_corrected_in_copies_and_in_the_language_model_inside() -> None:
    config = make_tiny("llava").model.model.config
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
    corrected = with_flag(config, tied=False)
    assert (corrected.tie_word_embeddings, corrected.text_config.tie_word_embeddings) == (False, False)
    assert config.tie_word_embeddings
    assert with_flag(config, tied=True) is config


def test_only_a_head_that_is_stored_beside_tied_embeddings_is_read(
    tiny_checkpoint: CheckpointOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("a weight was read")

    monkeypatch.setattr("prunelab.models.tensor_files.StoredTensor._fill", read)
    for variant in ("llama", "qwen2", "idefics3", "llava"):
        assert inspected(str(tiny_checkpoint(variant)))


# Adapters


@pytest.mark.parametrize("installed", [True, False])
def test_an_adapter_is_refused_whether_peft_is_installed_or_not(
    installed: bool, tiny_checkpoint: CheckpointOf, tmp_path: Path, command: Command, corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("transformers.integrations.peft.is_peft_available", lambda *_: installed)
    folder = copy(tiny_checkpoint, "llama", tmp_path / "m")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x", "peft_type": "LORA"}))
    save_file({"base_model.model.lora_A.weight": torch.ones(2)}, folder / "adapter_model.safetensors")
    for words in (
        ("evaluate", folder, "--benchmark", f"text:{corpus}"), ("throughput", folder), ("doctor", folder),
        ("prune", folder, "--out", tmp_path / "out"), ("prune", folder, "--out", tmp_path / "out", "--memory", "1MB"),
        ("export", "gguf", folder, "--out", tmp_path / "o.gguf"),
    ):  # fmt: skip
        ran = command(*words)
        assert ran.code == 2, (words, ran)
        if words[0] != "export":
            assert "merge the adapter first" in ran.err, (words, ran)
    assert not (tmp_path / "out").exists()


# What is kept and shown


def test_plan_card_and_measurements_keep_what_was_found(
    tiny_checkpoint: CheckpointOf, tmp_path: Path, command: Command, corpus: Path
) -> None:
    folder = with_own_head(copy(tiny_checkpoint, "qwen2", tmp_path / "m"))
    configure(folder, dtype=None)
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    ran = command("prune", folder, "--method", "random_depth", "--ratio", 0.3, "--out", tmp_path / "out")
    assert ran.code == 0, ran
    assert "tie_word_embeddings in config.json is true, but the stored lm_head.weight differs" in ran.err + ran.out
    record = PruningPlan.load(tmp_path / "out" / "pruning_plan.json").provenance["checkpoint"]
    assert record["files"] == ["model.safetensors"]
    assert (record["number_format"], record["stored_formats"], record["head"]) == ("float32", ["float32"], "stored")
    assert record["ignored_files"] == ["pytorch_model.bin"]
    assert len(record["corrections"]) == 2
    ran = command("evaluate", folder, "--benchmark", f"text:{corpus}", "--out", tmp_path / "o.json")
    assert ran.code == 0, ran
    rows: list[dict[str, Any]] = json.loads((tmp_path / "o.json").read_text())
    assert all("config.json has no dtype: using float32" in row["checkpoint"] for row in rows)
    ran = command("doctor", folder)
    assert ran.code == 0, ran
    told = " ".join(ran.out.split())
    for text in ("Qwen2ForCausalLM (family qwen2)", "a separate tensor", "pytorch_model.bin", "correct config.json"):
        assert text in told
    rewrite(folder, lambda tensors: {f"module.{name}": one for name, one in tensors.items()})
    ran = command("doctor", folder)
    assert (ran.code, ran.err.count("error:")) == (2, 1)
    assert "has the prefix of a wrapper (module.)" in " ".join(ran.err.split())


# Nothing good is refused, and nobody waits


@pytest.mark.parametrize("name", ALL_MODELS)
def test_pocket_models_pass(name: str) -> None:
    inspection = inspected(name)
    assert not inspection.corrections
    assert not inspection.ignored_tensors
    assert inspection.is_tied
    assert [what for what, _, remedy in findings(inspection) if remedy] == []


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"])
def test_real_models_pass(name: str) -> None:
    if not (REAL / name / "config.json").is_file():
        pytest.skip(f"{name} is not on this machine")
    inspection = inspected(str(REAL / name))
    assert not inspection.corrections
    assert inspection.parameters in (134_515_008, 630_167_424)


@pytest.mark.parametrize("variant", ["llama", "llama_biased", "qwen2", "gemma2", "mistral", "idefics3", "llava"])
def test_whatever_a_cut_left_passes(variant: str, tmp_path: Path) -> None:
    t: Tiny = make_tiny(variant)
    statistics = calibrated(t.model, tiny_calibration(), tmp_path / "s")
    for name in ("shortgpt", "flap", "flap+least_squares", "sublayer", "random_width"):
        if name.partition("+")[0] not in {method.name for method in methods.values()}:
            continue
        plan = make_pruning_plan(t.model, name, 0.4, statistics=statistics, calibration=t.calibration)
        pruned = pruned_model(t.model, plan, statistics, t.calibration)
        save_checkpoint(pruned, plan, tmp_path / name)
        inspection = inspected(str(tmp_path / name))
        assert inspection.parameters == pruned.decoder.parameters
        assert inspection.is_tied == is_tied(pruned.model)
        assert not inspection.corrections
        assert not inspection.ignored_tensors


def test_a_checkpoint_of_8b_is_inspected_within_a_second(tmp_path: Path) -> None:
    """Headers as Llama-3-8B's, in seven shards of holes that take no room on the disk."""
    config = LlamaConfig(
        vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, dtype="bfloat16", architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        state = LlamaForCausalLM(config).state_dict()
    weight_map = {}
    for number in range(7):
        file = f"model-{number + 1:05}-of-00007.safetensors"
        shard = [Announced(n, tuple(t.shape), torch.bfloat16) for n, t in list(state.items())[number::7]]
        text = _header_bytes(shard)
        with (tmp_path / file).open("wb") as out:
            out.write(text)
            out.truncate(len(text) + sum(one.bytes for one in shard))
        weight_map.update({one.name: file for one in shard})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    inspected("pocket-llama")  # what is imported late is imported
    start = time.process_time()
    inspection = inspected(str(tmp_path))
    seconds = time.process_time() - start
    assert inspection.parameters == 8_030_261_248
    assert seconds < 1.0, seconds


def test_a_model_of_the_library_is_read_as_the_library_reads_it(tiny_checkpoint: CheckpointOf, tmp_path: Path) -> None:
    """Names, tying and values are those of transformers' own reading wherever that is whole."""
    for variant, change in {
        "qwen2": lambda tensors: {name.removeprefix("model."): one for name, one in tensors.items()},
        "gemma2": lambda tensors: {**tensors, "lm_head.weight": 3 * tensors["model.embed_tokens.weight"]},
        "llama": lambda tensors: {name: one.double() for name, one in tensors.items()},
    }.items():
        folder = copy(tiny_checkpoint, variant, tmp_path / variant)
        rewrite(folder, change)
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
        own: LanguageModel = load_model(str(folder), device="cpu")
        ids = torch.tensor([[256, 1, 2, 3]])
        assert own.model.dtype == theirs.dtype
        assert torch.equal(own.model(ids).logits, theirs(ids).logits)


# Models of the hub


def _hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[list[str]]:
    """A hub that is a folder; gives the patterns that were asked for."""
    asked: list[list[str]] = []

    def give(name: str, allow_patterns: list[str]) -> str:
        assert name == "someone/model"
        asked.append(allow_patterns)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", give)
    plain = transformers.AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        "transformers.AutoTokenizer.from_pretrained",
        lambda name, **more: plain(folder if name == "someone/model" else name, **more),
    )
    monkeypatch.setattr(
        "transformers.utils.hub.cached_file",
        lambda name, file, **more: cached_file(folder if name == "someone/model" else name, file, **more),
    )
    monkeypatch.setattr("prunelab.models.loading.require_hub", lambda: None)
    return asked


def test_of_the_hub_only_the_files_that_are_read_are_fetched(
    tiny_checkpoint: CheckpointOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(tiny_checkpoint, "llama", tmp_path / "hub")
    shards = sorted(set(shard(folder, 2).values()))
    asked = _hub(monkeypatch, folder)
    model = load_model("someone/model", device="cpu")
    assert asked[-1][-3:] == ["model.safetensors", *shards]
    assert not any(pattern.endswith("*.safetensors") for patterns in asked for pattern in patterns)
    assert (model.name, model.model.name_or_path) == ("someone/model", "someone/model")
    assert model.fingerprint == load_model(str(tiny_checkpoint("llama")), device="cpu").fingerprint
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="merge the adapter first"):
        load_model("someone/model", device="cpu")
