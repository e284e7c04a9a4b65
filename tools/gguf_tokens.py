"""Whether llama.cpp reads the tokenizer's tokens in a model's exported GGUF file, in lines of C4 and WikiText-2.

    python tools/gguf_tokens.py MODEL --datasets-root ROOT [--lines 10000] [--reference FILE.gguf] [--steps-of smollm]

Exits with 1 where a line is read otherwise. `--reference` reads the same lines from another GGUF file, such as the one
of which transformers made MODEL: transformers gives every byte-level tokenizer that it reads from a GGUF file GPT-2's
steps, and so loses SmolLM's splitting of digits. `--steps-of` puts the steps of a pre-tokenizer of llama.cpp's back.
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
    """Give a byte-level tokenizer the steps that llama.cpp knows under a name."""
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
    """The lines in which llama.cpp reads other tokens from a GGUF file than the model's tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        answer = read_by_llama_cpp(file, lines, Path(folder, "answer.json"))
    if "tokens" not in answer:
        sys.exit(f"llama.cpp does not read {file}: {answer}")
    expected = model.tokenizer(list(lines)).input_ids
    return [line for line, ids, read in zip(lines, expected, answer["tokens"], strict=True) if list(ids) != read]


def main() -> None:
    """Compare, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--datasets-root", type=Path, required=True)
    parser.add_argument("--lines", type=int, default=10_000, help="of each of the two data sets, where it has so many")
    parser.add_argument("--reference", type=Path, help="another GGUF file, read in the same lines")
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
    print(f"exported: {len(apart)} of {len(lines)} lines are read otherwise", *map(repr, apart[:3]), sep="\n  ")
    if options.reference:
        theirs = read_otherwise(model, options.reference, lines)
        print(f"{options.reference.name}: {len(theirs)} of {len(lines)} lines are read otherwise than by the tokenizer",
              *map(repr, theirs[:3]), sep="\n  ")  # fmt: skip
    sys.exit(bool(apart))


if __name__ == "__main__":
    main()
