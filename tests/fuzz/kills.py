"""Kill short studies at random moments, resume them, and compare what they end in with an uninterrupted run.

    python tests/fuzz/kills.py --kills 1000 --seed 0

A child process, forked from this one so that nothing is imported again, runs a study and is killed with SIGKILL after a
random time; the next child resumes it. When a study comes to its end, its tables must be those of the run that nobody
interrupted in all but seconds, speeds and memory; its folder must hold the same files; nothing that was finished may
have been measured again; and no temporary file may be left, in the folder or in the system's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas as pd
import torch
from conftest import byte_tokenizer, tiny_model
from miniature_hub import write_hub
from safetensors import safe_open
from small_study import files, run

import prunelab.models.streaming.model

Fields = dict[str, Any]
TIMED = ("throughput",)
"""Benchmarks whose figures are speeds and memory."""
VARYING_TABLES = ("seconds", "how_it_was_made")


@dataclass
class Study:
    """A study to kill.

    Attributes:
        name: what it is called.
        fields: its configuration, but for the folder.
        whole: the folder of the run that nobody interrupts.
        seconds: what a whole run takes.
        folder: the run that is being killed.
        finished: when each file of it was written.
    """

    name: str
    fields: Fields
    whole: Path
    seconds: float = 0.0
    folder: Path = field(default_factory=Path)
    finished: dict[str, int] = field(default_factory=dict)


def studies(place: Path, names: tuple[str, ...] = ()) -> list[Study]:
    """Short studies with different things to interrupt.

    Args:
        place: where models, data and runs are kept.
        names: the studies wanted; all if empty.
    """
    model, corpus, hub = place / "tiny-llama", place / "corpus.txt", place / "hub"
    tiny_model("llama").save_pretrained(model)
    byte_tokenizer().save_pretrained(model)
    words = (
        "the",
        "red",
        "fox",
        "saw",
        "a",
        "blue",
        "bird",
        "and",
        "a",
        "green",
        "frog",
        "near",
        "the",
        "old",
        "house",
    )
    documents = [" ".join(words[(i * 7 + j * j) % len(words)] for j in range(90)) for i in range(12)]
    corpus.write_text("\n<|endoftext|>\n".join(documents))
    write_hub(hub)
    common: Fields = {
        "models": [str(model)], "ratios": [0.25], "device": "cpu", "datasets_root": str(hub), "limit": 4,
        "calibration": {"corpus": str(corpus), "samples": 4, "sequence_length": 32, "held_out": 2},
    }  # fmt: skip
    text = f"text:{corpus}"
    kinds: dict[str, Fields] = {
        "scored": {"methods": ["shortgpt", "flap"], "benchmarks": [text, "boolq"]},
        "drawn": {
            "methods": ["random_depth", "random_width"], "benchmarks": ["winogrande"], "seeds": [0, 1],
            "vary_calibration": True,
        },
        "bfloat16": {"methods": ["magnitude_width"], "benchmarks": ["boolq", text], "dtype": "bfloat16"},
        "streamed": {"methods": ["flap"], "benchmarks": [text]},
        "timed": {"methods": ["shortgpt"], "benchmarks": ["throughput", "gsm8k"], "limit": 1},
    }  # fmt: skip
    return [
        Study(name, {**common, **own}, place / f"whole-{name}")
        for name, own in kinds.items()
        if not names or name in names
    ]


def child_of(study: Study, folder: Path) -> int:
    """Fork a child that runs a study into a folder; it exits with 0, or with 1 and a traceback."""
    child = os.fork()
    if child:
        return child
    try:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)  # makes PyTorch's pool anew before threads that load weights race for it
        if study.name == "streamed":
            setattr(prunelab.models.streaming.model, "is_too_large", lambda *_: True)  # noqa: B010  (imported there, not exported)
        run({**study.fields, "out": str(folder)})
        os._exit(0)
    except BaseException:  # noqa: BLE001  (the child must not go on as its parent)
        traceback.print_exc()
        os._exit(1)


def finish(study: Study) -> None:
    """Run a study without interruption, in a child."""
    start = time.monotonic()
    _, status = os.waitpid(child_of(study, study.whole), 0)
    study.seconds = time.monotonic() - start
    if status:
        raise RuntimeError(f"{study.name}: the uninterrupted run failed (status {status})")


def kill(study: Study, after: float) -> bool:
    """Run a study in a child and kill it.

    Args:
        study: the study; its folder is resumed.
        after: seconds.

    Returns:
        Whether it was killed; false where it was done before.
    """
    child = child_of(study, study.folder)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"{study.name} failed by itself in {study.folder}")
    return os.WIFSIGNALED(status)


def check_resumable(study: Study) -> None:
    """What was finished before a kill stays as it was; the hidden states of a streamed calibration do not."""
    now = {path: then for path, then in files(study.folder).items() if ".streaming" not in path}
    again = [path for path, then in study.finished.items() if now.get(path) != then]
    if again:
        raise AssertionError(f"{study.name}: made again after a kill: {again} in {study.folder}")
    # Sample records are written before the measurements that name them, and count with these.
    study.finished = {path: then for path, then in now.items() if path.replace(".samples.parquet", ".json") in now}


def check_finished(study: Study) -> None:
    """A study that came to its end is as if nobody had interrupted it."""
    here, there = contents(study.folder), contents(study.whole)
    if here.keys() != there.keys():
        raise AssertionError(f"{study.name}: other files: {sorted(here.keys() ^ there.keys())} in {study.folder}")
    differing = [name for name, content in here.items() if content != there[name]]
    if differing:
        raise AssertionError(f"{study.name}: other contents: {differing} in {study.folder}")


def contents(folder: Path) -> dict[str, object]:
    """What the files of a run say, by path, without seconds, speeds and memory; hidden files included, but the lock."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name == ".lock":
            continue
        found[name] = _content(path)
    return found


def _content(path: Path) -> object:
    timed = any(name in path.name for name in TIMED)
    if path.parent.parent.name == "cells":
        return _cell(path, timed)
    if path.name == "results.csv":
        frame = pd.read_csv(path, dtype=str).drop(columns="seconds")
        return frame[~frame["benchmark"].isin(TIMED)].dropna(axis="columns", how="all").to_csv()
    compared = {"comparisons.csv", "failures.json", "index.json"}
    table = path.parent.name == "tables" and path.suffix == ".csv" and path.stem not in VARYING_TABLES
    if path.name in compared or path.parent.name == "plans":
        return path.read_bytes()
    if path.parent.name == "statistics":
        with safe_open(path, framework="pt") as file:  # its header's order is another in every process
            return file.metadata()
    if table and not _is_timed(path):
        frame = pd.read_csv(path, dtype=str)
        return frame[[name for name in frame.columns if "seconds" not in name]].to_csv()
    return None


def _is_timed(table: Path) -> bool:
    """Whether a study with speeds wrote a table: they are in most of them."""
    return any(table.parents[2].glob("cells/*/throughput-*.json"))


def _cell(path: Path, timed: bool) -> object:
    if path.suffix != ".json":
        return None if timed else path.read_bytes()
    fields = json.loads(path.read_text())
    rows = [
        {key: value for key, value in row.items() if key != "seconds" and not (timed and key in ("value", "details"))}
        for row in fields["measurements"]
    ]
    if timed:
        rows = [{**row, "standard_error": None} for row in rows]
    return {**fields, "hash": None, "samples": None if timed else fields["samples"], "measurements": rows}


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Temporary files of children in a folder of their own, so that what is left there is seen."""
    folder.mkdir()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def kill_all(
    place: Path, kills: int, seed: int, names: tuple[str, ...] = (), say: Callable[[str], None] = print
) -> int:
    """Kill studies in turn until there were so many kills; how many runs came to their end."""
    torch.set_num_threads(1)
    place.mkdir(exist_ok=True)
    chance = random.Random(seed)
    chosen = studies(place, names)
    with temporary_files_in(place / "tmp"):
        # What a process loads once does not count: the first whole run, in this process, is that of every child.
        run({**chosen[0].fields, "out": str(place / "first")})
        for study in chosen:
            finish(study)
            study.folder = place / f"{study.name}-0"
            say(f"{study.name}: {study.seconds:.1f} s without interruption")
        done = ended = 0
        while done < kills:
            study = chosen[done % len(chosen)]
            if kill(study, chance.uniform(0, 0.7 * study.seconds)):
                done += 1
                study.seconds *= 1.02  # the machine may have become slower, or faster
                check_resumable(study)
                if done % 50 == 0:
                    say(f"{done} kills, {ended} runs came to their end")
            else:
                study.seconds *= 0.9
                check_finished(study)
                ended += 1
                shutil.rmtree(study.folder)
                study.folder, study.finished = place / f"{study.name}-{ended}", {}
        for study in chosen:
            _, status = os.waitpid(child_of(study, study.folder), 0)
            if status:
                raise RuntimeError(f"{study.name} failed by itself in {study.folder}")
            check_resumable(study)
            check_finished(study)
            ended += 1
        left = [str(path.relative_to(place)) for path in (place / "tmp").iterdir()]
        if left:
            raise AssertionError(f"temporary files are left: {left}")
    return ended


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--study", action="append", default=[], help="repeatable; all by default")
    given = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    place = Path(tempfile.mkdtemp(prefix="prunelab-kills-"))
    start = time.monotonic()
    ended = kill_all(place, given.kills, given.seed, tuple(given.study), lambda line: print(line, flush=True))
    shutil.rmtree(place)
    print(
        f"{given.kills} kills (seed {given.seed}) in {(time.monotonic() - start) / 60:.0f} min: {ended} runs came to "
        "their end, each the same as without interruption; nothing was left over"
    )


if __name__ == "__main__":
    main()
