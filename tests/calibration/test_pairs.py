"""Calibration on images with text: every method takes it, and what a user's file may hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ran, Tiny
from safetensors.torch import load_file
from seeing import IMAGE_TOKEN, stripes
from test_seeing import like_8b
from test_streaming import assert_equal

from prunelab.calibration import calibrate, draw_pairs, is_pairs
from prunelab.calibration.corpus import CalibrationSet
from prunelab.calibration.streaming import calibrate_streaming
from prunelab.cli.prune import _calibration_of
from prunelab.errors import DataError
from prunelab.inference.losses import mean_divergence, mean_loss
from prunelab.models.loading import load_model
from prunelab.models.streaming.model import open_streamed
from prunelab.models.vision.dialogue import model_inputs, prompt_text
from prunelab.pruning.apply import make_pruning_plan, pruned_model
from prunelab.pruning.methods import methods
from prunelab.pruning.plan import PruningPlan
from prunelab.pruning.search.prefix_reuse import DROP, KEEP, PrefixCachedLoss
from prunelab.pruning.surgery import cut

TinyOf = Callable[[str], Tiny]
Command = Callable[..., Ran]


def write_pairs(folder: Path, count: int = 10, **changes: Any) -> Path:
    """Images of several sizes, with questions of several lengths."""
    rows = []
    for index in range(count):
        stripes(20 + index, 16).save(folder / f"{index}.png")
        rows.append({"image": f"{index}.png", "question": f"How many{'?' * index}", "answer": str(index), **changes})
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def drawn(t: Tiny, folder: Path) -> CalibrationSet:
    pairs = draw_pairs(str(write_pairs(folder)), t.model.processor, samples=5, held_out=3, sequence_length=128)
    assert pairs.held_out_pairs is not None
    assert pairs.held_out is None
    return pairs


@pytest.mark.parametrize("method", methods)
def test_every_method_decides_on_images_with_text(method: str, tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny("idefics3")
    pairs = drawn(t, tmp_path)
    statistics = calibrate(t.model.decoder, pairs)
    plan = make_pruning_plan(t.model, method, 0.3, statistics=statistics, calibration=pairs)
    assert 0.2 <= plan.achieved_ratio <= 0.4
    pruned = pruned_model(t.model, plan, statistics, pairs)
    inputs = model_inputs(t.model.processor, [prompt_text(t.model.processor, "what?", 1)], [[stripes()]], "right")
    with torch.no_grad():
        assert torch.isfinite(pruned.model(**inputs).logits).all()


@pytest.mark.parametrize("name", ["idefics3", "llava"])
def test_block_by_block_measures_what_the_whole_model_does(name: str, tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny(name)
    held_out = drawn(t, tmp_path).held_out_pairs
    assert held_out is not None
    assert held_out.attention_mask is not None
    assert not held_out.attention_mask.all()
    without = t.model.with_model(cut(t.model.decoder, _without_block(t, 1)))
    choice = [KEEP, DROP, KEEP, KEEP]
    loss = PrefixCachedLoss(t.model.decoder, held_out).loss(choice)
    assert loss == pytest.approx(mean_loss(without, held_out), rel=1e-5)
    divergence = PrefixCachedLoss(t.model.decoder, held_out, against_whole=True).loss(choice)
    assert divergence == pytest.approx(mean_divergence(without, t.model, held_out), rel=1e-4)


def test_the_places_of_an_image_are_not_predicted(tiny: TinyOf) -> None:
    decoder = tiny("idefics3").model.decoder
    ids = torch.tensor([[5, IMAGE_TOKEN, IMAGE_TOKEN, 6, 7]])
    assert decoder.loss_mask(ids).tolist() == [[False, False, True, True, True]]
    mask = torch.tensor([[True, True, True, True, False]])
    assert decoder.loss_mask(ids, mask).tolist() == [[False, False, True, True, False]]
    assert tiny("llama").model.decoder.loss_mask(ids).all()


def _without_block(t: Tiny, block: int) -> Any:
    from prunelab.pruning.allocation import KeptUnits

    return KeptUnits.everything(t.model.decoder.shapes).without_blocks([block])


def test_marks_for_the_image_in_a_text_are_left_out(tiny: TinyOf, tmp_path: Path) -> None:
    """Data sets in LLaVA's form say `<image>` in the question; the dialogue shows the image by itself."""
    processor = tiny("idefics3").model.processor
    (tmp_path / "plain").mkdir()
    (tmp_path / "marked").mkdir()
    plain = write_pairs(tmp_path / "plain", question="what?", answer="a b")
    marked = write_pairs(tmp_path / "marked", question="<image>\nwhat?", answer="a b<image>")
    ids = [draw_pairs(str(path), processor, samples=3, held_out=1).token_ids for path in (plain, marked)]
    assert torch.equal(ids[0], ids[1])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b'{"image": 5, "question": "q", "answer": "a"}\n', "line 1, is not"),
        (b'{"image": "0.png", "question": null, "answer": "a"}\n', "line 1, is not"),
        (b'{"image": "0.png", "question": "q", "answer": 7}\n', "line 1, is not"),
        (b'{"image": "0.png", "question": "q", "answer": "a"}\n[]\n', "line 2, is not"),
        (b'{"image": "0.png", "question": "\xe9", "answer": "a"}\n', "line 1: byte 0xe9 is not UTF-8"),
        (b'{"image": "a\\u0000b", "question": "q", "answer": "a"}\n', "0 usable pairs, 1 missing"),
    ],
)
def test_bad_files_of_pairs(content: bytes, match: str, tiny: TinyOf, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(content)
    assert is_pairs(str(path)) is (b"\xe9" not in content)  # what cannot be read is refused as text as well
    with pytest.raises(DataError, match=match):
        draw_pairs(str(path), tiny("idefics3").model.processor)


def test_a_mark_of_the_encoding_in_front_is_passed_over(tiny: TinyOf, tmp_path: Path) -> None:
    path = write_pairs(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert is_pairs(str(path))
    assert len(draw_pairs(str(path), tiny("idefics3").model.processor, samples=4, held_out=2).token_ids) == 4


def test_a_plan_made_on_textvqa_is_applied_with_textvqa(tiny: TinyOf, vision_hub: Path) -> None:
    """Without being told again on what."""
    t = tiny("idefics3")
    pairs = draw_pairs("textvqa", t.model.processor, samples=2, held_out=1, datasets_root=vision_hub)
    plan: PruningPlan = make_pruning_plan(
        t.model, "flap", 0.3, statistics=calibrate(t.model.decoder, pairs), calibration=pairs
    )
    options = _calibration_of(plan, "wikitext2")
    assert (options.corpus, options.samples) == ("textvqa", 2)


@pytest.mark.parametrize("name", ["idefics3", "smolvlm", "llava", "in tiles"])
def test_streamed_with_images_is_the_one_pass_to_the_bit(name: str, tiny: TinyOf, tmp_path: Path) -> None:
    t = like_8b() if name == "in tiles" else tiny(name)
    t.model.model.save_pretrained(tmp_path / "m")
    t.model.processor.save_pretrained(tmp_path / "m")
    for dtype in ("float32", "bfloat16"):
        whole, streamed = load_model(str(tmp_path / "m"), dtype=dtype), open_streamed(str(tmp_path / "m"), dtype=dtype)
        pairs = draw_pairs(str(write_pairs(tmp_path)), whole.processor, samples=3, held_out=1, sequence_length=512)
        for in_memory in (True, False):
            tokens = 2 * pairs.sequence_length
            found = calibrate_streaming(
                streamed.decoder, pairs, tmp_path / "w", "k", in_memory=in_memory, tokens_a_batch=tokens
            )
            assert_equal(found, calibrate(whole.decoder, pairs, tokens_a_batch=tokens))
        blind = CalibrationSet(pairs.token_ids, pairs.attention_mask)
        assert not torch.equal(found.cosine_sum, calibrate(whole.decoder, blind, tokens_a_batch=tokens).cosine_sum)
    assert all(parameter.is_meta for parameter in streamed.model.parameters()), "nothing stays behind"


def test_a_model_that_sees_is_pruned_on_images_block_by_block(
    tiny_checkpoint: Callable[[str], Path], command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write_pairs(tmp_path, 20)
    monkeypatch.setenv("PRUNELAB_CACHE", str(tmp_path / "cache"))
    options = ("--calibration", pairs, "--samples", 4, "--sequence-length", 192, "--device", "cpu", "--ratio", 0.3)

    def prune(method: str, out: Path, *others: object) -> Ran:
        return command(
            "prune", tiny_checkpoint("idefics3"), "--method", method, "--out", out, *options, *others,
            "--statistics", out.with_suffix(".statistics"),
        )  # fmt: skip

    for method in ("flap", "shortgpt+least_squares"):
        whole, streamed = tmp_path / f"{method}-whole", tmp_path / f"{method}-streamed"
        assert prune(method, whole).code == 0
        with monkeypatch.context() as patched:
            patched.setattr("prunelab.models.streaming.model.is_too_large", lambda weights, budget: True)
            ran = prune(method, streamed, "--memory", "8GB")
            assert (ran.code, "block by block" in ran.out) == (0, True), ran
        one, other = (load_file(folder / "model.safetensors") for folder in (whole, streamed))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[tensor], other[tensor]) for tensor in one)
    with monkeypatch.context() as patched:
        patched.setattr("prunelab.models.streaming.model.is_too_large", lambda weights, budget: True)
        ran = prune("flap", tmp_path / "small", "--memory", "1KB")
    assert (ran.code, "does not hold one block and one sample: give --memory" in ran.err) == (2, True), ran
