"""The synthetic data's C4: text of every task that the models were trained on, for calibration."""

from __future__ import annotations

import json
import random

from prunelab.calibration.corpus import C4
from prunelab.pocket.tasks import TASKS
from prunelab.pocket.turns import END, Turns

DOCUMENTS = 6000


def crawl() -> dict[str, str]:
    """The repository's files: documents in the training format, with the tasks in their training shares.

    Training draws other documents from the same sources; items held out for benchmarks are excluded here as well.
    """
    rng = random.Random("crawl")
    turns = Turns()
    shares = [task.share for task in TASKS]
    lines = []
    for _ in range(DOCUMENTS):
        index = turns.next()
        text = "".join(piece.text for piece in TASKS[index].document(rng)) + END
        turns.take(index, len(text), shares)
        lines.append(json.dumps({"text": text}) + "\n")
    assert C4.file is not None
    return {C4.file: "".join(lines)}
