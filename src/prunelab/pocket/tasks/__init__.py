"""The tasks of the pocket models' training and benchmarks, one per file."""

from __future__ import annotations

from prunelab.pocket.tasks.associations import Associations
from prunelab.pocket.tasks.base import Item, Piece, Task
from prunelab.pocket.tasks.blanks import Blanks
from prunelab.pocket.tasks.drills import DRILLS
from prunelab.pocket.tasks.encyclopaedia import Encyclopaedia
from prunelab.pocket.tasks.instructions import Instructions
from prunelab.pocket.tasks.passages import Passages, Recall
from prunelab.pocket.tasks.programs import Programs
from prunelab.pocket.tasks.questions import Letters, Pointing, Questions, Statements, Verdicts
from prunelab.pocket.tasks.sums import Sums

TASKS: tuple[Task, ...] = (
    *DRILLS,
    Encyclopaedia(),
    Statements(),
    Questions(),
    Letters(),
    Pointing(),
    Verdicts(),
    Passages(),
    Recall(),
    Blanks(),
    Sums(),
    Programs(),
    Instructions(),
    Associations(),
)

__all__ = ["TASKS", "Item", "Piece", "Task"]
