"""Check what is installed and reachable on this machine, with a remedy for what is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from huggingface_hub import constants, get_token

from prunelab.calibration.corpus import C4, WIKITEXT2
from prunelab.errors import InvalidRequest, MissingRequirement
from prunelab.evaluation.benchmarks import benchmarks
from prunelab.evaluation.sandbox import Sandbox
from prunelab.io.hub import hub_answers
from prunelab.io.lazy import torch
from prunelab.models.chat_templates import check_template
from prunelab.models.inspection import Inspection, findings
from prunelab.models.loading import best_device, inspected, load_processor, load_tokenizer
from prunelab.models.processor_validation import try_processor
from prunelab.models.tokenizer_validation import added_tokens
from prunelab.pruning.apply import cache_folder

PACKAGES = ("prunelab", "torch", "transformers", "safetensors", "datasets", "lm-eval")
EXTRAS = {"ifeval": "langdetect", "gguf": "gguf", "ray": "ray", "mlflow": "mlflow", "wandb": "wandb"}
"""Optional extras, with a package that each installs."""


@dataclass(frozen=True)
class Diagnosis:
    """One line of the report; the remedy is empty if nothing is missing."""

    what: str
    found: str
    remedy: str = ""


def examine(datasets_root: Path | None = None) -> Iterator[Diagnosis]:
    """Check everything that prunelab may need."""
    for package in PACKAGES:
        try:
            yield Diagnosis(package, version(package))
        except PackageNotFoundError:
            yield Diagnosis(package, "missing", f"pip install {package}")
    for extra, package in EXTRAS.items():
        try:
            yield Diagnosis(f"extra {extra}", f"{package} {version(package)}")
        except PackageNotFoundError:
            yield Diagnosis(f"extra {extra}", "not installed", f"pip install '.[{extra}]', if needed")
    memory = psutil.virtual_memory()
    yield Diagnosis("device", str(best_device()), "" if torch.cuda.is_available() else "a CPU works, slowly")
    yield Diagnosis("memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free")
    yield Diagnosis("disk here", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB free")
    yield _hub()
    yield Diagnosis(
        "hub login", "yes" if get_token() else "no", "" if get_token() else "hf auth login (gated models only)"
    )
    sources = dict.fromkeys([WIKITEXT2, C4, *(s for benchmark in benchmarks.values() for s in benchmark.sources())])
    places = {source.repository: source.place(datasets_root) for source in sources}
    for repository, place in places.items():
        is_local = Path(place).is_dir()
        remedy = "" if is_local else "prunelab fetch --suite paper --to DIR, then --datasets-root DIR"
        yield Diagnosis(repository, f"in {place}" if is_local else "no local copy; read from the hub", remedy)
    yield _sandbox()
    yield Diagnosis("statistics cache", str(cache_folder()))


def examine_model(name: str) -> Iterator[Diagnosis]:
    """Inspect a checkpoint with the checks that every command runs first.

    Args:
        name: a folder, a hub id, or the name of a pocket model.

    Raises:
        PrunelabError: the error with which every command would refuse the checkpoint.
    """
    inspection = inspected(name)
    for what, value, remedy in findings(inspection):
        yield Diagnosis(what, value, remedy)
    yield from _tokenizer(inspection)
    if inspection.family.is_multimodal:
        processor = load_processor(inspection.path, inspection.config)
        if processor is not None:
            try_processor(inspection.name, processor, inspection.config)
            yield Diagnosis("processor", f"{type(processor).__name__}, tried on a small picture")


def _tokenizer(inspection: Inspection) -> Iterator[Diagnosis]:
    """What a checkpoint's tokenizer puts around a text, and whether its chat template renders."""
    tokenizer = load_tokenizer(inspection.path, inspection.config)
    rows = int(inspection.config.get_text_config().vocab_size)
    yield Diagnosis("tokenizer", f"{type(tokenizer).__name__}, {len(tokenizer):,} tokens for {rows:,} embedding rows")
    begin, end = tokenizer.bos_token, tokenizer.eos_token
    remedy = "" if begin or end else "set bos_token in tokenizer_config.json"
    yield Diagnosis("begin and end tokens", f"{begin or 'none'} and {end or 'none'}", remedy)
    around = added_tokens(tokenizer)
    before, behind = (" ".join(tokenizer.convert_ids_to_tokens(list(ids))) for ids in (around.before, around.behind))
    puts = [f"{before} in front"] if before else []
    puts += [f"{behind} behind, which is taken off prompts and contexts"] if behind else []
    yield Diagnosis("added to every text", "; ".join(puts) or "nothing")
    if not tokenizer.chat_template:
        yield Diagnosis("chat template", "none")
        return
    try:
        check_template(inspection.name, tokenizer)
    except InvalidRequest as error:
        yield Diagnosis("chat template", "cannot be used", str(error))
    else:
        yield Diagnosis("chat template", "renders")


def _hub() -> Diagnosis:
    if hub_answers():
        return Diagnosis("hub", f"{constants.ENDPOINT} answers")
    return Diagnosis("hub", f"{constants.ENDPOINT} is unreachable", "use local folders and --datasets-root DIR")


def _sandbox() -> Diagnosis:
    """Whether generated programs can run in the sandbox; tests every guarantee."""
    try:
        Sandbox().check()
    except MissingRequirement as error:
        return Diagnosis("sandbox for generated code", "not available", str(error))
    return Diagnosis("sandbox for generated code", "works")
