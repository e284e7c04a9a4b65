"""SmolLM2-135M-Instruct, a trained model, in float32: scored as lm-eval's HFLM does, pruned, reloaded, in llama.cpp."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import Ran
from datasets import load_dataset
from llama_cpp import LlamaCpp
from miniature_hub import write_data_set
from test_benchmarks_lm_eval import oracle
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from prunelab.evaluation.benchmarks import EvaluationSettings, benchmarks
from prunelab.inference.sampler import Prompt, Sampler
from prunelab.inference.sampling import SamplingSettings
from prunelab.models.loading import LanguageModel, load_model

MODELS = Path(os.environ.get("PRUNELAB_REAL_MODELS", Path.home() / ".cache/prunelab-real-models"))
NAME = "smollm2-135m-instruct"
ITEMS = 60
TOKENS = 40
PROMPT = "The capital of France is Paris. The city lies on the river Seine, and"


@pytest.fixture(scope="module")
def folder() -> Path:
    if not (MODELS / NAME / "config.json").is_file():
        pytest.skip(f"no {NAME} in {MODELS}: set PRUNELAB_REAL_MODELS")
    return MODELS / NAME


@pytest.fixture(scope="module")
def smollm2(folder: Path) -> LanguageModel:
    return load_model(str(folder), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def questions(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ARC-Easy's first questions and BoolQ's with the shortest passages, in the hub's layout."""
    root = tmp_path_factory.mktemp("questions")
    arc = load_dataset(str(shared / "hub/allenai/ai2_arc"), "ARC-Easy", split="test").to_list()
    boolq = load_dataset(str(shared / "hub/aps/super_glue"), "boolq", split="validation").to_list()
    boolq.sort(key=lambda row: (len(row["passage"]), row["passage"], row["question"]))
    write_data_set(root / "allenai/ai2_arc", {"ARC-Easy": {"test": arc[:ITEMS], "validation": arc[-2:]}})
    write_data_set(root / "aps/super_glue", {"boolq": {"validation": boolq[:ITEMS]}})
    return root


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "definition", "choices"),
    [("arc_easy", "arc/arc_easy.yaml", 4), ("boolq", "super_glue/boolq/default.yaml", 2)],
)
def test_log_probabilities_are_hflms(
    name: str, definition: str, choices: int, smollm2: LanguageModel, questions: Path
) -> None:
    # On the same logits, a float32 log-softmax over this vocabulary is 8e-6 a token above one in float64: 16 of these
    # 240 choices of ARC-Easy differ by 1.0e-4 to 1.6e-4 from a float32 softmax, and none by over 5e-5 from float64.
    options = {"softmax_dtype": "float64", "training_split": None}
    figures, theirs = oracle(smollm2, questions, definition, ITEMS, 0, **options)
    evaluation = benchmarks[name].evaluate(smollm2, EvaluationSettings(limit=ITEMS, shots=0, datasets_root=questions))
    assert len(evaluation.samples) == len(theirs) == ITEMS
    for score in evaluation.scores:
        assert score.value == figures[f"{score.metric},none"]
    for mine, sample in zip(evaluation.samples, theirs, strict=True):
        expected = [response[0][0] for response in sample["resps"]]
        assert mine["prompt_hash"] == sample["prompt_hash"]
        assert len(expected) >= min(choices, 3)
        assert mine["scores"] == pytest.approx(expected, abs=1e-4, rel=0)


def test_doctor_passes_the_folder(folder: Path, command: Callable[..., Ran]) -> None:
    ran = command("doctor", folder)
    assert ran.code == 0, ran.err
    for shown in ("LlamaForCausalLM", "272 in model.safetensors", "134,515,008", "bfloat16", "tied"):
        assert shown in ran.out


@dataclass(frozen=True)
class Greedy:
    """A prompt's tokens, and what a model writes behind it."""

    prompt: list[int]
    tokens: list[int]
    text: str


def greedy(model: torch.nn.Module, tokenizer: object, prompt: str = PROMPT) -> Greedy:
    """What transformers' own `generate` writes, an end-of-text token being out of bounds."""
    ids = tokenizer(prompt, return_tensors="pt").input_ids  # type: ignore[operator]
    with torch.inference_mode():
        written = model.generate(ids, do_sample=False, min_new_tokens=TOKENS, max_new_tokens=TOKENS)  # type: ignore[operator]
    tokens = written[0, ids.shape[1] :].tolist()
    return Greedy(ids[0].tolist(), tokens, tokenizer.decode(tokens))  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [("shortgpt",), ("flap", "--uniform")], ids=["depth", "uniform-width"])
def test_a_pruned_model_writes_the_same_everywhere(
    options: tuple[str, ...], folder: Path, shared: Path, tmp_path: Path, command: Callable[..., Ran]
) -> None:
    method, *more = options
    shorter = ("--calibration", "c4", "--samples", 4, "--sequence-length", 64, "--datasets-root", shared / "hub")
    ran = command("prune", folder, "--method", method, *more, "--ratio", 0.1, "--dtype", "float32", *shorter,
                  "--out", tmp_path / "pruned")  # fmt: skip
    assert ran.code == 0, ran.err
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
    assert type(reloaded) is LlamaForCausalLM
    assert reloaded.dtype == torch.float32
    assert reloaded.num_parameters() < 128_000_000
    ours = load_model(str(tmp_path / "pruned"), device="cpu")
    theirs = greedy(reloaded, ours.tokenizer)
    assert len(set(theirs.tokens)) > TOKENS // 4, "a loop would prove little"

    sampler = Sampler(ours.model, ours.tokenizer, max_length=256, eos_token_ids=())
    [[mine]] = sampler.generate([Prompt(theirs.prompt, "0")], SamplingSettings(max_new_tokens=TOKENS))
    assert (mine.tokens, mine.text) == (TOKENS, theirs.text)

    if importlib.util.find_spec("gguf") is None or importlib.util.find_spec("xllamacpp") is None:
        return
    ran = command("export", tmp_path / "pruned", "--to", "gguf", "--type", "f32", "--out", tmp_path / "pruned.gguf")
    assert ran.code == 0, ran.err
    llama_cpp = LlamaCpp(tmp_path / "pruned.gguf")
    assert llama_cpp.tokens(PROMPT) == theirs.prompt
    assert llama_cpp.greedy(theirs.prompt, TOKENS) == theirs.tokens
