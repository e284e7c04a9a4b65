"""How the vision benchmarks word what form an answer is to have.

The wording of lmms-eval, which most published figures of such models were measured with; the official repositories of
POPE and TextVQA leave it open.
"""

from __future__ import annotations

BRIEFLY = "Answer the question using a single word or phrase."
LETTERED = "Answer with the option's letter from the given choices directly."
