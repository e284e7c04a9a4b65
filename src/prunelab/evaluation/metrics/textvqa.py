"""TextVQA's official scoring rule: an answer compared with the answers of ten people.

Source: Singh et al., "Towards VQA Models That Can Read" (CVPR 2019); the normalisation is that of the EvalAI server, as
in the VQA evaluation code and in `EvalAIAnswerProcessor` and `TextVQAAccuracyEvaluator` of
github.com/facebookresearch/mmf. For each person, the answer is compared with the other nine and earns
min(1, matches / 3); its score is the mean over the ten.

Details of that code that are reproduced:
- a punctuation mark is deleted if it touches a space anywhere in the answer, or if the answer has a comma between
  digits; otherwise it becomes a space. A full stop is deleted unless a digit follows it, at most 32 times;
- numbers from zero to ten, as whole words, become digits; `a`, `an` and `the` are deleted;
- contractions that lack one apostrophe get it back, word by word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from prunelab.errors import InvalidRequest

_MARKS = (";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!")
_COMMA_IN_NUMBER = re.compile(r"(?<=\d),+(?=\d)")
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_STOPS = 32
_ARTICLES = frozenset(("a", "an", "the"))
_UP_TO_TEN = "zero one two three four five six seven eight nine ten"
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_UP_TO_TEN.split())}
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
"""


def _lacking(word: str) -> list[str]:
    """The word without one of its apostrophes, for each of them."""
    return [word[:at] + word[at + 1 :] for at, letter in enumerate(word) if letter == "'"]


_CONTRACTIONS = {lacking: word for word in _CONTRACTED.split() for lacking in _lacking(word)}
_CONTRACTIONS["somebody'd"] = "somebodyd"  # reversed in the official code, too


def normalised(answer: str) -> str:
    """An answer in the normal form of the EvalAI server."""
    text = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    words = (_NUMBERS.get(word, word) for word in _without_marks(text).lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _without_marks(text: str) -> str:
    cleaned = text
    for mark in _MARKS:
        is_deleted = f"{mark} " in text or f" {mark}" in text or _COMMA_IN_NUMBER.search(text)
        cleaned = cleaned.replace(mark, "" if is_deleted else " ")
    return _FULL_STOP.sub("", cleaned, count=_MOST_STOPS)


def score(answer: str, people: Sequence[str]) -> float:
    """Agreement of an answer with people's answers, from 0 to 1.

    Args:
        answer: the model's answer.
        people: people's answers; ten in TextVQA.

    Raises:
        InvalidRequest: `people` is empty.
    """
    if not people:
        raise InvalidRequest("0 human answers given to compare with; give at least 1")
    normal_form = normalised(answer)
    same = [normalised(other) == normal_form for other in people]
    return sum(min(1.0, (sum(same) - matches) / 3) for matches in same) / len(people)
