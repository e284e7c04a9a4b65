"""prunelab: prune a language model without training it, and see honestly what was lost."""

import sys
from types import ModuleType
from typing import Any

from prunelab.api import evaluate, load, prune, report, study
from prunelab.errors import PrunelabError

__all__ = ["PrunelabError", "__version__", "evaluate", "load", "prune", "report", "study"]


class _Package(ModuleType):
    """Keeps `prunelab.prune` the function, also after something has imported the module of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    """`prunelab.__version__`, looked up when it is asked for: the command has a handler for Ctrl-C to set up first."""
    if name == "__version__":
        from importlib.metadata import version

        return version("prunelab")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = _Package
