"""Runs inputs one after the other in a process of its own, watched by another one."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from fuzz_materials import Materials
from fuzz_targets import TARGETS

from prunelab.errors import PrunelabError

HANG = 10.0
"""Seconds of processor time after which an input counts as a hang."""
WALL = 90.0
"""Seconds of any time: the machine may be busy with something else."""
MEMORY = 16 << 30
"""Bytes of address space that an input may take."""
GOOD = ("accepted", "refused")


@dataclass
class Findings:
    """What came of the inputs.

    Attributes:
        counts: by kind and outcome.
        bad: what is neither accepted nor refused in one line: kind, number, outcome and detail.
        slowest: processor seconds of the slowest input, with its kind and number.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    bad: list[dict[str, Any]] = field(default_factory=list)
    slowest: tuple[float, str, int] = (0.0, "", 0)

    def add(self, kind: str, number: int, outcome: str, detail: str, seconds: float) -> None:
        """Count one input."""
        self.counts.setdefault(kind, Counter())[outcome] += 1
        self.slowest = max(self.slowest, (seconds, kind, number))
        if outcome not in GOOD:
            self.bad.append({"kind": kind, "number": number, "outcome": outcome, "detail": detail})


def inputs(count: int, kinds: Sequence[str] = ()) -> list[tuple[str, int]]:
    """So many inputs, each a kind and a number, shared out among the kinds."""
    chosen = {kind: share for kind, (_, share) in TARGETS.items() if not kinds or kind in kinds}
    whole = sum(chosen.values())
    return [(kind, number) for kind, share in chosen.items() for number in range(max(1, round(count * share / whole)))]


def fuzz(
    materials: Materials, folder: Path, wanted: Sequence[tuple[str, int]], seed: int, *, say: Callable[[str], None]
) -> Findings:
    """Run the inputs; a worker that hangs or dies is replaced by another."""
    findings, start = Findings(), 0
    while start < len(wanted):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _work(materials, folder, wanted[start:], seed, writer)
        os.close(writer)
        start += _watch(child, reader, wanted[start:], findings)
        say(f"{start} of {len(wanted)}")
    return findings


def _watch(child: int, reader: int, wanted: Sequence[tuple[str, int]], findings: Findings) -> int:
    """Take down what a worker reports until it ends; gives how many inputs it dealt with."""
    process, done, rest = psutil.Process(child), 0, b""
    began, used = time.monotonic(), 0.0
    outcome = "crash"
    while True:
        ready, _, _ = select.select([reader], [], [], 1.0)
        if ready:
            chunk = os.read(reader, 1 << 16)
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                findings.add(*wanted[done], **json.loads(line))
                done += 1
            began, used = time.monotonic(), _processor_time(process)
        elif _processor_time(process) - used > HANG or time.monotonic() - began > WALL:
            outcome = "hang"
            os.kill(child, signal.SIGKILL)
            break
    os.close(reader)
    _, status = os.waitpid(child, 0)
    if done < len(wanted):
        findings.add(*wanted[done], outcome, f"the process ended with {status}", HANG)
        done += 1
    return done


def _processor_time(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def _work(materials: Materials, folder: Path, wanted: Sequence[tuple[str, int]], seed: int, writer: int) -> None:
    """The worker; it never returns."""
    code = 1
    try:
        torch.set_num_threads(1)
        faulthandler.disable()
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
        silence = open(os.devnull, "w")  # noqa: SIM115  (as long as the process)
        sys.stdout = sys.stderr = silence
        for kind, number in wanted:
            began = time.process_time()
            outcome, detail = _one(materials, folder, kind, number, seed)
            row = {"outcome": outcome, "detail": detail, "seconds": time.process_time() - began}
            os.write(writer, json.dumps(row).encode() + b"\n")
        code = 0
    finally:
        os._exit(code)


def _one(materials: Materials, folder: Path, kind: str, number: int, seed: int) -> tuple[str, str]:
    place = folder / "cases" / f"{kind.replace(' ', '-')}-{number}"
    place.mkdir(parents=True)
    try:
        read = TARGETS[kind][0](materials, place, random.Random(f"{seed} {kind} {number}"))
        os.chdir(place)
        before = snapshot(folder)
        outcome, detail = _outcome(read)
        after = snapshot(folder)
        changed = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
        if changed and outcome in GOOD:
            return "files changed", f"{kind}: {', '.join(changed[:3])}"
        return outcome, detail
    finally:
        os.chdir(folder)
        shutil.rmtree(place, ignore_errors=True)


def _outcome(read: Callable[[], object]) -> tuple[str, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except PrunelabError as error:
        lines = str(error).splitlines()
        return (
            ("refused", lines[0]) if len(lines) == 1 and len(lines[0]) < 3000 else ("several lines", str(error)[:300])
        )
    except (Exception, SystemExit) as error:  # noqa: BLE001  (it is what is looked for)
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "prunelab" in frame.filename and "fuzz" not in frame.filename]
        where = " <- ".join(f"{Path(f.filename).name}:{f.lineno}" for f in [*ours[-1:], *frames[-1:]])
        return "traceback", f"{type(error).__name__} at {where}: {str(error)[:160]}"
    return "accepted", ""


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every file with what tells that it was changed, the named outputs aside."""
    return dict(_files(folder, folder))


def _files(folder: Path, root: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            path = Path(entry.path)
            if entry.name == "cache" and folder == root:
                continue
            if entry.name.startswith("out") and folder.parent.name == "cases":
                continue
            found = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                yield from _files(path, root)
            else:
                yield str(path.relative_to(root)), (found.st_mode, found.st_size, found.st_mtime_ns, found.st_ino)
