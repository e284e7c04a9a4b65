"""When a text goes round in circles."""

from __future__ import annotations

import re

WORD = re.compile(r"\w+|[^\w\s]")
TAIL = 200
"""Letters at the end of a text that hold its last words but for odd ones."""


def repeats_itself(text: str) -> bool:
    """Whether a completion ends in a loop: the four words or signs before its last one occur in it four times.

    The last one is left aside because it may be cut off. None of HumanEval's own 164 solutions does.
    """
    last = WORD.findall(text[-TAIL:])
    # A text that does not hold each of its last words four times need not be read whole.
    if len(last) > 5 and any(text.count(word) < 4 for word in last[-5:-1]):
        return False
    words = WORD.findall(text)
    end = words[-5:-1]
    return len(end) == 4 and sum(words[i : i + 4] == end for i in range(len(words) - 3)) >= 4
