"""Llama-3-8B's exact shapes in random weights, calibrated block by block and pruned to 20 % by `flap` and `shortgpt`.

`python timing/eight_billion.py --blocks 32 --samples 64 --rounds 2 --place DIR --keep FILE` runs all of it: 16 GB
of disk and as much again for the outputs, all deleted afterwards; about 50 minutes on one core. Without options, it
uses one block and a few samples, to measure the ratios only. Results are printed immediately and kept in
`DIR/figures.json`; an interrupted run resumes at its block.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from big_checkpoint import LLAMA_3_8B, write_checkpoint
from common import keep, middle, report
from torch import nn

from prunelab.calibration import ActivationStatistics, CalibrationSet
from prunelab.checkpoint.streamed_save import save_streamed
from prunelab.cli.terminal import quieten
from prunelab.evaluation.benchmarks.throughput import peak_memory, reset_peak_memory
from prunelab.io.atomic_write import write_text
from prunelab.models.memory import held
from prunelab.models.streaming.decoder import StreamedDecoder
from prunelab.models.streaming.model import StreamedModel, open_streamed
from prunelab.pruning.apply import calibrated, make_pruning_plan

CPU = torch.device("cpu")
BARE_SAMPLES, BARE_EVERY = 8, 4
METHODS = ("flap", "shortgpt")
BASE, STATISTICS = "base-{}", "statistics.safetensors"
WAYS = ("clock", "processor")


@dataclass(frozen=True)
class Asked:
    """The measurement's settings."""

    blocks: int
    samples: int
    tokens: int
    memory: float
    rounds: int


@dataclass
class Figures:
    """The results, saved as they are measured; a pair is wall-clock and processor seconds.

    Attributes:
        path: the file.
        asked: the settings.
        blocks: the pair of each block, including everything since the previous block.
        bare: after some blocks, the pair of a block's bare forward pass for `Asked.samples` samples.
        planned: by method, seconds to plan and the removed share.
        rounds: by method, the pairs of writing the pruned model and of then copying the checkpoint.
        peak: peak memory of the process in GiB.
    """

    path: Path
    asked: Asked
    blocks: dict[str, list[float]] = field(default_factory=dict)
    bare: dict[str, list[float]] = field(default_factory=dict)
    planned: dict[str, list[float]] = field(default_factory=dict)
    rounds: dict[str, list[list[list[float]]]] = field(default_factory=dict)
    peak: float = 0.0

    @classmethod
    def of(cls, path: Path, asked: Asked) -> Figures:
        """Load the results of an interrupted run with the same settings."""
        if path.exists():
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved.pop("asked") == vars(asked):
                return cls(path, asked, **saved)
        return cls(path, asked)

    def save(self) -> None:
        """Save the results with the current peak."""
        self.peak = max(self.peak, (peak_memory(CPU) or 0) / 2**30)
        write_text(self.path, json.dumps(self.kept(), indent=1) + "\n")

    def kept(self) -> dict[str, Any]:
        """All fields except the path."""
        return {**{key: value for key, value in vars(self).items() if key != "path"}, "asked": vars(self.asked)}

    def ratios(self) -> dict[str, list[float]]:
        """Median, spread and target of each ratio, by name."""
        ratios = {}
        for index, way in enumerate(WAYS):
            pairs = [self.blocks[block][index] / bare[index] for block, bare in self.bare.items()]
            ratios[f"calibration of a block / the bare forward's arithmetic, by the {way}"] = [*middle(pairs), 1.3]
        for method, rounds in self.rounds.items():
            for index, way in enumerate(WAYS):
                pairs = [written[index] / copied[index] for written, copied in rounds]
                ratios[f"{method}: writing / copying the checkpoint, by the {way}"] = [*middle(pairs), 2.0]
        return {**ratios, "GiB at the peak": [self.peak, 0.0, 4.0]}


class Watch:
    """Wall-clock and processor seconds since the last reading."""

    def __init__(self) -> None:
        self.look()

    def look(self) -> list[float]:
        """Return both times and reset."""
        now = [time.perf_counter(), time.process_time()]
        since = [a - b for a, b in zip(now, getattr(self, "last", now), strict=True)]
        self.last = [time.perf_counter(), time.process_time()]
        return since


class ClockedDecoder(StreamedDecoder):
    """Times every block, and at intervals a block without collecting statistics."""

    figures: Figures
    watch: Watch

    @contextmanager
    def loaded(self, block: int) -> Iterator[nn.Module]:
        """A block with its weights."""
        with super().loaded(block) as module:
            yield module
        pair = self.figures.blocks[str(block)] = self.watch.look()
        if block % BARE_EVERY == 0 or block == len(self.shapes) - 1:
            bare = self.figures.bare[str(block)] = self.bare(block)
            print(f"bare arithmetic: {bare[0]:.1f} s, {bare[1]:.1f} s of the processor")
        self.figures.save()
        print(f"block {block}: {pair[0]:.1f} s, {pair[1]:.1f} s of the processor", flush=True)
        self.watch.look()  # the bare pass does not count as calibration

    @torch.inference_mode()
    def bare(self, block: int) -> list[float]:
        """Time of the bare forward pass for all samples, scaled from a few, without loading or collecting."""
        asked = self.figures.asked
        few = min(BARE_SAMPLES, asked.samples)
        states = torch.randn(few, asked.tokens, self.shapes[block].hidden).to(self.model.dtype)
        with super().loaded(block) as module:
            given = self.given(states)[block]
            module(states[:1], **given)
            watch = Watch()
            module(states, **given)
            return [seconds * asked.samples / few for seconds in watch.look()]


@dataclass(frozen=True)
class ClockedModel(StreamedModel):
    """A streamed model whose blocks are timed."""

    @cached_property
    def decoder(self) -> ClockedDecoder:
        """The timed decoder."""
        assert self.files is not None
        assert self.family is not None
        assert self.where is not None
        return ClockedDecoder(self.model, self.family, self.files, self.where)


def main() -> None:
    """Print memory, and times relative to the necessary work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--samples", type=int, default=BARE_SAMPLES)
    parser.add_argument("--tokens", type=int, default=512, help="tokens per sample")
    parser.add_argument("--memory", type=float, default=4.0, help="GB")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of alternating writing and copying")
    parser.add_argument("--place", type=Path, help="folder for the files, in which an interrupted run resumes")
    parser.add_argument("--keep", type=Path, help="file for the results")
    given = vars(parser.parse_args())
    quieten()
    place, kept, asked = given.pop("place"), given.pop("keep"), Asked(**given)
    with tempfile.TemporaryDirectory() as name:
        place = place or Path(name)
        place.mkdir(parents=True, exist_ok=True)
        figures = measure(place, asked)
        for what, found in figures.ratios().items():
            report(what, *found)
        keep(kept, {**figures.kept(), "ratios": figures.ratios()})
        shutil.rmtree(place / BASE.format(asked.blocks))


def measure(place: Path, asked: Asked) -> Figures:
    """Measure everything in one folder."""
    figures = Figures.of(place / "figures.json", asked)
    clean(place, restart=not figures.blocks)
    base = place / BASE.format(asked.blocks)
    if not base.exists():
        write_checkpoint(place / "aside", LLAMA_3_8B.with_blocks(asked.blocks))
        (place / "aside").rename(base)
    print(f"{held() / 2**30:.2f} GiB in use before reading")
    reset_peak_memory(CPU)
    opened = open_streamed(str(base), device="cpu")
    model = ClockedModel(**{one.name: getattr(opened, one.name) for one in fields(opened)})
    size = sum(path.stat().st_size for path in base.iterdir()) / 1e9
    threads = torch.get_num_threads()
    print(f"{asked.blocks} blocks, {size:.3g} GB, {asked.samples} x {asked.tokens} tokens, {threads} threads")
    watch = Watch()
    model.fingerprint  # noqa: B018  (it is read for here)
    print(f"fingerprint: {watch.look()[0]:.1f} s", flush=True)
    ids = torch.randint(
        LLAMA_3_8B.vocabulary, (asked.samples, asked.tokens), generator=torch.Generator().manual_seed(0)
    )
    model.decoder.figures, model.decoder.watch = figures, Watch()
    statistics = calibrated(model, CalibrationSet(ids), place / STATISTICS, memory=int(asked.memory * 1e9))
    clock, processor = (sum(pair[index] for pair in figures.blocks.values()) for index in range(2))
    print(f"calibrated in {clock:.1f} s, {processor:.1f} s of the processor", flush=True)
    for method in METHODS if asked.blocks > 1 else METHODS[:1]:
        prune(model, method, statistics, figures)
    return figures


def clean(place: Path, restart: bool) -> None:
    """Remove an interrupted run's leftovers, and its results if the settings differ."""
    for path in [place / "aside", place / "copy", *(path for method in METHODS for path in place.glob(f".{method}-*"))]:
        shutil.rmtree(path, ignore_errors=True)
    if restart:
        (place / STATISTICS).unlink(missing_ok=True)
        shutil.rmtree(place / f"{STATISTICS}.streaming", ignore_errors=True)


def prune(model: StreamedModel, method: str, statistics: ActivationStatistics, figures: Figures) -> None:
    """Plan and write, alternating with copying the dense checkpoint."""
    place, blocks = figures.path.parent, figures.asked.blocks
    watch = Watch()
    share = 1 / blocks if method == "shortgpt" and blocks < 5 else 0.2
    plan = make_pruning_plan(model, method, share, statistics=statistics)
    figures.planned[method] = [watch.look()[0], plan.achieved_ratio]
    print("{}: planned in {:.1f} s, {:.1%} of the blocks' weights removed".format(method, *figures.planned[method]))
    rounds = figures.rounds.setdefault(method, [])
    while len(rounds) < figures.asked.rounds:
        forget(place / BASE.format(blocks))
        watch.look()
        save_streamed(model, plan, statistics, place / method, overwrite=True)
        written = watch.look()
        open_streamed(str(place / method), device="cpu").decoder.sources  # noqa: B018  (raises if it is incomplete)
        shutil.rmtree(place / method)
        rounds.append([written, copied(place, blocks)])
        figures.save()
        print(f"{method}: written in {written[0]:.1f} s, copied in {rounds[-1][1][0]:.1f} s", flush=True)


def forget(folder: Path) -> None:
    """Flush all writes to disk and drop the checkpoint's files from the page cache, before each measurement."""
    os.sync()
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copied(place: Path, blocks: int) -> list[float]:
    """Seconds for a plain copy of the checkpoint's weights."""
    base = place / BASE.format(blocks)
    forget(base)
    watch = Watch()
    shutil.copytree(base, place / "copy")
    seconds = watch.look()
    shutil.rmtree(place / "copy")
    return seconds


if __name__ == "__main__":
    main()
