"""The exceptions of prunelab.

    PrunelabError                  the base; the command prints it as one line and exits with code 2
    ├── InvalidRequest             an invalid argument, option or combination of them
    │   ├── UnknownName            no such method, family, benchmark or suite (suggests the nearest name)
    │   └── OutputExists           the output already exists
    ├── UnsupportedModel           an architecture that prunelab does not support
    ├── CheckpointError            a checkpoint that is missing, gated, damaged, or not in safetensors format
    ├── PlanError                  a plan file that is damaged or inconsistent
    │   └── PlanMismatch           a plan for another model
    ├── DataError                  a data set or text that is missing, damaged or too short
    ├── MissingRequirement         a package, a permission or a data file that is missing
    ├── NonFiniteValue             NaN or infinity, with the layer or sample in which it occurred
    └── DiskFull                   no space left for an output

Every message states what was given, what is allowed, and the remedy, on one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from prunelab.errors.text import one_line

LONGEST = 2000
"""Maximum length of a message in characters; a longer one is cut in the middle."""


class PrunelabError(Exception):
    """Base class of all errors that the user can fix."""

    def __str__(self) -> str:
        """The message on one line, with control characters in names and values escaped."""
        return one_line(super().__str__(), LONGEST)


class InvalidRequest(PrunelabError):
    """An argument is invalid."""


class UnknownName(InvalidRequest):
    """A name is not registered; the message suggests the nearest one."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"no {kind} is called {name!r}: {hint}known are {', '.join(names)}")


class OutputExists(InvalidRequest):
    """The output exists and may not be overwritten."""


class UnsupportedModel(PrunelabError):
    """The model's architecture is not supported."""


class CheckpointError(PrunelabError):
    """A checkpoint is missing, unreachable, damaged or unsafe."""


class PlanError(PrunelabError):
    """A pruning plan is malformed."""


class PlanMismatch(PlanError):
    """A pruning plan belongs to a different model."""


class DataError(PrunelabError):
    """A data set or a text is missing, malformed, or too short for the request."""


class MissingRequirement(PrunelabError):
    """Something must be installed, downloaded or allowed first."""


class NonFiniteValue(PrunelabError):
    """A computation produced NaN or infinity."""


class DiskFull(PrunelabError):
    """The disk has no space left for an output."""


def first_line(error: BaseException) -> str:
    """First line of an error's message; the name of its class if the message is empty."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
