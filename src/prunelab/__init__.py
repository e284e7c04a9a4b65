"""prunelab: training-free structured pruning of language models, with an evaluation that states what was lost."""

from typing import Any

from prunelab.api import evaluate, load, prune, report, study
from prunelab.errors import PrunelabError
from prunelab.io.moved_modules import serve_moved_modules

__all__ = ["PrunelabError", "__version__", "evaluate", "load", "prune", "report", "study"]


def __getattr__(name: str) -> Any:
    """`prunelab.__version__`, looked up when it is asked for: the command has a handler for Ctrl-C to set up first."""
    if name == "__version__":
        from importlib.metadata import version

        return version("prunelab")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


serve_moved_modules()
