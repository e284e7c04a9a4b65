from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import VARIANTS, Tiny, byte_tokenizer, make_tiny, tiny_calibration
from hypothesis import given, settings
from hypothesis import strategies as st

from prunelab.calibration import ActivationStatistics, CalibrationSet, Moments, calibrate, draw_calibration_set
from prunelab.errors import DataError, NonFiniteValue
from prunelab.io.datasets import Source
from prunelab.models.loading import LanguageModel
from prunelab.pruning.apply import calibrated

TinyOf = Callable[[str], Tiny]


def full_activations(model: LanguageModel, ids: torch.Tensor) -> tuple[list[np.ndarray], dict[Any, np.ndarray]]:
    """Hidden states around every block and inputs of every output projection, all tokens at once, in float64."""
    decoder, hooks = model.decoder, []
    around: dict[int, list[torch.Tensor]] = {}
    inputs: dict[Any, list[torch.Tensor]] = {}
    for index, block in enumerate(decoder.blocks):
        hooks.append(
            block.register_forward_hook(
                lambda m, i, o, index=index: around.setdefault(index, []).append(torch.stack([i[0][0], o[0]]))
            )
        )
    for index, layout, module in decoder.writers():
        hooks.append(
            module.register_forward_pre_hook(
                lambda m, i, key=(index, layout.unit): inputs.setdefault(key, []).append(i[0][0])
            )
        )
    with torch.no_grad():
        for row in ids:
            decoder.body(input_ids=row[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    pairs = [torch.cat(around[i], dim=1).double().numpy() for i in range(len(decoder.blocks))]
    return pairs, {key: torch.cat(value).double().numpy() for key, value in inputs.items()}


def assert_close(statistics: ActivationStatistics, other: ActivationStatistics) -> None:
    np.testing.assert_allclose(statistics.cosine_sum, other.cosine_sum, rtol=1e-6)
    for a, b in zip((*statistics.attention, *statistics.mlp), (*other.attention, *other.mlp), strict=True):
        assert a.count == b.count
        deviation = b.variance.sqrt()
        assert ((a.mean - b.mean).abs() <= 1e-5 * deviation + 1e-12).all()
        np.testing.assert_allclose(a.variance, b.variance, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_batched_equals_one_by_one_equals_float64(variant: str, tiny: TinyOf) -> None:
    t = tiny(variant)
    one_by_one = calibrate(t.model.decoder, t.calibration, tokens_a_batch=1)
    assert_close(t.statistics, one_by_one)
    pairs, inputs = full_activations(t.model, t.calibration.token_ids)
    for block, (before, after) in enumerate(pairs):
        cosines = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
        assert t.statistics.cosine_sum[block].item() == pytest.approx(cosines.sum(), rel=1e-6)
    for (block, unit), x in inputs.items():
        moments = t.statistics.of(unit)[block]
        assert moments.count == len(x)
        assert (np.abs(moments.mean.numpy() - x.mean(0)) <= 1e-5 * x.std(0, ddof=1)).all()
        np.testing.assert_allclose(moments.variance.numpy(), x.var(0, ddof=1), rtol=1e-4)


def test_two_halves_merged_equal_the_whole(tiny: TinyOf) -> None:
    t = tiny("llama")
    ids = t.calibration.token_ids
    halves = [calibrate(t.model.decoder, CalibrationSet(part)) for part in (ids[:2], ids[2:])]
    assert_close(halves[0].merge(halves[1]), t.statistics)
    assert halves[0].merge(halves[1]).tokens == t.statistics.tokens


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=0, max_size=8), min_size=1, max_size=6))
def test_moments_merge_in_any_cut(parts: list[list[float]]) -> None:
    joined = Moments.none(1)
    for part in parts:
        x = torch.tensor(part, dtype=torch.float64)
        if len(part):
            joined = joined.merge(Moments(len(part), x.mean()[None], ((x - x.mean()) ** 2).sum()[None]))
    every = np.array([v for part in parts for v in part])
    assert joined.count == len(every)
    if len(every) > 1:
        assert joined.mean.item() == pytest.approx(every.mean(), abs=1e-9)
        assert joined.variance.item() == pytest.approx(every.var(ddof=1), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("variant", ["llama", "gemma2"])
def test_padding_never_counts(variant: str, tiny: TinyOf) -> None:
    t = tiny(variant)
    ids = t.calibration.token_ids[:2]
    padded = torch.cat([ids, torch.randint(256, (2, 7))], dim=1)
    mask = torch.ones_like(padded)
    mask[:, -7:] = 0
    with_padding = calibrate(t.model.decoder, CalibrationSet(padded, mask))
    assert_close(with_padding, calibrate(t.model.decoder, CalibrationSet(ids)))


def test_bfloat16_activations_are_summed_in_float32(tiny: TinyOf) -> None:
    t = make_tiny("llama")
    t.model.model.to(torch.bfloat16)
    pairs, inputs = full_activations(t.model, t.calibration.token_ids)
    statistics = calibrate(t.model.decoder, t.calibration, tokens_a_batch=1)
    assert len(pairs) == 4
    for (block, unit), x in inputs.items():
        np.testing.assert_allclose(statistics.of(unit)[block].variance.numpy(), x.var(0, ddof=1), rtol=1e-4)


def test_statistics_survive_the_file(tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny("qwen2")
    path = tmp_path / "s.safetensors"
    t.statistics.save(path)
    again = ActivationStatistics.load(path)
    assert torch.equal(again.cosine_sum, t.statistics.cosine_sum)
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(again.mlp, t.statistics.mlp, strict=True))
    assert again.provenance == t.statistics.provenance
    whole = path.read_bytes()
    path.write_bytes(whole[:-40] + b"\xff" * 40)
    with pytest.raises(DataError, match="is damaged"):
        ActivationStatistics.load(path)
    path.write_bytes(whole[:100])
    with pytest.raises(DataError, match="calibrate again"):
        ActivationStatistics.load(path)


def test_a_second_use_costs_no_second_pass(tiny: TinyOf, tmp_path: Path) -> None:
    t = tiny("llama")
    path = tmp_path / "s.safetensors"
    done: list[int] = []
    first = calibrated(t.model, t.calibration, path, done.append)
    assert done == [6]
    second = calibrated(t.model, t.calibration, path, done.append)
    assert done == [6]
    assert torch.equal(first.cosine_sum, second.cosine_sum)
    calibrated(t.model, tiny_calibration(seed=1), path, done.append)
    assert done == [6, 6], "other tokens need their own pass"


def test_nan_is_named_by_its_layer() -> None:
    t = make_tiny("llama")
    with torch.no_grad():
        t.model.decoder.blocks[2].get_parameter("mlp.up_proj.weight")[3] = float("nan")
    with pytest.raises(NonFiniteValue, match=r"model\.layers\.2\.mlp\.down_proj"):
        calibrate(t.model.decoder, t.calibration)


def test_nan_behind_a_block_is_named_by_the_block() -> None:
    t = make_tiny("llama")
    with torch.no_grad():
        t.model.decoder.blocks[1].get_parameter("mlp.down_proj.weight")[3] = float("inf")
    with pytest.raises(NonFiniteValue, match=r"the output of model\.layers\.1"):
        calibrate(t.model.decoder, t.calibration)


def test_windows_are_drawn_reproducibly_and_do_not_overlap(corpus: Path) -> None:
    tokenizer = byte_tokenizer()
    a, b, c = (
        draw_calibration_set(str(corpus), tokenizer, samples=12, sequence_length=50, held_out=4, seed=seed)
        for seed in (3, 3, 4)
    )
    assert torch.equal(a.token_ids, b.token_ids)
    assert a.fingerprint == b.fingerprint != c.fingerprint
    assert a.token_ids.shape == (12, 50)
    assert a.held_out is not None
    assert a.held_out.shape == (4, 50)
    assert (a.token_ids[:, 0] == tokenizer.bos_token_id).all()
    every = torch.cat([a.token_ids, a.held_out])
    assert len({tuple(row.tolist()) for row in every}) == 16


def test_a_corpus_that_is_too_short_says_how_many_samples_it_has(corpus: Path) -> None:
    with pytest.raises(DataError, match=r"text for \d+ windows of 200 tokens, and 1016 were requested.*--samples \d+"):
        draw_calibration_set(str(corpus), byte_tokenizer(), samples=1000, sequence_length=200)


def test_the_length_that_a_short_text_suffices_for_does(corpus: Path) -> None:
    text, tokenizer = corpus.with_name("short.txt"), byte_tokenizer()
    text.write_text(corpus.read_text()[:3000])
    with pytest.raises(
        DataError, match=r"20 were requested.*give --sequence-length \d+ or less, or a longer text$"
    ) as refused:
        draw_calibration_set(str(text), tokenizer, samples=4, sequence_length=2048)
    (length,) = (int(found) for found in re.findall(r"--sequence-length (\d+)", str(refused.value)))
    drawn = draw_calibration_set(str(text), tokenizer, samples=4, sequence_length=length)
    assert drawn.token_ids.shape == (4, length)
    with pytest.raises(DataError, match=r"held out\): give a longer text$"):
        draw_calibration_set(str(text), tokenizer, samples=900, sequence_length=2048)


@pytest.mark.parametrize("name", ["wikitext2", "c4"])
def test_who_has_no_corpus_is_told_of_texts_of_their_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise DataError("absent: fetch it")

    monkeypatch.setattr(Source, "splits", absent)
    monkeypatch.setattr(Source, "load", absent)
    with pytest.raises(DataError, match="absent: fetch it; or calibrate on your own text with --calibration FILE"):
        draw_calibration_set(name, byte_tokenizer(), samples=1)


def test_jsonl_lines_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "' + "a b c " * 40 + '"}\n{"text": "' + "d e f " * 40 + '"}\n')
    drawn = draw_calibration_set(str(path), byte_tokenizer(), samples=2, sequence_length=60, held_out=1)
    assert drawn.corpus == "t.jsonl"
    path.write_text('{"text": "fine"}\n{"words": "no"}\n')
    with pytest.raises(DataError, match="line 2"):
        draw_calibration_set(str(path), byte_tokenizer(), samples=1, sequence_length=4)
    path.write_text('{"text": 5}\n')
    with pytest.raises(DataError, match="line 1"):
        draw_calibration_set(str(path), byte_tokenizer(), samples=1, sequence_length=4)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("missing.txt", None, "does not exist"),
        ("empty.txt", b"  \n", "contains no text"),
        ("latin.txt", b"caf\xe9 " * 50, "not UTF-8"),
        ("c5", None, "unknown corpus"),
    ],
)
def test_bad_texts(name: str, content: bytes | None, match: str, tmp_path: Path) -> None:
    path = tmp_path / name if "." in name else Path(name)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=match):
        draw_calibration_set(str(path), byte_tokenizer(), samples=1, sequence_length=8)


def test_wikitext2_calibrates_on_validation_where_train_is_absent_and_says_so(shared: Path) -> None:
    with pytest.warns(UserWarning, match="train split is missing"):
        drawn = draw_calibration_set(
            "wikitext2", byte_tokenizer(), samples=2, sequence_length=64, datasets_root=shared / "hub"
        )
    assert drawn.split == "validation"
    assert drawn.provenance()["split"] == "validation"


def test_c4_is_read_from_a_folder(shared: Path) -> None:
    drawn = draw_calibration_set("c4", byte_tokenizer(), samples=2, sequence_length=64, datasets_root=shared / "hub")
    assert (drawn.corpus, drawn.split) == ("c4", "train")
