"""The lm-eval language model against lm-eval's own HFLM: the same requests, tasks and answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
from conftest import FAMILIES, VARIANTS, byte_tokenizer, tiny_model
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from prunelab.errors import InvalidRequest, NonFiniteValue
from prunelab.inference.lm_eval_adapter import PrunelabLM
from prunelab.inference.tokenization import Encoder

SHOTS = "Q: Who barks?\nA: the dog\n\nQ: Who meows?\nA: the cat\n\n"
QUESTIONS = ("Q: Who moos?\nA:", "Q: Who bleats at night?\nA:", "Q: Who?\nA:")
PAIRS = [
    *((SHOTS + question, choice) for question in QUESTIONS for choice in (" the cow", " the sheep", " A", " B")),
    *((question, " the cow") for question in QUESTIONS),
    ("", "no context at all"),
    ("spaces at the end   ", "belong to the continuation"),
    ("<s>begins as a text does", " already"),
    ("ünï", "cödé"),
]
# HFLM looks at a batch's first prompt alone to see whether prompts begin with the start token.
CONTEXTS = [context for context, _ in PAIRS if context and not context.startswith("<s>")]
TEXTS = ["short", "a text of some length, " * 30, ""]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """lm-eval warns that an object was given for a model, which is what is wanted here."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, pair, i, ("task", i, 1)) for i, pair in enumerate(arguments)]


def both(model: PreTrainedModel, tokenizer: Any, **options: Any) -> tuple[PrunelabLM, HFLM]:
    reference = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3, **options)
    return PrunelabLM(model, tokenizer, **options), reference


@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_are_hflms(variant: str) -> None:
    mine, reference = both(tiny_model(variant), byte_tokenizer(), max_length=100)
    pairs = instances("loglikelihood", PAIRS)
    for found, expected in zip(
        mine.loglikelihood(pairs), reference.loglikelihood(pairs, disable_tqdm=True), strict=True
    ):
        assert found[0] == pytest.approx(expected[0], abs=1e-4)
        assert found[1] == expected[1]
    texts = instances("loglikelihood_rolling", [(text,) for text in TEXTS])
    rolled = reference.loglikelihood_rolling(texts, disable_tqdm=True)
    assert mine.loglikelihood_rolling(texts) == pytest.approx(rolled, abs=1e-4, rel=1e-6)
    until = instances(
        "generate_until",
        [(c, {"until": u, "max_gen_toks": 20}) for c in CONTEXTS for u in (["\n"], ["e", "a"], "o")],
    )
    assert mine.generate_until(until) == reference.generate_until(until, disable_tqdm=True)


def test_a_trained_model_writes_what_hflm_writes(shared: Path) -> None:
    folder = shared / "models" / "stories260K"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    mine, reference = both(model, tokenizer)
    prompts = ("Once upon a time", "Tom saw a big red ball. He", "Lily was sad. " * 100, "The end of it all was")
    until = instances(
        "generate_until", [(p, {"until": u, "max_gen_toks": 70}) for p in prompts for u in (["."], ["\n", "park"])]
    )
    assert mine.generate_until(until) == reference.generate_until(until, disable_tqdm=True)
    assert mine.sampler.statistics.truncated == 2


@pytest.mark.parametrize("add_bos_token", [None, True, False])
def test_texts_are_encoded_as_hflm_does(add_bos_token: bool | None) -> None:
    mine, reference = both(tiny_model("llama"), byte_tokenizer(), add_bos_token=add_bos_token)
    pairs = [(context, continuation) for context, continuation in PAIRS if context]
    assert mine.encoder.encode_pairs(pairs) == [reference._encode_pair(*pair) for pair in pairs]
    for string in ("", "a", "<s>a", " "):
        for special in (None, True, False):
            assert mine.tok_encode(string, special) == reference.tok_encode(string, special)
        prompts = reference.tok_batch_encode([string or "b"])[0].tolist()
        assert list(mine.encoder.encode_prompts([string or "b"]).values()) == prompts
    assert (mine.prefix_token_id, mine.eot_token_id) == (reference.prefix_token_id, reference.eot_token_id)
    assert (mine.max_length, mine.max_gen_toks) == (reference.max_length, reference.max_gen_toks)


def test_without_a_beginning_token_the_end_token_prefixes() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.bos_token = None
    mine, reference = both(tiny_model("llama"), tokenizer)
    assert Encoder(tokenizer).prefix_token_id == reference.prefix_token_id == 257
    pairs = instances("loglikelihood", [("", "text"), ("</s>text", " more")])
    for found, expected in zip(
        mine.loglikelihood(pairs), reference.loglikelihood(pairs, disable_tqdm=True), strict=True
    ):
        assert found == pytest.approx(expected, abs=1e-4)


def test_chat_templates_are_hflms() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    mine, reference = both(tiny_model("llama"), tokenizer)
    messages = [{"role": "user", "content": "hello"}]
    assert mine.apply_chat_template(messages) == reference.apply_chat_template(messages) == "[user]hello[assistant]"
    system = [{"role": "system", "content": "be kind"}, *messages]
    assert mine.apply_chat_template(system) == reference.apply_chat_template(system)
    assert mine.chat_template(True) == tokenizer.chat_template
    assert mine.tokenizer_name == reference.tokenizer_name


def test_errors_name_task_and_document() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[byte_tokenizer()("%")["input_ids"][-1]] = torch.nan
    mine = PrunelabLM(model, byte_tokenizer())
    with pytest.raises(NonFiniteValue, match=r"^task, document 1: "):
        mine.loglikelihood(instances("loglikelihood", [("a", "b"), ("100%", "c"), ("a", "d")]))
    with pytest.raises(NonFiniteValue, match=r"^task, document 2: "):
        mine.generate_until(instances("generate_until", [(c, {"max_gen_toks": 2}) for c in ("a", "b", "5 %")]))


def test_truncated_requests_are_counted_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    logging.disable(logging.NOTSET)
    mine = PrunelabLM(tiny_model("llama"), byte_tokenizer(), max_length=30)
    mine.loglikelihood(instances("loglikelihood", PAIRS))
    long = [pair for pair in mine.encoder.encode_pairs(PAIRS) if len(pair[0]) + len(pair[1]) > 31]
    assert 0 < mine.statistics["scoring"].truncated == len(long) < len(PAIRS)
    assert f"{mine.statistics['scoring'].truncated} of {len(PAIRS)} requests exceed" in caplog.text
    mine.generate_until(instances("generate_until", [("a" * 40, {"max_gen_toks": 5}), ("a", {"max_gen_toks": 5})]))
    assert mine.statistics["sampling"].truncated == 1
    assert "1 of 2 requests exceed" in caplog.text


def test_progress_is_told_over_all_requests_of_a_kind() -> None:
    told: list[tuple[int, int]] = []
    mine = PrunelabLM(
        tiny_model("llama"), byte_tokenizer(), batch_tokens=64, progress=lambda *counts: told.append(counts)
    )
    mine.loglikelihood(instances("loglikelihood", PAIRS))
    assert told[-1] == (len(PAIRS), len(PAIRS))
    told.clear()
    mine.generate_until(instances("generate_until", [("a", {"max_gen_toks": n}) for n in (2, 3, 2)]))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_repeats_differ_and_come_back() -> None:
    model, options = tiny_model("llama"), {"do_sample": True, "temperature": 1.0, "top_p": 0.9, "max_gen_toks": 8}
    [request] = instances("generate_until", [("a", options)])
    found = PrunelabLM(model, byte_tokenizer(), seed=3).generate_until([request] * 4)
    assert len(set(found)) > 1
    assert PrunelabLM(model, byte_tokenizer(), seed=3, batch_tokens=1).generate_until([request] * 4) == found
    assert PrunelabLM(model, byte_tokenizer(), seed=4).generate_until([request] * 4) != found


@pytest.mark.parametrize(
    ("options", "message"),
    [({"num_beams": 4}, "num_beams"), ({"do_sample": True}, "there is no temperature"), ({"max_gen_toks": 256}, "256")],
)
def test_generation_settings_that_mean_something_else_are_refused(options: dict[str, Any], message: str) -> None:
    mine = PrunelabLM(tiny_model("llama"), byte_tokenizer())
    with pytest.raises(InvalidRequest, match=message):
        mine.generate_until(instances("generate_until", [("a", options)]))


def test_the_settings_go_into_lm_evals_results() -> None:
    mine = PrunelabLM(tiny_model("llama"), byte_tokenizer(), batch_tokens=128)
    mine.loglikelihood(instances("loglikelihood", PAIRS))
    information = json.loads(json.dumps(mine.get_model_info()))
    assert information["scoring_batch_tokens"] == information["sampling_batch_tokens"] == 128
    assert information["statistics"]["scoring"]["requests"] == len(PAIRS)


TASKS = {
    "arc_zero": ("arc/arc_challenge.yaml", 0),
    "arc_five": ("arc/arc_challenge.yaml", 5),
    "winogrande": ("winogrande/default.yaml", 0),
    "boolq": ("super_glue/boolq/default.yaml", 0),
    "mmlu": ("mmlu/default/mmlu_anatomy.yaml", 5),
    "wikitext": ("wikitext/wikitext.yaml", 0),
    "gsm8k": ("gsm8k/gsm8k.yaml", 2),
}


def definition(name: str, hub: Path) -> dict[str, Any]:
    """lm-eval's own definition, on local data that has no train split."""
    path, shots = TASKS[name]
    task = dict(load_yaml(Path(lm_eval.__file__).parent / "tasks" / path))
    task["dataset_path"] = str(hub / task["dataset_path"])
    if name != "gsm8k":
        task.pop("training_split", None)
    else:
        task["generation_kwargs"] |= {"max_gen_toks": 32}
    return {**task, "task": name, "tag": None, "num_fewshot": shots}


@pytest.fixture(scope="module")
def task_requests(shared: Path) -> dict[str, list[Instance]]:
    """The requests of two documents a task, by kind; of wikitext, two short pages."""
    loaded = TaskManager(include_defaults=False).load([definition(name, shared / "hub") for name in TASKS])
    made: dict[str, list[Instance]] = {}
    for name, task in loaded["tasks"].items():
        task.set_fewshot_seed(1234)
        task.build_all_requests(samples=[14, 29] if name == "wikitext" else [0, 1])
        made.setdefault(task.instances[0].request_type, []).extend(task.instances)
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tasks_of_lm_eval_get_hflms_answers(family: str, task_requests: dict[str, list[Instance]]) -> None:
    variant = "mistral_window" if family == "mistral" else family
    mine, reference = both(tiny_model(variant, max_position_embeddings=512), byte_tokenizer())
    choices = task_requests["loglikelihood"]
    assert {request.task_name for request in choices} == TASKS.keys() - {"wikitext", "gsm8k"}
    expected = reference.loglikelihood(choices, disable_tqdm=True)
    for found, answer in zip(mine.loglikelihood(choices), expected, strict=True):
        assert found == pytest.approx(answer, abs=1e-4)
    pages = task_requests["loglikelihood_rolling"]
    rolled = reference.loglikelihood_rolling(pages, disable_tqdm=True)
    assert mine.loglikelihood_rolling(pages) == pytest.approx(rolled, rel=1e-6)  # sums over thousands of tokens
    problems = task_requests["generate_until"]
    assert mine.generate_until(problems) == reference.generate_until(problems, disable_tqdm=True)


def test_simple_evaluate_takes_it_for_a_model(shared: Path) -> None:
    mine = PrunelabLM(tiny_model("llama", max_position_embeddings=512), byte_tokenizer())
    results = lm_eval.simple_evaluate(
        model=mine,
        tasks=[definition("arc_zero", shared / "hub"), definition("gsm8k", shared / "hub")],
        task_manager=TaskManager(include_defaults=False),
        limit=2,
        bootstrap_iters=0,
    )
    assert results["results"]["arc_zero"]["acc,none"] in (0.0, 0.5, 1.0)
    assert results["results"]["gsm8k"]["exact_match,strict-match"] == 0.0
    assert results["config"]["scoring_batch_tokens"] == mine.scorer.batch_tokens == 512
