"""MMMU's rules against the official code, which lm-eval carries."""

from __future__ import annotations

import random

import pytest

from prunelab.evaluation.metrics.mmmu import is_right_openly, parse_letter

utils = pytest.importorskip("lm_eval.tasks.mmmu.utils")

PIECES = (
    "could be", "so", "is", "thus", "therefore", "final", "answer", "result", "The answer is", "Answer:", "result is",
    "final answer", "=", "x = ", "5", "5.0", "-3", "0.25", "1,234", "1,234.5", "6.02e23", "1e-3", ".5", "12.", "nan",
    "inf", "a", "b", "A", "(A)", "(B)", " C ", "D", "x", "y", "dog", "red fox", "fourth, fifth", "so so", "this", ":",
    ",", ".", "!", "?", ";", "'", "it", "café", "%", "$", "5 %", "",
)  # fmt: skip
GAPS = (" ", " ", " ", " ", "\n", "\n", " \n", "\n ", ". ", ".\n", ".", ", ", "", "  ", "\t")
ACCEPTED = (
    "5",
    "5.00",
    "-3",
    "0.25",
    "1,234",
    "6.02e23",
    "a",
    "x",
    "dog",
    "red fox",
    "so x",
    "is",
    "so",
    "12",
    "nan",
    "it",
    "%",
)
OPTIONS = ["the dog", "a red fox", "5", "café"]


def made_up(draw: random.Random) -> str:
    """An answer of up to nine pieces."""
    return "".join(draw.choice(PIECES) + draw.choice(GAPS) for _ in range(draw.randrange(10)))


def official_open(answer: str, accepted: list[str]) -> bool:
    return bool(utils.eval_open(accepted, utils.parse_open_response(answer)))


def test_60000_open_answers_are_judged_as_by_the_official_code() -> None:
    draw = random.Random(0)
    judged = {True: 0, False: 0}
    for _ in range(60_000):
        answer, accepted = made_up(draw), draw.sample(ACCEPTED, draw.randrange(1, 3))
        right = official_open(answer, accepted)
        assert is_right_openly(answer, accepted) is right, (answer, accepted)
        judged[right] += 1
    assert min(judged.values()) > 5000


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("The answer is \n5", "5", False),
        ("The answer 5 is \nso x", "5", True),
        ("So thus is \ndog", "dog", False),
        ("final result \n= 7", "7", True),
        ("It is so \nis red", "red", True),
    ],
)
def test_where_a_line_ends_in_an_indicator_the_next_indicator_counts(answer: str, accepted: str, right: bool) -> None:
    assert official_open(answer, [accepted]) is right
    assert is_right_openly(answer, [accepted]) is right


def test_5000_lettered_answers_are_read_as_by_the_official_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(utils.random, "choice", lambda letters: None)
    draw = random.Random(1)
    letters = ["A", "B", "C", "D"]
    for _ in range(5000):
        answer = made_up(draw)
        official = utils.parse_multi_choice_response(answer, letters, dict(zip(letters, OPTIONS, strict=True)))
        parsed = parse_letter(answer, OPTIONS, "item")
        assert (None if parsed.guessed else parsed.letter) == official, answer
