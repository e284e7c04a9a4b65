"""The official rules of POPE, TextVQA and MMMU on answers made by hand, one for every branch."""

from __future__ import annotations

import pytest

from prunelab.errors import InvalidRequest
from prunelab.evaluation.metrics import mmmu, pope, textvqa


@pytest.mark.parametrize(
    ("answer", "official", "plain"),
    [
        ("Yes.", "yes", "yes"),
        ("No", "no", "no"),
        ("no", "no", "no"),
        ("NO", "yes", "no"),  # not one of the official spellings
        ("not sure", "no", "no"),
        ("", "yes", None),
        ("No, there is a dog.", "no", "no"),
        ("Well, no", "no", "no"),
        ("Yes. No dog is there.", "yes", "yes"),  # the first sentence alone
        ("There is a dog. no", "yes", None),
        ("no\nyes", "yes", None),  # words are parted by spaces alone, officially
        ("a dog", "yes", None),
        ("nothing", "yes", None),
        (".No", "yes", None),  # an empty first sentence
    ],
)
def test_pope_meanings(answer: str, official: str, plain: str | None) -> None:
    assert pope.official_meaning(answer) == official
    assert pope.plain_meaning(answer) == plain
    assert pope.is_parseable(answer) == (plain is not None)


def test_pope_figures() -> None:
    meanings: list[pope.YesNo] = ["yes", "yes", "yes", "no", "no"]
    labels: list[pope.YesNo] = ["yes", "yes", "no", "yes", "no"]
    found = pope.score(meanings, labels)
    assert found.accuracy == pytest.approx(3 / 5)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx(2 / 3)
    assert found.yes_share == pytest.approx(3 / 5)


def test_pope_figures_of_a_model_that_has_collapsed() -> None:
    always = pope.score(["yes"] * 4, ["yes", "yes", "no", "no"])
    assert (always.accuracy, always.yes_share) == (0.5, 1.0)
    assert always.f1 == pytest.approx(2 / 3)
    never = pope.score(["no"] * 4, ["yes", "yes", "no", "no"])
    assert (never.accuracy, never.precision, never.recall, never.f1) == (0.5, 0.0, 0.0, 0.0)
    with pytest.raises(InvalidRequest, match="give at least one"):
        pope.score([], [])
    with pytest.raises(InvalidRequest, match="1 answers and 2 labels"):
        pope.score(["yes"], ["yes", "no"])


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("Two", "2"),
        ("none", "0"),
        ("the Ten dogs", "10 dogs"),
        ("A cat and an owl", "cat and owl"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("yall'll", "y'all'll"),
        ("somebody'd", "somebodyd"),
        ("it's", "it 's"),
        ("1,000", "1000"),
        ("STOP!", "stop"),  # nothing is left of a mark at the end but a space, which goes
        ("well-known", "well known"),
        ("well - known", "well known"),  # beside a space the mark itself goes
        ("a/b c/ d", "ab c d"),  # one mark beside a space takes all of its kind along
        ("3.5", "3.5"),
        ("no. 5", "no 5"),
        ("e.g.", "eg"),
        ("v.5", "v.5"),  # a digit follows
        ("line\none\ttwo", "line 1 2"),
        ("why?", "why"),
        ("", ""),
    ],
)
def test_textvqa_normalisation(answer: str, normal: str) -> None:
    assert textvqa.normalised(answer) == normal


def test_textvqa_takes_at_most_32_full_stops() -> None:
    assert textvqa.normalised("x" + "." * 40) == "x" + "." * 8


@pytest.mark.parametrize(
    ("matches", "score"),
    [
        (0, 0.0),
        (1, (0 + 9 / 3) / 10),
        (2, (2 / 3 + 8 * 2 / 3) / 10),
        (3, (3 * 2 / 3 + 7) / 10),
        (4, 1.0),
        (10, 1.0),
    ],
)
def test_textvqa_asks_nine_of_ten(matches: int, score: float) -> None:
    people = ["Stop"] * matches + [f"other {index}" for index in range(10 - matches)]
    assert textvqa.score("stop.", people) == pytest.approx(score)


def test_textvqa_needs_people() -> None:
    with pytest.raises(InvalidRequest, match="0 human answers"):
        textvqa.score("x", [])


OPTIONS = ["red fox", "blue bird", "green frog", "old stone"]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(A)", "A"),
        ("A", "A"),
        ("B.", "B"),
        ("The answer is C.", "C"),
        ("(A) or rather (B)", "B"),  # the last one
        ("A, no, (D)", "D"),  # brackets first
        ("A B", "B"),
        ("it must be the blue bird there", "B"),  # more than five words: options' texts
        ("not the RED FOX but the green frog", "C"),
    ],
)
def test_mmmu_letters_that_are_found(answer: str, letter: str) -> None:
    assert mmmu.parse_letter(answer, OPTIONS, "item") == mmmu.Parsed(letter, guessed=False)


@pytest.mark.parametrize("answer", ["", "blue bird", "a", "E", "nothing of the kind", "AB"])
def test_mmmu_guesses_where_nothing_is_found(answer: str) -> None:
    """Options' texts alone are too short to be looked for."""
    parsed = [mmmu.parse_letter(answer, OPTIONS, f"item {index}") for index in range(400)]
    assert all(one.guessed for one in parsed)
    assert {one.letter for one in parsed} == set("ABCD")
    assert all(60 < [one.letter for one in parsed].count(letter) < 140 for letter in "ABCD")
    assert parsed == [mmmu.parse_letter(answer, OPTIONS, f"item {index}") for index in range(400)]
    assert parsed != [mmmu.parse_letter(answer, OPTIONS, f"item {index}", seed=1) for index in range(400)]


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("The answer is 8.", ["8"], True),
        ("so x = 1,234.5", ["1234.5"], True),
        ("about 3.14159", ["3.14"], True),
        ("2e3", ["2000"], True),
        ("7", ["8"], False),
        ("It is a red fox.", ["Red Fox"], True),
        ("It is x", ["x"], True),  # single letters are looked for with a space beside them
        ("xylophones", ["x"], False),
        ("x and y are so", ["y"], True),
        ("", ["8"], False),
        ("the thing is :", ["thing"], True),  # what follows the sign is but a mark: the whole answer is taken
        ("first line\nthus 12", ["12"], True),
    ],
)
def test_mmmu_open_answers(answer: str, accepted: list[str], right: bool) -> None:
    assert mmmu.is_right_openly(answer, accepted) is right
