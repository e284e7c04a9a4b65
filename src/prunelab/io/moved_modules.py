"""Old module names: importing `prunelab.loading` gives `prunelab.models.loading` and a warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "prunelab.benchmarks": "prunelab.evaluation.benchmarks",
    "prunelab.benchmarks.base": "prunelab.evaluation.benchmarks.base",
    "prunelab.cage": "prunelab.evaluation.sandbox",
    "prunelab.config": "prunelab.studies.config",
    "prunelab.datasets": "prunelab.io.datasets",
    "prunelab.export": "prunelab.checkpoint.gguf",
    "prunelab.export.gguf": "prunelab.checkpoint.gguf.export",
    "prunelab.families": "prunelab.models.families",
    "prunelab.families.base": "prunelab.models.layout",
    "prunelab.loading": "prunelab.models.loading",
    "prunelab.measurement": "prunelab.evaluation.records",
    "prunelab.methods": "prunelab.pruning.methods",
    "prunelab.outcomes": "prunelab.api.results",
    "prunelab.plan": "prunelab.pruning.plan",
    "prunelab.run": "prunelab.studies.run",
    "prunelab.scoring": "prunelab.inference",
    "prunelab.scoring.encoding": "prunelab.inference.tokenization",
    "prunelab.streamed": "prunelab.models.streaming.model",
    "prunelab.surgery": "prunelab.pruning.surgery",
}
"""New names by old name, for the documented modules and for those that other programs import."""


class _MovedModules(MetaPathFinder, Loader):
    """Returns the moved module itself, not a copy, so that classes are identical under both names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of a moved module; None for any other name."""
        return ModuleSpec(fullname, self, is_package=True) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module under its new name."""
        module = import_module(MOVED[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Keep the specification of the new name; the module is not executed again."""
        spec = module.__spec__
        assert spec is not None
        module.__spec__ = spec.loader_state
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is now {new}: import it from there", DeprecationWarning, stacklevel=2)


def serve_moved_modules() -> None:
    """Make the old names importable; repeated calls have no effect."""
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(_MovedModules())
