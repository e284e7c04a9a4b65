"""POPE's official scoring rule: from answers to yes or no, and to the five figures.

Source: Li et al., "Evaluating Object Hallucination in Large Vision-Language Models" (EMNLP 2023), as computed by
`evaluate.py` of github.com/RUCAIBox/POPE. Of an answer the first sentence is taken and its commas are dropped; it means
no where `No`, `no` or `not` is one of its words (parted by single spaces), and yes in every other case. `yes` is the
positive class.

So "NO" means yes, "not sure" means no, and nothing at all means yes: a model that has collapsed scores about 50 %.
Beside the official figures stand two of ours: the share of answers that say neither yes nor no in any spelling
(`is_parseable`), and the accuracy by what was really said, in which such answers are wrong (`plain_meaning`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from prunelab.errors import InvalidRequest

YesNo: TypeAlias = Literal["yes", "no"]
CATEGORIES = ("random", "popular", "adversarial")
"""How the objects that are not in the picture were chosen."""


@dataclass(frozen=True)
class PopeScore:
    """The figures of a number of answers; shares in 0 to 1. A share of nothing is 0, as there.

    Attributes:
        accuracy: of all answers.
        precision: of those that mean yes, the right ones.
        recall: of those that should, the ones that mean yes.
        f1: of precision and recall.
        yes_share: of all answers, those that mean yes.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_share: float


def official_meaning(answer: str) -> YesNo:
    """What the official rule takes an answer for."""
    words = answer.split(".", maxsplit=1)[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def plain_meaning(answer: str) -> YesNo | None:
    """What the first sentence of an answer says in any spelling; None where it says neither, or both."""
    words = set(re.findall(r"[a-z]+", answer.strip().split(".")[0].lower()))
    yes, no = "yes" in words, bool({"no", "not"} & words)
    if yes == no:
        return None
    return "yes" if yes else "no"


def is_parseable(answer: str) -> bool:
    """Whether an answer says yes or no at all."""
    return plain_meaning(answer) is not None


def score(meanings: Sequence[YesNo], labels: Sequence[YesNo]) -> PopeScore:
    """The official figures.

    Args:
        meanings: of the answers, by `official_meaning`.
        labels: what is right, in the same order.

    Raises:
        InvalidRequest: nothing to score, or not as many labels as answers.
    """
    if not labels or len(meanings) != len(labels):
        raise InvalidRequest(f"{len(meanings)} answers and {len(labels)} labels: give at least one, and a label each")
    pairs = list(zip(meanings, labels, strict=True))
    hits, alarms = pairs.count(("yes", "yes")), pairs.count(("yes", "no"))
    misses, rejections = pairs.count(("no", "yes")), pairs.count(("no", "no"))
    precision = _share(hits, hits + alarms)
    recall = _share(hits, hits + misses)
    return PopeScore(
        accuracy=(hits + rejections) / len(pairs),
        precision=precision,
        recall=recall,
        f1=_share(2 * precision * recall, precision + recall),
        yes_share=(hits + alarms) / len(pairs),
    )


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
