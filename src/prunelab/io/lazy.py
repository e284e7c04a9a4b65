"""Libraries that take seconds to import, each imported when one of its names is first used.

`from prunelab.io.lazy import torch` stands in for `import torch`: a command that only lists, reads results or prints
its help never uses a name of torch, and so never waits for it. Type checkers see the library itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache, wraps
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

if TYPE_CHECKING:
    import datasets
    import numpy as np
    import pandas as pd
    import psutil
    import torch
    import transformers
    from PIL import Image, ImageDraw, ImageFont
    from scipy import optimize, special
    from torch import nn
    from torch.nn import functional as F
else:

    class _LazyModule(ModuleType):
        """A module that is imported when an attribute is first read, set or deleted."""

        def __getattr__(self, name: str) -> Any:
            return getattr(_loaded(self), name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(_loaded(self), name, value)

        def __delattr__(self, name: str) -> None:
            delattr(_loaded(self), name)

        def __dir__(self) -> list[str]:
            return dir(_loaded(self))

    @cache
    def _loaded(lazy: ModuleType) -> ModuleType:
        """The module itself, which takes the lazy one's place in all of prunelab's modules: later uses cost nothing."""
        module = import_module(lazy.__name__)
        users = [user for name, user in list(sys.modules.items()) if name.partition(".")[0] == "prunelab"]
        for user in users:
            for name, value in list(vars(user).items()):
                if value is lazy:
                    setattr(user, name, module)
        return module

    datasets = _LazyModule("datasets")
    torch = _LazyModule("torch")
    nn = _LazyModule("torch.nn")
    F = _LazyModule("torch.nn.functional")
    np = _LazyModule("numpy")
    pd = _LazyModule("pandas")
    psutil = _LazyModule("psutil")
    Image = _LazyModule("PIL.Image")
    ImageDraw = _LazyModule("PIL.ImageDraw")
    ImageFont = _LazyModule("PIL.ImageFont")
    optimize = _LazyModule("scipy.optimize")
    special = _LazyModule("scipy.special")
    transformers = _LazyModule("transformers")


def lazy_attributes(package: str, module_of: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` (PEP 562) that imports each public name from its module when it is first used.

    Args:
        package: the package's `__name__`.
        module_of: the module that defines each name, by name.
    """

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(module_of[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get


def inference_mode(function: Callable[P, R]) -> Callable[P, R]:
    """`torch.inference_mode()` as a decorator of a function or a generator, looked up at the first call."""

    @cache
    def decorated() -> Callable[P, R]:
        return torch.inference_mode()(function)

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return decorated()(*args, **kwargs)

    return run


__all__ = [
    "F",
    "Image",
    "ImageDraw",
    "ImageFont",
    "datasets",
    "inference_mode",
    "lazy_attributes",
    "nn",
    "np",
    "optimize",
    "pd",
    "psutil",
    "special",
    "torch",
    "transformers",
]
