"""prunelab: prune a language model without training it, and see honestly what was lost."""

from importlib.metadata import version

__version__ = version("prunelab")
__all__ = ["__version__"]
