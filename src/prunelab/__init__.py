"""prunelab: prune a language model without training it, and see honestly what was lost."""

import sys
from importlib.metadata import version
from types import ModuleType

from prunelab.api import evaluate, load, prune, report, study
from prunelab.errors import PrunelabError

__version__ = version("prunelab")
__all__ = ["PrunelabError", "__version__", "evaluate", "load", "prune", "report", "study"]


class _Package(ModuleType):
    """Keeps `prunelab.prune` the function, also after something has imported the module of that name."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
