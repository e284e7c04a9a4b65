"""A folder laid out like the hub, with a few documents of every text benchmark, for tests without real data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from prunelab.evaluation.benchmarks import benchmarks

Rows = Sequence[Mapping[str, Any]]
Splits = Mapping[str, Rows]

ANIMALS = ("fox", "bird", "frog", "horse", "mouse", "goose", "sheep", "tiger")


def _arc(animal: str, options: int) -> dict[str, Any]:
    labels = list("ABCDE"[:options])
    text = [f"a {animal} {i}" for i in range(options)]
    return {
        "id": animal,
        "question": f"What is a {animal}?",
        "choices": {"text": text, "label": labels},
        "answerKey": labels[len(animal) % options],
    }


def _boolq(index: int, animal: str) -> dict[str, Any]:
    return {"passage": f"The {animal} runs.", "question": f"does the {animal} run", "idx": index, "label": index % 2}


def _winogrande(index: int, animal: str) -> dict[str, Any]:
    sentence = f"The {animal} saw the cow, so the _ ran away."
    return {"sentence": sentence, "option1": animal, "option2": "cow", "answer": str(1 + index % 2)}


def _gsm8k(index: int, animal: str) -> dict[str, Any]:
    return {"question": f"{index} {animal}s and 2 more?", "answer": f"{index} + 2 = {index + 2}\n#### {index + 2}"}


def _mmlu(index: int, subject: str) -> dict[str, Any]:
    return {
        "question": f"Question {index} of {subject}?",
        "subject": subject,
        "choices": ["one", "two", "three", "four"],
        "answer": index % 4,
    }


def _ifeval(index: int, animal: str) -> dict[str, Any]:
    checks: list[tuple[str, dict[str, Any]]] = [
        ("punctuation:no_comma", {}),
        ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"}),
        ("change_case:capital_word_frequency", {"capital_frequency": 1, "capital_relation": "less than"}),
    ]
    chosen = checks[: 1 + index % 3]
    keys = ("num_sentences", "relation", "capital_frequency", "capital_relation")
    return {
        "key": 1000 + index,
        "prompt": f"Write about a {animal}.",
        "instruction_id_list": [name for name, _ in chosen],
        "kwargs": [{key: arguments.get(key) for key in keys} for _, arguments in chosen],
    }


def _stereoset(index: int, animal: str, context: str) -> dict[str, Any]:
    domain = ("gender", "profession", "race", "religion")[index % 4]
    sentences = [f"The {animal} was {word}." for word in ("quick", "slow", "tea")]
    labels = [[1, 0, 2], [2, 1, 0], [0, 2, 1]][index % 3]
    ids = [f"{animal}{label}" for label in labels]
    return {
        "id": f"example{index}",
        "target": animal,
        "bias_type": domain,
        "context": context.format(animal),
        "sentences": {"sentence": sentences, "id": ids, "gold_label": labels},
    }


def _humaneval(index: int, animal: str) -> dict[str, Any]:
    return {
        "task_id": f"HumanEval/{index}",
        "prompt": f'def {animal}(n):\n    """Add {index}."""\n',
        "canonical_solution": f"    return n + {index}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {1 + index}\n    assert candidate(2) != 1\n",
        "entry_point": animal,
    }


def _subjects() -> list[str]:
    return [str(source.config) for source in benchmarks["mmlu"].sources()]


def documents() -> dict[str, dict[str, Splits]]:
    """Repository, configuration, split, rows. ARC, BoolQ and WinoGrande have no train split, as in the real copy."""
    arc = [_arc(animal, 3 + i % 3) for i, animal in enumerate(ANIMALS)]
    lines = [{"text": f"The {a} saw the {b} near the old house."} for a in ANIMALS for b in ANIMALS]
    return {
        "allenai/ai2_arc": {name: {"test": arc[:5], "validation": arc[5:]} for name in ("ARC-Easy", "ARC-Challenge")},
        "aps/super_glue": {"boolq": {"validation": [_boolq(i, a) for i, a in enumerate(ANIMALS)]}},
        "allenai/winogrande": {"winogrande_xl": {"validation": [_winogrande(i, a) for i, a in enumerate(ANIMALS)]}},
        "openai/gsm8k": {
            "main": {
                "train": [_gsm8k(i, a) for i, a in enumerate(ANIMALS)],
                "test": [_gsm8k(20 + i, a) for i, a in enumerate(ANIMALS[:4])],
            }
        },
        "cais/mmlu": {
            subject: {"test": [_mmlu(i, subject) for i in range(3)], "dev": [_mmlu(7 + i, subject) for i in range(5)]}
            for subject in _subjects()
        },
        "Salesforce/wikitext": {"wikitext-2-raw-v1": {"test": lines}},
        "EleutherAI/wikitext_document_level": {
            "wikitext-2-raw-v1": {"test": [{"page": f" = {a} = \n The {a} 's tail , long . " * 3} for a in ANIMALS]}
        },
        "McGill-NLP/stereoset": {
            split: {"validation": [_stereoset(i, a, context) for i, a in enumerate(ANIMALS)]}
            for split, context in (("intrasentence", "The {} was BLANK."), ("intersentence", "I saw a {}"))
        },
        "openai/openai_humaneval": {
            "openai_humaneval": {"test": [_humaneval(i, a) for i, a in enumerate(ANIMALS[:4])]}
        },
        "google/IFEval": {"default": {"train": [_ifeval(i, a) for i, a in enumerate(ANIMALS)]}},
    }


def write_data_set(folder: Path, configs: Mapping[str, Splits]) -> None:
    """One repository: a README that says what its files are, and the files."""
    listed = []
    for config, splits in configs.items():
        (folder / config).mkdir(parents=True, exist_ok=True)
        files = []
        for split, rows in splits.items():
            path = f"{config}/{split}.jsonl"
            (folder / path).write_text("".join(json.dumps(row) + "\n" for row in rows))
            files.append({"split": split, "path": path})
        listed.append({"config_name": config, "data_files": files})
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': listed})}---\n")


def write_hub(root: Path) -> Path:
    """All of it."""
    for repository, configs in documents().items():
        write_data_set(root / repository, configs)
    return root
