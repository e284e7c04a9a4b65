"""The next token's distribution by hand, and generation: greedy as the library's, random as the seed says."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import VARIANTS, Tiny, byte_tokenizer, tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from prunelab.errors import InvalidRequest, NonFiniteValue
from prunelab.inference import Completion, Prompt, Sampler, SamplingSettings
from prunelab.inference.sampling import choose, distribution, uniform
from prunelab.models.families import decoder_of
from prunelab.pruning.allocation import KeptUnits
from prunelab.pruning.surgery import cut

# Probabilities 0.1, 0.4, 0.2, 0.3.
LOGITS = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()
PROMPTS = [Prompt(list(text.encode()), text) for text in ("one", "twenty-two", "three hundred and", "one two one")]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"temperature": 1.0}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 0.5}, [0.01 / 0.3, 0.16 / 0.3, 0.04 / 0.3, 0.09 / 0.3]),
        ({"temperature": 1.0, "top_k": 2}, [0, 4 / 7, 0, 3 / 7]),
        ({"temperature": 1.0, "top_k": 9}, [0.1, 0.4, 0.2, 0.3]),
        ({"temperature": 1.0, "top_p": 0.65}, [0, 4 / 7, 0, 3 / 7]),
        ({"temperature": 1.0, "top_p": 0.75}, [0, 4 / 9, 2 / 9, 3 / 9]),
        ({"temperature": 1.0, "top_p": 0.01}, [0, 1, 0, 0]),
        # top_p counts what top_k has left: 4/9 and 3/9 make 7/9, above 0.75.
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.75}, [0, 4 / 7, 0, 3 / 7]),
    ],
)
def test_distribution_by_hand(settings: dict[str, Any], expected: list[float]) -> None:
    found = distribution(LOGITS, SamplingSettings(**settings))[0].tolist()
    assert found == pytest.approx(expected, abs=1e-6)


def test_ties_of_the_last_token_kept_stay() -> None:
    tied = torch.tensor([[0.2, 0.3, 0.3, 0.2]]).log()
    found = distribution(tied, SamplingSettings(temperature=1.0, top_k=3))[0].tolist()
    assert found == pytest.approx([0.2, 0.3, 0.3, 0.2])


def test_top_p_keeps_no_token_more_than_it_needs() -> None:
    found = distribution(torch.zeros(1, 4), SamplingSettings(temperature=1.0, top_p=0.5))[0].tolist()
    assert sorted(found) == [0.0, 0.0, 0.5, 0.5]


def test_choice_inverts_the_distribution() -> None:
    numbers = torch.tensor([0.0, 0.0999, 0.1001, 0.4999, 0.5001, 0.6999, 0.7001, 0.9999], dtype=torch.float64)
    settings = SamplingSettings(temperature=1.0)
    assert choose(LOGITS.expand(8, -1), settings, numbers).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    least, most = torch.tensor([0.0, 1 - 2.0**-52], dtype=torch.float64)[:, None]
    narrow = SamplingSettings(temperature=1.0, top_k=2)
    assert choose(LOGITS, narrow, least).tolist() == [1]
    assert choose(LOGITS, narrow, most).tolist() == [3]
    assert choose(LOGITS, SamplingSettings(), most).tolist() == [1]


def test_numbers_are_uniform_and_belong_to_their_key() -> None:
    numbers = [uniform(0, "document", completion, step) for completion in range(10) for step in range(400)]
    assert all(0 <= number < 1 for number in numbers)
    assert sum(numbers) / 4000 == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 4000))
    counts = Counter(int(10 * number) for number in numbers)
    assert sum((counts[i] - 400) ** 2 / 400 for i in range(10)) < 27.9  # chi-squared, 9 degrees, 1 in 1000
    assert uniform(0, "document", 3, 7) == numbers[3 * 400 + 7]
    others = [uniform(1, "document", 3, 7), uniform(0, "document 3", 3, 7), uniform(0, "document", 37, 7)]
    assert len({numbers[3 * 400 + 7], *others}) == 4


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 0}, {"temperature": -0.1}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_k": 0}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        SamplingSettings(**wrong)


def sampler(model: PreTrainedModel, **options: Any) -> Sampler:
    return Sampler(model, byte_tokenizer(), **{"max_length": 256, "eos_token_ids": {257}, **options})


def by_library(model: PreTrainedModel, prompt: Prompt, new: int) -> list[int]:
    """Greedy tokens by the library's own `generate`."""
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([prompt.ids]), max_new_tokens=new, do_sample=False, eos_token_id=257, pad_token_id=257
        )
    ids: list[int] = out[0, len(prompt.ids) :].tolist()
    return ids


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    **{variant: lambda variant=variant: tiny_model(variant) for variant in VARIANTS},  # type: ignore[misc]
    "mixed": lambda: cut(
        decoder_of(tiny_model("llama")), KeptUnits((0, 1, 2, 3), ((), (0, 1), (3,), (0, 1, 2, 3)), ((0,),) * 4)
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shared", [0, 40])
def test_greedy_is_the_librarys(name: str, shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunelab.inference.runner.PREFIX_KEY", 0.0)  # on a tiny model no copy would pay
    model, tokenizer = MODELS[name](), byte_tokenizer()
    prompts = [Prompt([*range(shared), *prompt.ids], prompt.document) for prompt in PROMPTS]
    mine = sampler(model, batch_tokens=10_000)
    found = mine.generate(prompts, SamplingSettings(max_new_tokens=20))
    read = mine.statistics.computed_tokens - sum(completion.tokens - 1 for [completion] in found)
    longest = max(len(prompt.ids) for prompt in PROMPTS)
    assert read == shared + len(PROMPTS) * longest
    for [completion], prompt in zip(found, prompts, strict=True):
        expected = by_library(model, prompt, 20)
        assert completion.text == tokenizer.decode(expected, skip_special_tokens=True)
        assert completion.tokens == len(expected)
        assert completion.finish_reason == ("stop" if expected[-1] == 257 else "length")


def test_long_completions_are_the_librarys(tiny: Callable[[str], Tiny]) -> None:
    for variant in ("llama", "gemma2"):
        model = tiny(variant).model.model
        found = sampler(model, eos_token_ids=()).generate(PROMPTS, SamplingSettings(max_new_tokens=150))
        for [completion], prompt in zip(found, PROMPTS, strict=True):
            with torch.inference_mode():
                out = model.generate(torch.tensor([prompt.ids]), max_new_tokens=150, do_sample=False, eos_token_id=-1)
            assert completion.text == byte_tokenizer().decode(out[0, len(prompt.ids) :], skip_special_tokens=True)
            assert completion.tokens == 150


def drawn(model: PreTrainedModel, prompts: list[Prompt], **options: Any) -> dict[tuple[str, int], Completion]:
    settings = SamplingSettings(max_new_tokens=12, temperature=1.5, top_p=0.95, top_k=100, stop=("e",))
    found = sampler(model, **options).generate(prompts, settings)
    assert [[c.completion for c in some] for some in found] == [list(p.completions) for p in prompts]
    return {(completion.document, completion.completion): completion for some in found for completion in some}


def test_a_completion_does_not_depend_on_what_is_sampled_beside_it(tiny: Callable[[str], Tiny]) -> None:
    for variant in ("llama", "gemma2"):
        model = tiny(variant).model.model
        prompts = [Prompt(prompt.ids, prompt.document, range(5)) for prompt in PROMPTS]
        together = drawn(model, prompts)
        assert len({completion.text for completion in together.values()}) > 10
        assert drawn(model, prompts, batch_tokens=1) == together
        assert drawn(model, prompts[::-1], batch_tokens=300) == together
        some = [Prompt(PROMPTS[1].ids, PROMPTS[1].document, (3, 1))]
        assert drawn(model, some) == {key: together[key] for key in ((PROMPTS[1].document, n) for n in (3, 1))}
        other = drawn(model, prompts, seed=1)
        assert sum(other[key].text != completion.text for key, completion in together.items()) > 10


def test_sampled_tokens_follow_the_distribution(tiny: Callable[[str], Tiny]) -> None:
    model, settings = tiny("llama").model.model, SamplingSettings(max_new_tokens=1, temperature=2.0, top_k=4)
    with torch.inference_mode():
        expected = distribution(model(torch.tensor([PROMPTS[0].ids])).logits[:, -1], settings)[0]
    mine = sampler(model)
    [found] = mine.generate([Prompt(PROMPTS[0].ids, "one", range(2000))], settings)
    counts = Counter(completion.text for completion in found)
    tokenizer = byte_tokenizer()
    shares: dict[str, float] = defaultdict(float)
    for token in expected.nonzero()[:, 0].tolist():
        shares[tokenizer.decode([token], skip_special_tokens=True)] += float(expected[token])
    assert counts.keys() == shares.keys()
    for text, share in shares.items():
        assert counts[text] / 2000 == pytest.approx(share, abs=4 * math.sqrt(0.25 / 2000))


def test_completions_share_their_prompt_and_prompts_their_shots(tiny: Callable[[str], Tiny]) -> None:
    model, settings = tiny("llama").model.model, SamplingSettings(max_new_tokens=4, temperature=1.0)
    mine = sampler(model, batch_tokens=100_000, eos_token_ids=())
    mine.generate([Prompt(range(100), "one", range(5))], settings)
    # The first token comes from the prompt's forward; three more forwards of five rows follow.
    assert mine.statistics.computed_tokens == 100 + 3 * 5
    assert mine.statistics.forwards == 1 + 3
    assert mine.statistics.requests == 5
    prompts = [Prompt([*range(200), d], f"{d}") for d in range(60)]
    shots = sampler(model, batch_tokens=100_000, eos_token_ids=())
    shots.generate(prompts, SamplingSettings(max_new_tokens=1))
    assert shots.statistics.computed_tokens == shots.statistics.distinct_tokens == 200 + 60


def test_greedy_completions_of_a_prompt_are_written_once(tiny: Callable[[str], Tiny]) -> None:
    mine = sampler(tiny("llama").model.model, batch_tokens=100_000)
    [found] = mine.generate([Prompt(range(50), "one", range(5))], SamplingSettings(max_new_tokens=4))
    assert mine.statistics.computed_tokens <= 50 + 3
    assert len({completion.text for completion in found}) == 1


def test_each_row_ends_at_its_own_stop(tiny: Callable[[str], Tiny]) -> None:
    model, tokenizer = tiny("llama").model.model, byte_tokenizer()
    whole = [tokenizer.decode(by_library(model, prompt, 40)) for prompt in PROMPTS]
    # Each text's own seventh and eighth characters stop it, and may stop another earlier.
    stops = tuple(text[6:8] for text in whole)
    mine = sampler(model, batch_tokens=100_000, eos_token_ids=())
    found = mine.generate(PROMPTS, SamplingSettings(max_new_tokens=40, stop=("", *stops)))
    for [completion], text in zip(found, whole, strict=True):
        assert completion.text == text[: min(text.find(stop) for stop in stops if stop in text)]
        assert completion.finish_reason == "stop"
    # Nobody waits for 40 tokens, and rows that have ended are no longer computed.
    assert mine.statistics.forwards < 40
    prompt_tokens = len(PROMPTS) * max(len(prompt.ids) for prompt in PROMPTS)
    written = sum(completion.tokens - 1 for [completion] in found)
    assert mine.statistics.computed_tokens <= prompt_tokens + written


@pytest.mark.parametrize("variant", ["llama", "gemma2", "qwen2_window"])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_places_that_are_free_are_taken(variant: str, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four places for 24 prompts of 3 to 49 tokens, whose completions are ragged, too.

    The tokens are those of prompts one by one, and so is the work but for padding; batches that wait for their slowest
    row need more forwards.
    """
    monkeypatch.setattr("prunelab.inference.sampler.ROWS", {"cpu": 4})
    monkeypatch.setattr("prunelab.inference.kv_cache.DecodingCache.GROWTH", 2)
    model = tiny_model(variant)
    lengths = sorted((3 + 2 * i for i in range(24)), reverse=True)
    prompts = [Prompt([(7 * n + 3 * i) % 250 for i in range(n)], f"{n}") for n in lengths]
    settings = SamplingSettings(max_new_tokens=40, temperature=temperature, stop=("e", "7", "\ufffd\ufffd"))
    alone = sampler(model, batch_tokens=1)
    expected = alone.generate(prompts, settings)
    assert len({completion.tokens for [completion] in expected}) > 3, "ragged"
    mine, waits = sampler(model, batch_tokens=10_000), sampler(model, batch_tokens=10_000)
    assert mine.generate(prompts, settings) == expected
    assert [one for i in range(0, 24, 4) for one in waits.generate(prompts[i : i + 4], settings)] == expected
    assert mine.statistics.forwards < waits.statistics.forwards
    assert mine.statistics.computed_tokens <= alone.statistics.computed_tokens + 24 * 6


def test_a_stream_yields_completions_as_they_finish(tiny: Callable[[str], Tiny]) -> None:
    mine, settings = sampler(tiny("llama").model.model, batch_tokens=1), SamplingSettings(max_new_tokens=3)
    stream = mine.stream(PROMPTS, settings)
    first = next(stream)
    before = mine.statistics.forwards
    rest = list(stream)
    assert mine.statistics.forwards > before
    found = {
        completion.document: completion
        for [completion] in sampler(tiny("llama").model.model).generate(PROMPTS, settings)
    }
    assert {completion.document: completion for completion in [first, *rest]} == found


def test_long_prompts_are_truncated_on_the_left_and_counted(tiny: Callable[[str], Tiny]) -> None:
    model, settings = tiny("llama").model.model, SamplingSettings(max_new_tokens=10)
    mine = sampler(model, max_length=40)
    long, short = Prompt(range(100), "long"), Prompt(range(30), "short")
    found = mine.generate([long, short], settings)
    expected = sampler(model).generate([Prompt(range(70, 100), "long"), short], settings)
    assert found == expected
    assert mine.statistics.truncated == 1
    with pytest.raises(InvalidRequest, match="max_new_tokens is 40"):
        mine.generate([short], SamplingSettings(max_new_tokens=40))


def test_nothing_of_the_generation_configuration_leaks_in(tiny: Callable[[str], Tiny]) -> None:
    model = tiny_model("llama")
    model.generation_config.update(temperature=3.0, top_k=1, top_p=0.1, repetition_penalty=5.0, max_new_tokens=2)
    assert drawn(model, PROMPTS) == drawn(tiny("llama").model.model, PROMPTS)


def test_end_tokens_are_the_tokenizers_and_the_models() -> None:
    model = tiny_model("llama")
    model.generation_config.eos_token_id = [11, 12]
    assert Sampler(model, byte_tokenizer(), max_length=64).eos_token_ids == {11, 12, 257}
    model.generation_config.eos_token_id = None
    assert Sampler(model, byte_tokenizer(), max_length=64).eos_token_ids == {257}


def test_not_a_number_names_the_document() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = torch.nan
    prompts = [Prompt([1, 2], "humaneval 1"), Prompt([1, 7], "humaneval 7")]
    with pytest.raises(NonFiniteValue, match=r"^humaneval 7: .*NaN"):
        sampler(model).generate(prompts, SamplingSettings(max_new_tokens=3))


def test_batches_that_do_not_fit_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    prompts = [Prompt(prompt.ids, prompt.document, range(5)) for prompt in PROMPTS]
    expected = drawn(model, prompts)
    forward, calls = type(model).forward, 0

    def limited(self: Any, input_ids: torch.Tensor, **arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if input_ids.shape[0] > 6 and calls > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, input_ids=input_ids, **arguments)

    monkeypatch.setattr(type(model), "forward", limited)
    with pytest.warns(UserWarning, match="not enough free memory for batches of 100,000 tokens"):
        assert drawn(model, prompts, batch_tokens=100_000) == expected
    assert calls > 20
    # Rows that had finished before memory ran out are not written twice.
    calls, mine = 0, sampler(model, batch_tokens=100_000)
    settings = SamplingSettings(max_new_tokens=12, temperature=1.5, top_p=0.95, top_k=100, stop=("e",))
    with pytest.warns(UserWarning, match="not enough free memory"):
        streamed = [(completion.document, completion.completion) for completion in mine.stream(prompts, settings)]
    assert sorted(streamed) == sorted(expected)


def test_batch_tokens_follow_from_model_and_device(
    tiny: Callable[[str], Tiny], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prunelab.inference.batch_memory.total_bytes", lambda _: 1 << 30)
    found = []
    for free in (1 << 30, 1 << 31):
        monkeypatch.setattr("prunelab.inference.batch_memory.free_bytes", lambda _, free=free: free)
        mine = sampler(tiny("llama").model.model)
        mine.generate(PROMPTS, SamplingSettings(max_new_tokens=2))
        found.append((mine.batch_tokens, mine.shrunk_from))
    assert found[0] == found[1] == (32 * 256, None), "as many rows as are ever written together, each as long as can be"
    monkeypatch.setattr("prunelab.inference.batch_memory.free_bytes", lambda _: 1 << 23)
    mine = sampler(tiny("llama").model.model)
    with pytest.warns(UserWarning, match="not enough free memory"):
        mine.generate(PROMPTS, SamplingSettings(max_new_tokens=2))
    assert mine.batch_tokens is not None
    assert mine.shrunk_from is not None
    assert 64 < mine.batch_tokens < mine.shrunk_from == 32 * 256


def test_a_trained_model_tells_its_story(shared: Path) -> None:
    folder = shared / "models" / "stories260K"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    mine = Sampler(model, tokenizer, max_length=512)
    prompt = Prompt(tokenizer("Once upon a time")["input_ids"], "story")
    [[completion]] = mine.generate([prompt], SamplingSettings(max_new_tokens=60, stop=("park.",)))
    assert completion.text == ", there was a little girl named Lily. She loved to play outside in the "
    assert completion.finish_reason == "stop"
