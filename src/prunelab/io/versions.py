"""Versions of the software that determines results, for provenance records."""

from __future__ import annotations

import platform
from importlib.metadata import version


def versions() -> dict[str, str]:
    """Versions of Python, prunelab, torch and transformers."""
    names = ("prunelab", "torch", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
