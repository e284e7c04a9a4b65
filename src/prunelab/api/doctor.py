"""What is installed, reachable and missing on this machine, and how to get it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch
from huggingface_hub import constants, get_token

from prunelab.calibration.corpus import C4, WIKITEXT2
from prunelab.errors import MissingRequirement
from prunelab.evaluation.benchmarks import benchmarks
from prunelab.evaluation.sandbox import Cage
from prunelab.io.hub import hub_answers
from prunelab.models.inspection import findings
from prunelab.models.loading import best_device, inspected
from prunelab.pruning.apply import cache_folder

PACKAGES = ("prunelab", "torch", "transformers", "safetensors", "datasets", "lm-eval")
EXTRAS = {"ifeval": "langdetect", "gguf": "gguf", "ray": "ray", "mlflow": "mlflow", "wandb": "wandb"}
"""What can be installed besides, with a package that each brings."""


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report; the remedy is empty where nothing is wanting."""

    what: str
    found: str
    remedy: str = ""


def examine(datasets_root: Path | None = None) -> Iterator[Finding]:
    """Look at everything that prunelab may need."""
    for package in PACKAGES:
        try:
            yield Finding(package, version(package))
        except PackageNotFoundError:
            yield Finding(package, "missing", f"pip install {package}")
    for extra, package in EXTRAS.items():
        try:
            yield Finding(f"extra {extra}", f"{package} {version(package)}")
        except PackageNotFoundError:
            yield Finding(f"extra {extra}", "not installed", f"pip install '.[{extra}]', where it is wanted")
    memory = psutil.virtual_memory()
    yield Finding("device", str(best_device()), "" if torch.cuda.is_available() else "a CPU works, slowly")
    yield Finding("memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free")
    yield Finding("disk here", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free")
    yield _hub()
    yield Finding(
        "hub login", "yes" if get_token() else "no", "" if get_token() else "hf auth login (gated models only)"
    )
    sources = dict.fromkeys([WIKITEXT2, C4, *(s for benchmark in benchmarks.values() for s in benchmark.sources())])
    places = {source.repository: source.place(datasets_root) for source in sources}
    for repository, place in places.items():
        there = Path(place).is_dir()
        remedy = "" if there else "prunelab fetch --suite paper --to DIR, then --datasets-root DIR"
        yield Finding(repository, f"in {place}" if there else "not in a folder, so from the hub", remedy)
    yield _cage()
    yield Finding("statistics kept in", str(cache_folder()))


def examine_model(name: str) -> Iterator[Finding]:
    """Inspect a checkpoint as every command does before it computes anything.

    Args:
        name: a folder, an id on the hub, or the name of a pocket model.

    Raises:
        PrunelabError: with the line that every other command would refuse it with.
    """
    for what, value, remedy in findings(inspected(name)):
        yield Finding(what, value, remedy)


def _hub() -> Finding:
    if hub_answers():
        return Finding("hub", f"{constants.ENDPOINT} answers")
    return Finding("hub", f"{constants.ENDPOINT} is out of reach", "local folders and --datasets-root DIR")


def _cage() -> Finding:
    """Whether generated programs can be run; every guarantee is tried."""
    try:
        Cage().check()
    except MissingRequirement as error:
        return Finding("cage for generated code", "not to be had here", str(error))
    return Finding("cage for generated code", "holds")
