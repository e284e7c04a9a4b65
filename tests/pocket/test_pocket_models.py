"""The trained pocket models: small, whole, reproducible, and asked in the words in which they were taught."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ran
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from prunelab.evaluation.benchmarks import EvaluationSettings, benchmarks, find_benchmark
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.evaluation.benchmarks.suites import suites
from prunelab.models.bundled import CONTEXT, POCKET_MODELS, checkpoint_of, config_of
from prunelab.models.loading import load_model
from prunelab.pocket.data import data_sets
from prunelab.pocket.study import CALIBRATION_ROW, pocket_study
from prunelab.pocket.tasks import TASKS
from prunelab.pocket.tasks.base import DataSet
from prunelab.pocket.tasks.drills import DRILLS, words
from prunelab.pocket.tasks.encyclopaedia import nats_of
from prunelab.pocket.turns import BEGIN
from tools.pocket_training.initialization import give_heads
from tools.pocket_training.tokens import Kind, Stream, train_tokenizer

Command = Callable[..., Ran]
TRAINED = [name for name in POCKET_MODELS if (checkpoint_of(name) or Path()).is_dir()]


@cache
def tokenizer_of(seed: int) -> PreTrainedTokenizerFast:
    return train_tokenizer(seed, CONTEXT)


@cache
def all_data() -> dict[str, DataSet]:
    return data_sets()


def folder_of(name: str) -> Path:
    folder = checkpoint_of(name)
    assert folder is not None
    return folder


def first_training(name: str) -> dict[str, Any]:
    """The one that began with nothing, if others went on from it."""
    training: dict[str, Any] = json.loads((folder_of(name) / "training.json").read_text())
    while training["after"]:
        training = training["after"]
    return training


@pytest.fixture(scope="module")
def data(pocket_root: Path) -> Path:
    return pocket_root


def test_the_default_model_is_there() -> None:
    assert "pocket-llama" in TRAINED


@pytest.mark.parametrize("name", TRAINED)
def test_a_checkpoint_is_small_safe_and_in_bfloat16(name: str) -> None:
    folder = folder_of(name)
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) <= 8e6
    assert not list(folder.glob("*.bin")) + list(folder.glob("*.pt")) + list(folder.glob("*.py"))
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        assert {weights.get_tensor(key).dtype for key in weights.keys()} == {torch.bfloat16}  # noqa: SIM118


@pytest.mark.parametrize("name", TRAINED)
def test_a_model_is_of_the_configuration_that_training_makes(name: str) -> None:
    model = load_model(name, device="cpu")
    assert model.name == name
    assert len(model.decoder.shapes) == 10
    begin, end = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    made = config_of(name, len(model.tokenizer), begin, end).to_dict()
    loaded = model.model.config.to_dict()
    unlike = {key for key in made if made[key] != loaded.get(key)}
    assert unlike <= {"architectures", "dtype", "transformers_version", "_name_or_path"}
    training = json.loads((folder_of(name) / "training.json").read_text())
    assert training["parameters"] == model.decoder.parameters
    assert training["curve"][-1]["step"] == training["recipe"]["tokens"] // training["recipe"]["batch"]
    assert training["curve"][-1]["loss"] < first_training(name)["curve"][0]["loss"] / 3


@pytest.mark.parametrize("name", TRAINED)
def test_the_tokenizer_can_be_trained_again(name: str) -> None:
    again = tokenizer_of(first_training(name)["recipe"]["seed"])
    tokenizer = load_model(name, device="cpu").tokenizer
    assert again.get_vocab() == tokenizer.get_vocab()
    text = "Question: What does the velmo eat?\nAnswer: seeds"
    assert again(text).input_ids == tokenizer(text).input_ids
    assert tokenizer(text).input_ids[0] == tokenizer.convert_tokens_to_ids(BEGIN)
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_a_name_is_a_folder_only_where_a_checkpoint_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`prunelab study --model pocket-llama --out pocket-llama` makes a folder of that name, and not a model of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pocket-llama").mkdir()
    assert checkpoint_of("pocket-llama") is not None
    (tmp_path / "pocket-llama" / "config.json").touch()
    assert checkpoint_of("pocket-llama") is None
    assert checkpoint_of("elsewhere") is None


@pytest.mark.parametrize("name", TRAINED)
def test_scores_are_kept_for_every_benchmark(name: str) -> None:
    scores = json.loads((folder_of(name) / "scores.json").read_text())
    assert {row["benchmark"] for row in scores} == set(suites["paper"].benchmarks)


@pytest.mark.parametrize("name", TRAINED)
def test_perplexity_is_near_the_generators_own(name: str) -> None:
    """The literature's perplexity by token against the one that nobody can beat, of the same tokens."""
    scores = json.loads((folder_of(name) / "scores.json").read_text())
    by_token = next(row["value"] for row in scores if row["metric"] == "token_perplexity")
    lines = all_data()["Salesforce/wikitext"]["wikitext-2-raw-v1"]["test"]
    tokenizer = load_model(name, device="cpu").tokenizer
    tokens = len(tokenizer("\n\n".join(line["text"] for line in lines), add_special_tokens=False).input_ids)
    above = by_token / math.exp(nats_of("test") / tokens)
    assert 1 < above < 1.2
    page = (Path(__file__).parents[2] / "docs" / "pocket.md").read_text().split("\n")
    column = cells(next(line for line in page if line.startswith("| benchmark | pocket-llama"))).index(name)
    line = next(line for line in page if line.startswith("| `wikitext2` |") and "generator" in line)
    assert cells(line)[column] == f"perplexity {by_token:.2f} by token, {above:.2f} times the generator's"


@pytest.mark.parametrize("name", TRAINED)
def test_the_documentation_tells_the_scores_that_are_kept(name: str) -> None:
    scores = json.loads((folder_of(name) / "scores.json").read_text())
    page = (Path(__file__).parents[2] / "docs" / "pocket.md").read_text().split("\n")
    column = cells(next(line for line in page if line.startswith("| benchmark | pocket-llama"))).index(name)
    for benchmark in ("arc_easy", "arc_challenge", "boolq", "winogrande", "mmlu", "gsm8k", "humaneval", "ifeval"):
        kept = next(row["value"] for row in scores if row["benchmark"] == benchmark and row["primary"])
        line = [line for line in page if line.startswith(f"| `{benchmark}` |")][-1]
        assert cells(line)[column] == f"{100 * kept:.1f} %", (benchmark, line)
    whole = {row["metric"]: row["value"] for row in scores if row["benchmark"] == "stereoset" and not row["group"]}
    line = next(line for line in page if line.startswith("| `stereoset` |") and "ICAT" in line)
    assert cells(line)[column] == f"ICAT {whole['icat']:.1f}, LMS {whole['lms']:.1f}, SS {whole['ss']:.1f}"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("benchmark", ["arc_easy", "gsm8k"])
def test_a_part_of_the_scores_is_measured_again(benchmark: str, data: Path) -> None:
    """A hundred documents against the score kept from all: four standard errors."""
    kept = json.loads((folder_of("pocket-llama") / "scores.json").read_text())
    value = next(row["value"] for row in kept if row["benchmark"] == benchmark and row["primary"])
    limit = 100 if benchmark == "arc_easy" else 30
    found = find_benchmark(benchmark).evaluate(
        load_model("pocket-llama", device="cpu"), EvaluationSettings(datasets_root=data, limit=limit)
    )
    assert found.scores[0].value == pytest.approx(value, abs=max(0.05, 4 * (value * (1 - value) / limit) ** 0.5))
    if benchmark == "arc_easy":
        assert found.conditions["truncated"] == 0


def rendered(benchmark: str, data: Path) -> list[tuple[str, Any]]:
    """What lm-eval makes of each document: the prompt, and what it may continue with."""
    chosen = benchmarks[benchmark]
    assert isinstance(chosen, LmEvalBenchmark)
    task = next(iter(chosen.tasks(EvaluationSettings(datasets_root=data)).values())).build(0, 0, CONTEXT)
    split = task.test_docs() if task.has_test_docs() else task.validation_docs()
    return [(task.doc_to_text(doc), task.doc_to_choice(doc) if task.config.doc_to_choice else None) for doc in split]


@pytest.mark.parametrize(
    ("benchmark", "form"),
    [
        ("arc_easy", r"Question: [A-Z][^\n]*\?\nAnswer:"),
        ("arc_challenge", r"Question: [A-Z][^\n]*\?\nAnswer:"),
        ("boolq", r"Look: (\w+ has a \w+ \w+\. ?){3}\nQuestion: does \w+ have a \w+ \w+\?\nAnswer:"),
        ("mmlu", r"[A-Z][^\n]*\?\nA\. \w+\nB\. \w+\nC\. \w+\nD\. \w+\nAnswer:"),
        ("gsm8k", r"Question: \w+ has [^\n]* How many \w+ now\?\nAnswer:"),
    ],
)
def test_benchmarks_ask_in_the_form_in_which_the_models_were_taught(benchmark: str, form: str, data: Path) -> None:
    import random

    rng = random.Random(0)
    taught = {"arc_easy": "questions", "arc_challenge": "questions", "boolq": "passages", "mmlu": "letters"}
    task = next(task for task in TASKS if task.name == taught.get(benchmark, "sums"))
    prompts = [prompt for prompt, _ in rendered(benchmark, data)]
    assert prompts
    assert all(re.fullmatch(form, prompt) for prompt in prompts)
    lessons = ["".join(piece.text for piece in task.training(rng) if not piece.is_answer) for _ in range(50)]
    assert any(re.fullmatch(form, lesson) for lesson in lessons)


def test_every_prompt_fits_the_context(data: Path) -> None:
    """With its shots, and with room for as many new tokens as the benchmark generates."""
    tokenizer = load_model("pocket-llama", device="cpu").tokenizer
    settings = EvaluationSettings(datasets_root=data)
    for name in ("gsm8k", "mmlu"):
        chosen = benchmarks[name]
        assert isinstance(chosen, LmEvalBenchmark)
        for task in chosen.tasks(settings).values():
            built = task.build(5, 0, CONTEXT)
            room = CONTEXT - (task.new_tokens(CONTEXT) if task.generates else 1)
            document = next(iter(built.test_docs()))
            assert len(tokenizer(built.fewshot_context(document, 5)).input_ids) <= room, name


def test_the_stream_gives_every_task_its_share() -> None:
    stream = Stream(train_tokenizer(0, CONTEXT, documents=500), seed=0)
    batch = stream.batch(400, 256, progress=1.0)
    wanted = {task.name: task.share / sum(other.share for other in TASKS) for task in TASKS}
    for index, task in enumerate(TASKS):
        given = (batch.task == index).float().mean().item()
        assert given == pytest.approx(wanted[task.name], abs=0.012), task.name
    assert set(batch.kind.unique().tolist()) == set(Kind)
    early = Stream(stream._tokenizer, seed=0).batch(100, 256, progress=0.0)
    drills = torch.tensor([index for index, task in enumerate(TASKS) if task in DRILLS])
    assert torch.isin(early.task, drills).float().mean() > 0.5


@pytest.mark.parametrize("name", POCKET_MODELS)
def test_a_model_starts_with_heads_that_look_back_and_heads_that_match(name: str) -> None:
    torch.manual_seed(0)
    config = config_of(name, 2048, 0, 1)
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config)
    give_heads(model, seed=0)
    once = torch.randperm(2048)[:40]
    with torch.no_grad():
        attentions = model(torch.cat([once, once])[None], output_attentions=True).attentions
    for head in range(4):
        back = [torch.diagonal(attentions[0][0, head], -places).mean() for places in range(8)]
        assert max(range(8), key=back.__getitem__) == head + 1
    induction = torch.stack([attentions[1][0, 0, 40 + index, index + 1] for index in range(39)]).mean()
    assert induction > 1.5 / 60


def test_the_words_of_the_world_are_tokens() -> None:
    """Behind a space, as they always stand where they must be found again."""
    tokenizer = tokenizer_of(0)
    assert all(len(tokenizer(f" {word}", add_special_tokens=False).input_ids) == 1 for word in words())


@pytest.mark.usefixtures("_pocket_cache")
def test_a_pocket_study_in_little(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = ["arc_easy", "boolq", "gsm8k", "ifeval", "stereoset", "wikitext2"]
    options = [f"--benchmark={name}" for name in chosen]
    ran = command("study", *options, "--limit", 4, "--ratio", 0.3, "--method", "shortgpt", "--samples", 4)
    assert ran.code == 0, ran.err
    assert "pocket-llama" in ran.out
    rows = (tmp_path / "runs" / "pocket-llama" / "results.csv").read_text()
    assert all(f",{name}," in rows for name in chosen)


def test_only_the_benchmarks_that_are_named_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prunelab.pocket.study.find_benchmark", lambda name: pytest.fail(f"{name} is looked at"))
    fields, left_out = pocket_study(["pocket-llama"], ["arc_easy", "boolq"])
    assert (fields["benchmarks"], fields["allow_code_execution"], left_out) == (["arc_easy", "boolq"], False, [])
    assert pocket_study(["pocket-llama"], ["humaneval"])[0]["allow_code_execution"] is True


def test_a_pocket_model_beside_another_wants_its_data_named(command: Command, tmp_path: Path) -> None:
    ran = command("study", "--model", "pocket-llama", "--model", tmp_path, "--out", tmp_path / "run")
    assert ran.code == 2
    assert "study it separately, or give --datasets-root" in ran.err


def test_there_is_text_enough_for_the_calibration_that_a_study_asks_for() -> None:
    """128 samples of its length and the windows held out beside them, as by default."""
    tokenizer = load_model("pocket-llama", device="cpu").tokenizer
    pages = all_data()["EleutherAI/wikitext_document_level"]["wikitext-2-raw-v1"]["train"]
    assert sum(len(tokenizer(page["page"]).input_ids) for page in pages) > (128 + 16) * CALIBRATION_ROW * 1.2
