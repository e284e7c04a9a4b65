"""Versions of what decides the numbers, for records."""

from __future__ import annotations

import platform
from importlib.metadata import version


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    names = ("prunelab", "torch", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
