"""Models that see: their language model is cut, and nothing else of them changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import Ran, Tiny, byte_tokenizer, make_tiny
from seeing import IMAGE_TOKEN, seeing_config, seeing_processor, stripes
from test_surgery import masked
from torch import Tensor
from transformers import AutoModelForImageTextToText, Idefics3ForConditionalGeneration, PreTrainedModel

from prunelab.calibration import calibrate, draw_pairs, is_pairs
from prunelab.calibration.corpus import CalibrationSet
from prunelab.checkpoint.save import save_checkpoint
from prunelab.checkpoint.streamed_save import save_streamed
from prunelab.checkpoint.vision_language import extract_language_model, reconnect
from prunelab.errors import DataError, InvalidRequest, UnsupportedModel
from prunelab.inference.losses import mean_loss
from prunelab.io.atomic_write import _umask
from prunelab.io.fingerprint import tensor_bytes
from prunelab.models.families import decoder_of, families, find_family
from prunelab.models.loading import LanguageModel, load_model
from prunelab.models.streaming.model import open_streamed
from prunelab.pruning.apply import CalibrationOptions, PruningOptions, draw_for, make_pruning_plan, pruned_model
from prunelab.pruning.compensation import COMPENSATORS
from prunelab.pruning.methods import methods
from prunelab.pruning.plan import PruningPlan
from prunelab.pruning.surgery import cut

TinyOf = Callable[[str], Tiny]
Command = Callable[..., Ran]

# Idefics3-8B: a Llama-3-8B (width 4096, 32 heads, 8 key-value heads, MLP 14336, 32 blocks, 128,259 tokens) behind
# SigLIP-SO400M (width 1152, 27 blocks, 16 heads, MLP 4304, 364 pixels in patches of 14) and a pixel shuffle by 2; here
# everything is a 64th as wide, with the same proportions of heads, and a quarter as deep.
SCALED_8B_TEXT: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 224, "num_hidden_layers": 8, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 512,
    "bos_token_id": 256, "eos_token_id": 257, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
}  # fmt: skip
SCALED_8B_VISION: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 60, "num_hidden_layers": 6, "num_attention_heads": 4, "image_size": 24,
    "patch_size": 4,
}  # fmt: skip


def like_8b() -> Tiny:
    """A random model of Idefics3-8B's proportions; its images come in tiles, as there."""
    config = seeing_config("Idefics3", SCALED_8B_TEXT, **SCALED_8B_VISION)
    torch.manual_seed(0)
    model = Idefics3ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2 if parameter.ndim > 1 else 0.5)
    tokenizer = byte_tokenizer()
    processor = seeing_processor(tokenizer, splitting=True, size=24)
    whole = LanguageModel("like-8b", model, tokenizer, processor)
    ids = torch.randint(256, (4, 24), generator=torch.Generator().manual_seed(0))
    calibration = CalibrationSet(ids, None, ids[:1], "random", "none", "0", 0)
    return Tiny(whole, calibration, calibrate(whole.decoder, calibration))


@pytest.fixture(scope="module")
def seeing(tiny: TinyOf) -> Callable[[str], Tiny]:
    made: dict[str, Tiny] = {}

    def get(name: str) -> Tiny:
        if name == "like 8b":
            made.setdefault(name, like_8b())
            return made[name]
        return tiny(name)

    return get


MODELS = ("idefics3", "smolvlm", "llava", "llava_qwen2", "llava_mistral", "like 8b")


def shown(t: Tiny) -> dict[str, Tensor]:
    """Two dialogues, one with two images."""
    from prunelab.models.vision.dialogue import model_inputs, prompt_text

    processor = t.model.processor
    texts = [prompt_text(processor, "what is this?", 1), prompt_text(processor, "and these two, which is larger?", 2)]
    return model_inputs(processor, texts, [[stripes()], [stripes(40, 20), stripes(16, 30)]], "right")


@torch.no_grad()
def logits(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """At the places that are no padding."""
    out: Tensor = model(**inputs).logits
    return out[inputs["attention_mask"].bool()]


def eyes(model: PreTrainedModel) -> dict[str, bytes]:
    """Every tensor that is not the language model's, byte for byte."""
    language_model = decoder_of(model).family.decoder
    state = model.state_dict().items()
    parts = {name: bytes(tensor_bytes(tensor)) for name, tensor in state if not name.startswith(language_model)}
    assert any("vision" in name for name in parts)
    assert any("connector" in name or "projector" in name for name in parts)
    return parts


@pytest.mark.parametrize("name", MODELS)
def test_pruning_nothing_is_bit_identical_on_images_and_text(name: str, seeing: TinyOf) -> None:
    t = seeing(name)
    inputs = shown(t)
    dense = logits(t.model.model, inputs)
    assert not torch.equal(dense, logits(t.model.model, {k: v for k, v in inputs.items() if "pixel" not in k}))
    for method in ("shortgpt", "flap", "hybrid"):
        plan = make_pruning_plan(t.model, method, 0.0, statistics=t.statistics, calibration=t.calibration)
        assert torch.equal(logits(pruned_model(t.model, plan, t.statistics).model, inputs), dense)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("method", methods)
def test_cut_equals_masked_on_images_and_the_eyes_stay_whole(
    name: str, method: str, seeing: TinyOf, tmp_path: Path
) -> None:
    t = seeing(name)
    inputs = shown(t)
    plan = make_pruning_plan(t.model, method, 0.3, statistics=t.statistics, calibration=t.calibration)
    pruned = pruned_model(t.model, plan, t.statistics, t.calibration)
    compensated = t.statistics if plan.compensation == "bias" else None
    repairs = None
    if plan.compensation in COMPENSATORS:
        repairs = COMPENSATORS[plan.compensation](t.model.decoder, plan.kept, t.calibration, None)
    expected = logits(masked(t.model.decoder, plan.kept, compensated, repairs), inputs)
    assert (logits(pruned.model, inputs) - expected).abs().max() <= 1e-5
    save_checkpoint(pruned, plan, tmp_path / "out")
    again = load_model(str(tmp_path / "out"), device="cpu")
    assert torch.equal(logits(again.model, inputs), logits(pruned.model, inputs))
    assert eyes(again.model) == eyes(t.model.model)


@pytest.mark.parametrize("method", ["shortgpt", "flap"])
def test_a_checkpoint_loads_with_stock_transformers_and_its_processor(
    method: str, seeing: TinyOf, tmp_path: Path
) -> None:
    t = seeing("idefics3")
    plan = make_pruning_plan(t.model, method, 0.3, statistics=t.statistics)
    pruned = pruned_model(t.model, plan, t.statistics)
    save_checkpoint(pruned, plan, tmp_path / "out")
    stock = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", trust_remote_code=method == "flap")
    assert torch.equal(logits(stock, shown(t)), logits(pruned.model, shown(t)))
    if method == "shortgpt":
        assert type(stock) is Idefics3ForConditionalGeneration
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    assert type(processor.image_processor).__name__ == "Idefics3ImageProcessorPil"
    text = "User:<image>what?<end_of_utterance>\nAssistant:"
    mine = t.model.processor(text=[text], images=[[stripes()]], return_tensors="pt")
    for key, value in processor(text=[text], images=[[stripes()]], return_tensors="pt").items():
        assert torch.equal(value, mine[key])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "AutoModelForImageTextToText" in card
    assert "AutoProcessor" in card


def test_generation_with_images_and_cache(seeing: TinyOf) -> None:
    t = seeing("idefics3")
    plan = make_pruning_plan(t.model, "flap", 0.3, statistics=t.statistics)
    model = pruned_model(t.model, plan, t.statistics).model
    inputs = {key: value[:1] for key, value in shown(t).items()}
    inputs["input_ids"], inputs["attention_mask"] = (
        value[:, inputs["attention_mask"][0].bool()] for value in (inputs["input_ids"], inputs["attention_mask"])
    )
    inputs["pixel_values"], inputs["pixel_attention_mask"] = (
        inputs[key][:, :1] for key in ("pixel_values", "pixel_attention_mask")
    )
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    with_cache = model.generate(**inputs, use_cache=True, **options)
    assert torch.equal(with_cache, model.generate(**inputs, use_cache=False, **options))


@pytest.mark.parametrize("name", MODELS)
def test_extract_then_reconnect_is_the_identity(name: str, seeing: TinyOf, tmp_path: Path) -> None:
    whole = seeing(name).model
    taken = extract_language_model(whole)
    assert type(taken.model).__name__ == families[str(whole.decoder.family.language_family)].stock_class
    ids = torch.randint(256, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(taken.model(input_ids=ids).logits, whole.model(input_ids=ids).logits)
    back = reconnect(taken, whole)
    mine, other = back.model.state_dict(), whole.model.state_dict()
    assert list(mine) == list(other)
    assert all(tensor_bytes(mine[key]) == tensor_bytes(other[key]) for key in mine)
    configs = [one.model.config.to_dict() for one in (back, whole)]
    for config in configs:
        del config["architectures"]  # said when a model is saved, which another test may have done with this one
    assert configs[0] == configs[1]
    assert back.fingerprint == whole.fingerprint
    inputs = shown(seeing(name))
    assert torch.equal(logits(back.model, inputs), logits(whole.model, inputs))


@pytest.mark.parametrize("method", ["shortgpt", "flap"])
def test_a_pruned_language_model_put_back_is_the_pruned_whole(method: str, seeing: TinyOf, tmp_path: Path) -> None:
    """The paper's way (take out, prune, put back) and ours (prune inside) give the same."""
    t = seeing("idefics3")
    taken = extract_language_model(t.model)
    statistics = calibrate(taken.decoder, t.calibration)
    plan = make_pruning_plan(taken, method, 0.3, statistics=statistics)
    save_checkpoint(pruned_model(taken, plan, statistics), plan, tmp_path / "pruned")
    back = reconnect(load_model(str(tmp_path / "pruned"), device="cpu"), t.model)
    inside = make_pruning_plan(t.model, method, 0.3, statistics=t.statistics)
    assert plan.kept == inside.kept
    assert torch.equal(
        logits(back.model, shown(t)), logits(pruned_model(t.model, inside, t.statistics).model, shown(t))
    )


def test_what_does_not_fit_is_not_put_in(seeing: TinyOf, tiny: TinyOf) -> None:
    whole = seeing("idefics3").model
    with pytest.raises(UnsupportedModel, match="tiny-idefics3 needs a language model of family llama"):
        reconnect(tiny("qwen2").model, whole)
    with pytest.raises(InvalidRequest, match="has vocab_size 258, and tiny-idefics3 needs 264"):
        reconnect(tiny("llama").model, whole)
    with pytest.raises(UnsupportedModel, match="a language model: give a vision-language model"):
        extract_language_model(tiny("llama").model)
    with pytest.raises(
        UnsupportedModel,
        match=r"needs a language model of family llama: give one \(see `prunelab extract-language-model`",
    ):
        reconnect(whole, whole)
    half = LanguageModel("half", make_tiny("idefics3").model.model.to(torch.bfloat16), whole.tokenizer)
    with pytest.raises(InvalidRequest, match=r"is in bfloat16 and tiny-idefics3 in float32.*give --dtype"):
        reconnect(extract_language_model(half), whole)


def test_another_language_model_inside_is_refused_by_name() -> None:
    config = seeing_config("Idefics3", {"model_type": "qwen2", "hidden_size": 32, "num_attention_heads": 4})
    config.architectures = ["Idefics3ForConditionalGeneration"]
    with pytest.raises(UnsupportedModel, match="with a language model of type 'qwen2'"):
        find_family(config)


def test_a_llava_under_the_names_of_its_first_version_is_pruned_block_by_block(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = str(tiny_checkpoint("llava"))
    streamed, whole = open_streamed(folder, device="cpu"), load_model(folder, device="cpu")
    assert any(tensor.file.name == "model.safetensors" for tensor in streamed.decoder.files.tensors.values())
    plan = make_pruning_plan(streamed, "magnitude_width", 0.3, options=PruningOptions(compensation="none"))
    save_streamed(streamed, plan, None, tmp_path / "out")
    again = load_model(str(tmp_path / "out"), device="cpu")
    assert again.fingerprint == pruned_model(whole, plan).fingerprint


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Eight images with questions, one of them broken and one missing."""
    rows = []
    for index in range(8):
        stripes(20 + index, 16).save(tmp_path / f"{index}.png")
        rows.append({"image": f"{index}.png", "question": f"How many, {index}?", "answer": str(index)})
    (tmp_path / "3.png").write_bytes(b"not an image")
    rows.append({"image": "absent.png", "question": "What?", "answer": "nothing"})
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_calibration_on_pairs_sees_the_images(pairs: Path, seeing: TinyOf) -> None:
    t = seeing("idefics3")
    assert is_pairs(str(pairs))
    drawn = draw_pairs(str(pairs), t.model.processor, samples=5, held_out=2, sequence_length=128)
    assert drawn.attention_mask is not None
    found = calibrate(t.model.decoder, drawn)
    assert found.tokens == int(drawn.attention_mask.sum())
    one_by_one = calibrate(t.model.decoder, drawn, tokens_a_batch=1)
    assert torch.allclose(found.cosine_sum, one_by_one.cosine_sum, rtol=1e-5)
    assert (drawn.token_ids == IMAGE_TOKEN).sum(dim=1).tolist() == [4] * 5
    blind = CalibrationSet(drawn.token_ids, drawn.attention_mask)
    assert not torch.allclose(calibrate(t.model.decoder, blind).cosine_sum, found.cosine_sum, rtol=1e-3)
    again = draw_pairs(str(pairs), t.model.processor, samples=5, held_out=2, sequence_length=128)
    assert again.fingerprint == drawn.fingerprint != blind.fingerprint
    assert drawn.held_out_pairs is not None
    assert mean_loss(t.model, drawn.held_out_pairs) > 0
    plan = make_pruning_plan(t.model, "hybrid", 0.3, statistics=found, calibration=drawn)
    assert plan.provenance["calibration"]["corpus"] == "pairs.jsonl"
    kept = make_pruning_plan(t.model, "flap", 0.3, statistics=found).kept
    fitted = [cut(t.model.decoder, kept, "least_squares", found, calibration) for calibration in (drawn, blind)]
    seen, unseen = (logits(model, shown(t)) for model in fitted)
    assert not torch.allclose(seen, unseen, rtol=1e-3)


def test_pairs_that_do_not_suffice_are_told(pairs: Path, tiny: TinyOf, seeing: TinyOf) -> None:
    processor = seeing("idefics3").model.processor
    with pytest.raises(DataError, match=r"has 7 usable pairs, 1 \w+, 1 \w+, and 24 were requested"):
        draw_pairs(str(pairs), processor, samples=8)
    with pytest.raises(DataError, match="7 longer than 20 tokens"):
        draw_pairs(str(pairs), processor, samples=1, sequence_length=20)
    with pytest.raises(InvalidRequest, match="holds images, and the model takes none"):
        draw_for(tiny("llama").model, CalibrationOptions(str(pairs)))


def test_the_commands_take_apart_and_put_together(
    command: Command,
    tiny_checkpoint: Callable[[str], Path],
    pairs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, options = tmp_path / "whole", ("--device", "cpu")
    shutil.copytree(tiny_checkpoint("idefics3"), whole)
    (whole / "LICENSE").write_text("the model's own")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "LICENSE").write_text("of something else that lies where the command is run")
    ran = command("extract-language-model", whole, "--out", tmp_path / "taken", *options)
    assert ran.code == 0, ran.err
    assert (tmp_path / "taken" / "LICENSE").read_text() == "the model's own"
    ran = command(
        "prune", tmp_path / "taken", "--method", "magnitude_width", "--ratio", 0.3, "--compensation", "none",
        "--out", tmp_path / "pruned", *options,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    ran = command("extract-language-model", tmp_path / "pruned", "--into", whole, "--out", tmp_path / "back", *options)
    assert ran.code == 0, ran.err
    back, original = (load_model(str(folder), device="cpu") for folder in (tmp_path / "back", whole))
    assert eyes(back.model) == eyes(original.model)
    plan = PruningPlan.load(tmp_path / "back" / "pruning_plan.json")
    assert (plan.base.family, plan.base.fingerprint) == ("idefics3", original.fingerprint)  # the same cut, inside
    assert plan.kept == PruningPlan.load(tmp_path / "pruned" / "pruning_plan.json").kept
    card = (tmp_path / "back" / "README.md").read_text()
    assert f"| parameters | {original.decoder.parameters:,} | {back.decoder.parameters:,} |" in card
    assert "prunelab extract-language-model" in card
    assert all(path.stat().st_mode & 0o077 == 0o666 & ~_umask() & 0o077 for path in (tmp_path / "back").iterdir())
    ran = command("extract-language-model", tmp_path / "pruned", "--into", tmp_path / "back", "--out", tmp_path / "odd")
    assert ran.code == 0, ran.err
    odd = PruningPlan.load(tmp_path / "odd" / "pruning_plan.json")
    assert odd.base.family == "llama"  # made for another one than the one inside: as it was, and no card
    assert not (tmp_path / "odd" / "README.md").exists()
    ran = command(
        "prune", whole, "--ratio", 0.3, "--calibration", pairs, "--samples", 4, "--out", tmp_path / "inside", *options
    )
    assert "7 usable pairs" in ran.err  # 16 are held out for methods that search
    for out in (whole, tmp_path / "taken"):
        ran = command(
            "extract-language-model", tmp_path / "taken", "--into", whole, "--out", out, "--overwrite", *options
        )
        assert (ran.code, "is the input model" in ran.err) == (2, True)
    ran = command("extract-language-model", tmp_path / "taken", "--out", tmp_path / "twice", *options)
    assert (ran.code, "give a vision-language model" in ran.err) == (2, True)


def test_a_made_up_variant_is_alike_only_with_its_own_weights(seeing: TinyOf) -> None:
    """The fingerprint of a model that sees knows its eyes, and no number format."""
    t = seeing("idefics3")
    other = make_tiny("idefics3").model
    assert other.fingerprint == t.model.fingerprint
    with torch.no_grad():
        next(other.model.model.connector.parameters()).add_(1.0)
    changed = LanguageModel("other", other.model, other.tokenizer, other.processor)
    assert changed.fingerprint != t.model.fingerprint
    half = LanguageModel("half", make_tiny("idefics3").model.model.to(torch.bfloat16), other.tokenizer)
    assert half.fingerprint == t.model.fingerprint
