"""Detection of completions that end in a loop."""

from __future__ import annotations

import re

WORD = re.compile(r"\w+|[^\w\s]")
TAIL = 200
"""Number of characters at the end of a text that contain its last words, except for unusually long words."""


def repeats_itself(text: str) -> bool:
    """Whether a completion ends in a loop: the four words or signs before its last one occur at least four times in it.

    The last word is ignored because it may be cut off. None of HumanEval's 164 reference solutions repeats itself.
    """
    last = WORD.findall(text[-TAIL:])
    # Quick check: in a loop each of the last words occurs at least four times.
    if len(last) > 5 and any(text.count(word) < 4 for word in last[-5:-1]):
        return False
    words = WORD.findall(text)
    end = words[-5:-1]
    return len(end) == 4 and sum(words[i : i + 4] == end for i in range(len(words) - 3)) >= 4
