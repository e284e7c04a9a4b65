"""Everything that prunelab raises on purpose.

    PrunelabError                  the base; the command prints it as one line and exits with code 2
    ├── InvalidRequest             an argument that cannot be honoured: a ratio, an option, a combination
    │   ├── UnknownName            no such method, family, benchmark or suite (with the nearest name)
    │   └── OutputExists           the output folder is there already
    ├── UnsupportedModel           an architecture that no family describes
    ├── CheckpointError            a checkpoint that is missing, gated, damaged, or a pickle
    ├── PlanError                  a plan file that is damaged or contradicts itself
    │   └── PlanMismatch           a plan made for another model
    ├── DataError                  a data set or text that is missing, damaged or too short
    ├── MissingRequirement         a package, a permission or a data file that must be had first
    ├── NonFiniteValue             NaN or infinity, with the layer or the sample in which it arose
    └── DiskFull                   no room for what is to be written

Every message names what was given, what is allowed, and the remedy, on one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from prunelab.errors.text import one_line

LONGEST = 2000
"""Characters of a message; of a longer one, which repeats what was given, the middle is left out."""


class PrunelabError(Exception):
    """Base of all errors that the user of prunelab can mend."""

    def __str__(self) -> str:
        """The message on one line, whatever names and values from outside stand in it."""
        return one_line(super().__str__(), LONGEST)


class InvalidRequest(PrunelabError):
    """An argument is outside what is possible."""


class UnknownName(InvalidRequest):
    """A name that no registered thing bears; suggests the nearest one."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"no {kind} is called {name!r}: {hint}known are {', '.join(names)}")


class OutputExists(InvalidRequest):
    """The output folder or file exists and overwriting was not asked for."""


class UnsupportedModel(PrunelabError):
    """The model's architecture is not one that prunelab can take apart."""


class CheckpointError(PrunelabError):
    """A checkpoint cannot be found, reached, read, or trusted."""


class PlanError(PrunelabError):
    """A pruning plan is malformed."""


class PlanMismatch(PlanError):
    """A pruning plan belongs to another model than the one given."""


class DataError(PrunelabError):
    """A data set or a text is missing, malformed, or too short for what was asked."""


class MissingRequirement(PrunelabError):
    """Something must be installed, fetched or allowed first."""


class NonFiniteValue(PrunelabError):
    """NaN or infinity arose where numbers were expected."""


class DiskFull(PrunelabError):
    """The disk has no room for what is to be written."""


def first_line(error: BaseException) -> str:
    """What an error says, cut to one line; its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
