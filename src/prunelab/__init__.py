"""prunelab: training-free structured pruning of language models, with an evaluation that states what was lost."""

from importlib.metadata import version

from prunelab.api import evaluate, load, prune, report, study
from prunelab.errors import PrunelabError
from prunelab.io.moved_modules import serve_moved_modules

serve_moved_modules()
__version__ = version("prunelab")
__all__ = ["PrunelabError", "__version__", "evaluate", "load", "prune", "report", "study"]
