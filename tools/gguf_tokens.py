"""Compare llama.cpp's tokens of a model's exported GGUF file with its tokenizer's, on lines of C4 and WikiText-2.

    python tools/gguf_tokens.py MODEL --datasets-root ROOT [--lines 10000] [--reference FILE.gguf] [--steps-of smollm]

Exits with 1 if the tokens of a line differ. `--reference` also tokenizes the lines with another GGUF file, such as the
source from which transformers built MODEL: transformers gives every byte-level tokenizer from a GGUF file the steps of
GPT-2, which loses SmolLM's digit splitting. `--steps-of` restores the steps of one of llama.cpp's pre-tokenizers.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from tokenizers import Regex, pre_tokenizers

from prunelab.checkpoint.gguf.export import export_gguf
from prunelab.checkpoint.gguf.pretokenizer import DIGIT, GPT2, PRE_TOKENIZERS
from prunelab.checkpoint.gguf.token_comparison import read_by_llama_cpp
from prunelab.checkpoint.gguf.tokenizer import vocabulary_of
from prunelab.io.datasets import Source
from prunelab.models.loading import LanguageModel, load_model

WIKITEXT = Source("Salesforce/wikitext", "wikitext-2-raw-v1")
C4 = Source("allenai/c4", file="en/c4-train.00000-of-01024.json.gz")


def lines_of(root: Path, count: int) -> list[str]:
    """Lines of WikiText-2's test and validation splits and of C4's documents, up to `count` of each."""
    wikitext = _lines(text for split in ("test", "validation") for text in WIKITEXT.load(split, root)["text"])
    c4 = _lines(iter(C4.load("train", root)["text"]))
    return [*islice(wikitext, count), *islice(c4, count)]


def _lines(texts: Iterator[str]) -> Iterator[str]:
    return (line for text in texts for line in text.split("\n") if line.strip())


def with_steps_of(model: LanguageModel, name: str) -> None:
    """Give a byte-level tokenizer the steps of a named llama.cpp pre-tokenizer."""
    patterns = next(patterns for patterns, known in PRE_TOKENIZERS.items() if known == name)
    steps = [
        pre_tokenizers.Digits(individual_digits=True)
        if pattern == DIGIT
        else pre_tokenizers.Split(Regex(pattern), "isolated")
        for pattern in patterns
        if pattern != GPT2
    ]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=patterns[-1] == GPT2)
    model.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, last])


def read_otherwise(model: LanguageModel, file: Path, lines: Sequence[str]) -> list[str]:
    """The lines that llama.cpp tokenizes differently from the model's tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        answer = read_by_llama_cpp(file, lines, Path(folder, "answer.json"))
    if "tokens" not in answer:
        sys.exit(f"llama.cpp does not read {file}: {answer}")
    expected = model.tokenizer(list(lines)).input_ids
    return [line for line, ids, read in zip(lines, expected, answer["tokens"], strict=True) if list(ids) != read]


def main() -> None:
    """Compare the tokens and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--datasets-root", type=Path, required=True)
    parser.add_argument(
        "--lines", type=int, default=10_000, help="maximum number of lines from each of the two datasets"
    )
    parser.add_argument("--reference", type=Path, help="another GGUF file to compare on the same lines")
    parser.add_argument("--steps-of", choices=sorted(PRE_TOKENIZERS.values()), help="steps to give the tokenizer first")
    options = parser.parse_args()
    lines = lines_of(options.datasets_root, options.lines)
    model = load_model(options.model, device="cpu")
    if options.steps_of:
        with_steps_of(model, options.steps_of)
    with tempfile.TemporaryDirectory() as folder:
        done = export_gguf(model, Path(folder, "model.gguf"), "q8_0")
        apart = read_otherwise(model, done.path, lines)
    print(f"{model.name}: written with the pre-tokenizer {vocabulary_of(model).pre}", *done.notes, sep="\nnote: ")
    print(f"exported: {len(apart)} of {len(lines)} lines differ", *map(repr, apart[:3]), sep="\n  ")
    if options.reference:
        differing = read_otherwise(model, options.reference, lines)
        print(f"{options.reference.name}: {len(differing)} of {len(lines)} lines differ from the tokenizer",
              *map(repr, differing[:3]), sep="\n  ")  # fmt: skip
    sys.exit(bool(apart))


if __name__ == "__main__":
    main()
