"""POPE's official scoring rule: from answers to yes or no, and to five metrics.

Source: Li et al., "Evaluating Object Hallucination in Large Vision-Language Models" (EMNLP 2023), as computed by
`evaluate.py` of github.com/RUCAIBox/POPE. The rule takes the first sentence of an answer and drops its commas; the
answer means no if `No`, `no` or `not` is one of its words (separated by single spaces), and yes otherwise. `yes` is the
positive class.

So "NO" means yes, "not sure" means no, and an empty answer means yes: a collapsed model scores about 50 %. Two metrics
are added to the official ones: the share of answers that contain neither yes nor no in any spelling (`is_parseable`),
and the accuracy with such answers counted as wrong (`plain_meaning`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from prunelab.errors import InvalidRequest

YesNo: TypeAlias = Literal["yes", "no"]
CATEGORIES = ("random", "popular", "adversarial")
"""How the absent objects were chosen."""


@dataclass(frozen=True)
class PopeScore:
    """Metrics of a set of answers; shares in 0 to 1. An undefined share is 0, as in the official code.

    Attributes:
        accuracy: share of correct answers.
        precision: share of correct answers among those that mean yes.
        recall: share of answers that mean yes among those that should.
        f1: harmonic mean of precision and recall.
        yes_share: share of answers that mean yes.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    yes_share: float


def official_meaning(answer: str) -> YesNo:
    """The meaning of an answer by the official rule."""
    words = answer.split(".", maxsplit=1)[0].replace(",", "").split(" ")
    return "no" if {"No", "no", "not"} & set(words) else "yes"


def plain_meaning(answer: str) -> YesNo | None:
    """Yes or no in the first sentence of an answer, in any spelling; None if it contains neither or both."""
    words = set(re.findall(r"[a-z]+", answer.strip().split(".")[0].lower()))
    yes, no = "yes" in words, bool({"no", "not"} & words)
    if yes == no:
        return None
    return "yes" if yes else "no"


def is_parseable(answer: str) -> bool:
    """Whether an answer contains either yes or no."""
    return plain_meaning(answer) is not None


def score(meanings: Sequence[YesNo], labels: Sequence[YesNo]) -> PopeScore:
    """The official metrics.

    Args:
        meanings: meanings of the answers, by `official_meaning`.
        labels: correct answers, in the same order.

    Raises:
        InvalidRequest: there are no answers, or not as many labels as answers.
    """
    if not labels or len(meanings) != len(labels):
        raise InvalidRequest(
            f"{len(meanings)} answers and {len(labels)} labels given: give at least one answer and one label per answer"
        )
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


def _share(part: float, total: float) -> float:
    return part / total if total else 0.0
