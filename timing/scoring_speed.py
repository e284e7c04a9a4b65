"""prunelab's scorer compared with lm-eval's HFLM and with the minimum computation, on four-choice questions.

Uses ARC-Challenge and MMLU if PRUNELAB_SHARED has them, else synthetic questions of the same lengths.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from common import random_llama
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from prunelab.inference.batch_memory import measured_peak
from prunelab.inference.lm_eval_adapter import PrunelabLM

HUB = Path(os.environ.get("PRUNELAB_SHARED", Path(__file__).parents[2] / "shared")) / "hub"
BATCH_SIZES = (1, 4, 16)
Pair = tuple[str, str]


@dataclass(frozen=True)
class Question:
    """A question, its choices, and the index of the correct one."""

    text: str
    choices: Sequence[str]
    answer: int


@dataclass(frozen=True)
class Setting:
    """A prompt format: its requests by document, and the required speedup over HFLM."""

    name: str
    documents: list[list[Pair]]
    target: float


def invented(count: int, words: int, choice_words: int) -> list[Question]:
    """Synthetic questions of realistic lengths, with a vocabulary of 3000 words."""
    chance = random.Random(words)
    lexicon = ["".join(chance.choices("aeioulnrst", k=chance.randint(2, 8))) for _ in range(3000)]

    def some(mean: int) -> str:
        return " ".join(chance.choices(lexicon, k=max(1, round(chance.gauss(mean, mean / 3)))))

    return [
        Question(some(words) + "?", [some(choice_words) for _ in range(4)], chance.randrange(4)) for _ in range(count)
    ]


def arc(split: str) -> list[Question]:
    """Questions of ARC-Challenge."""
    if not HUB.is_dir():
        return invented(400, 22, 5)
    from datasets import load_dataset

    rows = load_dataset(str(HUB / "allenai/ai2_arc"), "ARC-Challenge", split=split)
    return [Question(r["question"], r["choices"]["text"], r["choices"]["label"].index(r["answerKey"])) for r in rows]


def mmlu(split: str) -> list[Question]:
    """Questions of one subject of MMLU."""
    if not HUB.is_dir():
        return invented(400, 40, 7)
    from datasets import load_dataset

    rows = load_dataset(str(HUB / "cais/mmlu"), "high_school_biology", split=split)
    return [Question(r["question"].strip(), r["choices"], r["answer"]) for r in rows]


def arc_documents(count: int, shots: int, *, shared: bool) -> list[list[Pair]]:
    """ARC in lm-eval's format: each choice is a continuation; the same shots for all documents, or separate ones."""
    pool, chance = arc("validation"), random.Random(0)
    documents = []
    for question in arc("test")[:count]:
        examples = pool[:shots] if shared else chance.sample(pool, shots)
        context = "".join(f"Question: {q.text}\nAnswer: {q.choices[q.answer]}\n\n" for q in examples)
        documents.append(
            [(f"{context}Question: {question.text}\nAnswer:", f" {choice}") for choice in question.choices]
        )
    return documents


def mmlu_documents(count: int, shots: int) -> list[list[Pair]]:
    """MMLU in lm-eval's format: shots from the subject, and a letter to choose."""

    def ask(question: Question) -> str:
        listed = "".join(f"{letter}. {choice}\n" for letter, choice in zip("ABCD", question.choices, strict=True))
        return f"{question.text}\n{listed}Answer:"

    head = "The following are multiple choice questions (with answers) about high school biology.\n\n"
    context = head + "".join(f"{ask(q)} {'ABCD'[q.answer]}\n\n" for q in mmlu("dev")[:shots])
    return [[(context + ask(question), f" {letter}") for letter in "ABCD"] for question in mmlu("test")[:count]]


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer with 8000 tokens, trained on the questions."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()

    def texts() -> Iterator[str]:
        for question in arc("test") + mmlu("test"):
            yield from (question.text, *(f" {choice}" for choice in question.choices))

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    core.train_from_iterator(
        texts(),
        trainers.BpeTrainer(vocab_size=8000, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def instances(documents: list[list[Pair]]) -> list[Instance]:
    pairs = [(i, pair) for i, document in enumerate(documents) for pair in document]
    return [Instance("loglikelihood", {}, pair, k, ("timing", i, 1)) for k, (i, pair) in enumerate(pairs)]


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time of one call: processor time on the CPU, so that other programs do not count, else wall-clock time."""
    if device.type == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start


def tuned_hflm(model: PreTrainedModel, words: PreTrainedTokenizerFast, setting: Setting) -> HFLM:
    """HFLM with the fastest batch size on a few documents."""
    few = instances(setting.documents[: max(2, len(setting.documents) // 6)])

    def rate(size: int) -> float:
        lm = HFLM(pretrained=model, tokenizer=words, batch_size=size)
        return seconds(lambda: lm.loglikelihood(few, disable_tqdm=True), model.device)

    return HFLM(pretrained=model, tokenizer=words, batch_size=min(BATCH_SIZES, key=rate))


@torch.inference_mode()
def floor(model: PreTrainedModel, tokens: int, row: int = 128, rows: int = 4) -> None:
    """Forward pass over as many tokens as the prefix tree has nodes, in full rows, without reading results."""
    ids = torch.ones(tokens, dtype=torch.long, device=model.device)
    for batch in ids.split(row * rows):
        full_rows = batch[: len(batch) // row * row].view(-1, row)
        for some in (full_rows, batch[full_rows.numel() :][None]):
            if some.numel():
                model(input_ids=some, use_cache=False, logits_to_keep=1)


def verdict(value: float, bound: float, *, most: bool) -> str:
    """A value with its bound and whether the bound is met."""
    is_met = value <= bound if most else value >= bound
    return f"{value:.2f} (at {'most' if most else 'least'} {bound:g}: {'met' if is_met else 'MISSED'})"


def compare(model: PreTrainedModel, words: PreTrainedTokenizerFast, setting: Setting) -> None:
    """Print one setting's results."""
    requests, device = instances(setting.documents), model.device
    mine, reference = PrunelabLM(model, words), tuned_hflm(model, words, setting)
    with measured_peak(device) as my_peak:
        found = mine.loglikelihood(requests)
    with measured_peak(device) as their_peak:
        reference.loglikelihood(instances(setting.documents[:4]), disable_tqdm=True)
    nodes, computed = mine.scorer.statistics.distinct_tokens, mine.scorer.statistics.computed_tokens
    ours: list[float] = []
    floors: list[float] = []
    theirs: list[float] = []
    expected: list[tuple[float, bool]] = []
    # prunelab and the floor run before and after HFLM, so that other load affects all of them.
    works: list[tuple[Callable[[], object], list[float]]] = [
        (lambda: mine.loglikelihood(requests), ours),
        (lambda: floor(model, nodes), floors),
        (lambda: expected.extend(reference.loglikelihood(requests, disable_tqdm=True)), theirs),
        (lambda: floor(model, nodes), floors),
        (lambda: mine.loglikelihood(requests), ours),
    ]
    for work, times in works:
        times.append(seconds(work, device))
    worst = max(abs(a[0] - b[0]) for a, b in zip(found, expected, strict=True))
    flags = sum(a[1] != b[1] for a, b in zip(found, expected, strict=True))
    print(
        f"{setting.name}: {theirs[0]:.1f} s for HFLM (batch size {reference.batch_size}), {mean(ours):.2f} s for ours"
    )
    print(f"    times faster: {verdict(theirs[0] / mean(ours), setting.target, most=False)}")
    print(f"    times the floor: {verdict(mean(ours) / mean(floors), 1.5, most=True)}")
    print(f"        {nodes} distinct tokens, {computed / nodes:.2f} of them run, {mine.scorer.batch_tokens} a batch")
    print(f"    of HFLM's peak memory: {verdict(my_peak.bytes / their_peak.bytes, 1, most=True)}")
    print(f"    log-probabilities within {worst:.1e}, {flags} greedy flags differ", flush=True)


def main() -> None:
    """Print a comparison for each prompt format."""
    logging.disable(logging.WARNING)
    model = random_llama().to("cuda" if torch.cuda.is_available() else "cpu")
    words = tokenizer()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    source = "real" if HUB.is_dir() else "invented"
    print(f"{parameters / 1e6:.0f} M parameters, {model.device}, {torch.get_num_threads()} threads, {source} questions")
    many = 10 if model.device.type == "cuda" else 1
    for setting in (
        Setting("ARC, no shots", arc_documents(40 * many, 0, shared=True), 2),
        Setting("ARC, five shots for all", arc_documents(12 * many, 5, shared=True), 15),
        Setting("ARC, five shots for each", arc_documents(8 * many, 5, shared=False), 3),
        Setting("MMLU, five shots", mmlu_documents(40 * many, 5), 5),
    ):
        compare(model, words, setting)


if __name__ == "__main__":
    main()
