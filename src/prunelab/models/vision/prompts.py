"""Instructions on the form of an answer in the vision-language benchmarks.

The wording is that of lmms-eval, with which most published figures of vision-language models were measured; the
official repositories of POPE and TextVQA do not specify it.
"""

from __future__ import annotations

BRIEFLY = "Answer the question using a single word or phrase."
LETTERED = "Answer with the option's letter from the given choices directly."
