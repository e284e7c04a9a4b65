"""Llama-3-8B's exact shapes in random weights, calibrated block by block and pruned to 20 % by `flap` and `shortgpt`.

`python timing/eight_billion.py --blocks 32 --samples 64 --place DIR` is the whole of it: 16 GB on disk, deleted
afterwards, about 40 minutes of two cores. Without options it is one block and a few samples, for the ratios alone. What
is found is printed as it is found and kept in `DIR/figures.json`; a run that was stopped goes on at its block.
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
from statistics import median
from typing import Any

import torch
from big_checkpoint import LLAMA_3_8B, write_checkpoint
from common import report
from torch import nn

from prunelab.benchmarks.throughput import peak_memory, reset_peak_memory
from prunelab.calibration import ActivationStatistics, CalibrationSet
from prunelab.calibration.streaming import block_arguments
from prunelab.checkpoint.streaming import save_streamed
from prunelab.files import write_text
from prunelab.memory import held
from prunelab.prune import calibrated, make_pruning_plan
from prunelab.streamed import StreamedDecoder, StreamedModel, open_streamed

CPU = torch.device("cpu")
BARE_SAMPLES, BARE_EVERY = 8, 8
ROUNDS = 3
BASE = "base-{}"


@dataclass(frozen=True)
class Asked:
    """What is measured."""

    blocks: int
    samples: int
    tokens: int
    memory: float


@dataclass
class Figures:
    """What was found, written down as it is found; a pair is seconds of the clock and of the processor."""

    path: Path
    asked: Asked
    blocks: dict[str, list[float]] = field(default_factory=dict)
    bare: list[list[float]] = field(default_factory=list)
    written: dict[str, dict[str, Any]] = field(default_factory=dict)
    peak: float = 0.0

    @classmethod
    def of(cls, path: Path, asked: Asked) -> Figures:
        """Those of a run that was stopped, where it asked for the same."""
        figures = cls(path, asked)
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept.pop("asked") == vars(asked):
                figures = cls(path, asked, **kept)
        return figures

    def save(self) -> None:
        """Write them, the peak so far among them."""
        self.peak = max(self.peak, (peak_memory(CPU) or 0) / 2**30)
        kept = {key: value for key, value in vars(self).items() if key != "path"}
        write_text(self.path, json.dumps({**kept, "asked": vars(self.asked)}, indent=1) + "\n")


@contextmanager
def clocked() -> Iterator[list[float]]:
    """Seconds of the clock and of the processor, there when the `with` ends."""
    pair: list[float] = []
    clock, processor = time.perf_counter(), time.process_time()
    yield pair
    pair += [time.perf_counter() - clock, time.process_time() - processor]


class ClockedDecoder(StreamedDecoder):
    """Takes the time of every block, and of one with nothing collected now and then."""

    figures: Figures

    @contextmanager
    def loaded(self, block: int) -> Iterator[nn.Module]:
        """A block with its values."""
        with clocked() as pair, super().loaded(block) as module:
            yield module
        self.figures.blocks[str(block)] = pair
        print(f"block {block}: {pair[0]:.1f} s, {pair[1]:.1f} s of the processor", flush=True)
        if block % BARE_EVERY == 0 or block == len(self.shapes) - 1:
            self.figures.bare.append(self.bare())
        self.figures.save()

    @torch.inference_mode()
    def bare(self) -> list[float]:
        """What the arithmetic itself takes of a block for eight samples, its weights in place and nothing collected."""
        states = torch.randn(BARE_SAMPLES, self.figures.asked.tokens, self.shapes[0].hidden).to(self.model.dtype)
        with super().loaded(0) as module:
            given = block_arguments(self, states, None)[0]
            module(states[:1], **given)
            with clocked() as pair:
                module(states, **given)
        return pair


@dataclass(frozen=True)
class ClockedModel(StreamedModel):
    """A model whose blocks are clocked."""

    @cached_property
    def decoder(self) -> ClockedDecoder:
        """Its decoder."""
        assert self.files is not None
        assert self.family is not None
        assert self.where is not None
        return ClockedDecoder(self.model, self.family, self.files, self.where)


def main() -> None:
    """Print memory, and times against what must be done."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--samples", type=int, default=BARE_SAMPLES)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--memory", type=float, default=4.0, help="GB")
    parser.add_argument("--place", type=Path, help="folder for the files, in which a run that was stopped goes on")
    given = vars(parser.parse_args())
    place, asked = given.pop("place"), Asked(**given)
    if place is not None:
        place.mkdir(parents=True, exist_ok=True)
        measure(place, asked)
        shutil.rmtree(place / BASE.format(asked.blocks))
        return
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), asked)


def measure(place: Path, asked: Asked) -> None:
    """All of it in one folder."""
    figures = Figures.of(place / "figures.json", asked)
    base, kept = place / BASE.format(asked.blocks), place / "statistics.safetensors"
    if not figures.blocks:
        kept.unlink(missing_ok=True)
        shutil.rmtree(f"{kept}.streaming", ignore_errors=True)
    if not base.exists():
        shutil.rmtree(place / "aside", ignore_errors=True)
        write_checkpoint(place / "aside", LLAMA_3_8B.with_blocks(asked.blocks))
        (place / "aside").rename(base)
    opened = open_streamed(str(base), device="cpu")
    model = ClockedModel(**{one.name: getattr(opened, one.name) for one in fields(opened)})
    model.decoder.figures = figures
    size = sum(path.stat().st_size for path in base.iterdir()) / 1e9
    threads = torch.get_num_threads()
    print(f"{asked.blocks} blocks, {size:.3g} GB, {asked.samples} x {asked.tokens} tokens, {threads} threads")
    print(f"{held() / 2**30:.2f} GiB held before anything is read")
    with clocked() as pair:
        model.fingerprint  # noqa: B018  (it is read for here)
    print(f"fingerprint: {pair[0]:.1f} s", flush=True)
    reset_peak_memory(CPU)
    ids = torch.randint(
        LLAMA_3_8B.vocabulary, (asked.samples, asked.tokens), generator=torch.Generator().manual_seed(0)
    )
    statistics = calibrated(model, CalibrationSet(ids), kept, memory=int(asked.memory * 1e9))
    for index, what in enumerate(("clock", "processor")):
        spent = sum(pair[index] for pair in figures.blocks.values())
        bare = median(pair[index] for pair in figures.bare) * asked.blocks * asked.samples / BARE_SAMPLES
        report(f"calibration, {spent:.1f} s / the bare forward's arithmetic, by the {what}", spent / bare, 0.0, 1.3)
    for method in ("flap", "shortgpt") if asked.blocks > 1 else ("flap",):
        if method not in figures.written:
            figures.written[method] = prune(model, method, statistics, place)
            figures.save()
        found = figures.written[method]
        print(f"{method}: planned in {found['planned']:.1f} s, {found['removed']:.1%} of the blocks' weights removed")
        for index, what in enumerate(("clock", "processor")):
            ratios = sorted(write[index] / copy[index] for write, copy in found["rounds"])
            spread = (ratios[-1] - ratios[0]) / 2
            report(f"{method}: writing / copying the checkpoint, by the {what}", median(ratios), spread, 2.0)
    report("GiB at the peak", figures.peak, 0.0, target=4.0)


def prune(model: StreamedModel, method: str, statistics: ActivationStatistics, place: Path) -> dict[str, Any]:
    """Plan and write, in turn with copying the checkpoint that was cut; a first copy warms up and does not count."""
    blocks = len(model.decoder.shapes)
    with clocked() as planning:
        share = 1 / blocks if method == "shortgpt" and blocks < 5 else 0.2
        plan = make_pruning_plan(model, method, share, statistics=statistics)
    rounds = []
    if blocks <= 4:
        copied(place, blocks)
    for _ in range(ROUNDS if blocks <= 4 else 1):
        os.sync()
        with clocked() as written:
            save_streamed(model, plan, statistics, place / method, overwrite=True)
        os.sync()
        shutil.rmtree(place / method)
        rounds.append([written, copied(place, blocks)])
        print(f"{method}: written in {written[0]:.1f} s, copied in {rounds[-1][1][0]:.1f} s", flush=True)
    return {"planned": planning[0], "removed": plan.achieved_ratio, "rounds": rounds}


def copied(place: Path, blocks: int) -> list[float]:
    """Seconds for a plain copy of the checkpoint's weights."""
    os.sync()
    with clocked() as pair:
        for path in sorted((place / BASE.format(blocks)).glob("*.safetensors")):
            shutil.copyfile(path, place / "copy")
            (place / "copy").unlink()
    return pair


if __name__ == "__main__":
    main()
