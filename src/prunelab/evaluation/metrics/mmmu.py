"""MMMU's official scoring rule: from a model's answer to a letter, or to an open answer.

Source: Yue et al., "MMMU: A Massive Multi-discipline Multimodal Understanding and Reasoning Benchmark" (CVPR 2024), as
computed by `eval_utils.py` of github.com/MMMU-Benchmark/MMMU. For lettered questions it searches, in this order:
letters in brackets, `(A)`; letters between spaces, ` A `; and, in answers of more than five words, the texts of the
options. Of several matches it takes the last. Without a match the official code guesses.

Deviation: the guess is drawn from the item's name and a seed, so that it is the same in every run, and it is marked by
`Parsed.guessed`: the strict accuracy counts guesses as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prunelab.inference.sampling import uniform

_TRIMMED = ",.!?;:'"
_SENTENCE_END = re.compile(r"\.\s(?=[A-Z])|\n")
_INDICATORS = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    r"-?\b\d{1,3}(?:,\d{3})+\b",
    r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
    r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
)
"""With thousands separators, in scientific notation, and plain."""


@dataclass(frozen=True)
class Parsed:
    """A parsed answer to a lettered question.

    Attributes:
        letter: the letter by the official rule.
        guessed: whether the answer contained no letter and no option.
    """

    letter: str
    guessed: bool


def parse_letter(answer: str, options: Sequence[str], item: str, seed: int = 0) -> Parsed:
    """The letter that an answer to a lettered question stands for.

    Args:
        answer: the model's answer.
        options: texts of the options, from A on.
        item: name of the question; it determines the guess together with the seed.
        seed: seed of guesses.
    """
    text = answer
    for mark in _TRIMMED:
        text = text.strip(mark)
    text = f" {text} "
    letters = [chr(ord("A") + index) for index in range(len(options))]
    written: list[Callable[[str], str]] = [lambda letter: f"({letter})", lambda letter: f" {letter} "]
    for write in written:
        places = {letter: text.rfind(write(letter)) for letter in letters}
        if max(places.values()) >= 0:
            return Parsed(max(letters, key=places.__getitem__), guessed=False)
    if len(text.split()) > 5:
        low = text.lower()
        places = {letter: low.rfind(option.lower()) for letter, option in zip(letters, options, strict=True)}
        if max(places.values()) >= 0:
            return Parsed(max(letters, key=places.__getitem__), guessed=False)
    return Parsed(letters[int(uniform(seed, item, 0, 0) * len(letters))], guessed=True)


def is_right_openly(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an answer to an open question contains one of the accepted answers, as a number or as words.

    Args:
        answer: the model's answer.
        accepted: correct answers.
    """
    right = [form for text in accepted for form in _forms(text)]
    for candidate in _openly(answer):
        if isinstance(candidate, str):
            if any(isinstance(form, str) and form in candidate for form in right):
                return True
        elif candidate in right:
            return True
    return False


def _openly(answer: str) -> list[str | float]:
    """Candidate answers in an open answer: the shortest ends of its sentences with an indicator, and their numbers."""
    text = answer.strip().strip(".").lower()
    parts: list[str] = []
    sentences = _SENTENCE_END.split(text)
    for index, sentence in enumerate(sentences):
        signs = (*_INDICATORS, "=") if index == len(sentences) - 1 else _INDICATORS
        shortest = _shortest_end(sentence, signs)
        if shortest and shortest not in {":", ",", ".", "!", "?", ";", "'"}:
            parts.append(shortest)
    parts = parts or [text]
    numbers = [number for part in parts for pattern in _NUMBERS for number in re.findall(pattern, part)]
    return list(dict.fromkeys(form for part in [*parts, *numbers] for form in _forms(part)))


def _shortest_end(sentence: str, signs: Sequence[str]) -> str:
    """The shortest text after a sign; as in the official code, the next sign's text replaces an empty one."""
    shortest = ""
    for sign in signs:
        if sign in sentence:
            end = sentence.rsplit(sign, maxsplit=1)[-1].strip()
            if not shortest or len(end) < len(shortest):
                shortest = end
    return shortest


def _forms(text: str) -> list[str | float]:
    """A number rounded to two decimals; a letter with a space before or after it; other text in lower case."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
