"""What reads inputs from outside, by kind: each makes one worse input in a folder and gives what reads it."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from fuzz_commands import run_command
from fuzz_materials import CONFIGURATION, TEMPLATE, Materials
from fuzz_mutations import NASTY, as_json, worse_bytes, worse_text, worse_value
from fuzz_targets_more import MORE_TARGETS
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from prunelab.calibration import ActivationStatistics
from prunelab.calibration.corpus import draw_calibration_set
from prunelab.calibration.image_text import is_pairs
from prunelab.calibration.statistics import _content
from prunelab.evaluation.benchmarks import EvaluationSettings, benchmarks
from prunelab.evaluation.runner import benchmark_tasks, checked_model, dense_cell, evaluate
from prunelab.inference.lm_eval_adapter import PrunelabLM
from prunelab.io.fingerprint import content_hash
from prunelab.models.loading import load_model
from prunelab.models.streaming.model import open_streamed
from prunelab.pruning.apply import pruned_model
from prunelab.pruning.checks import check_plan
from prunelab.pruning.plan import PruningPlan
from prunelab.pruning.plan_summary import planned_cuts
from prunelab.reports import write_report
from prunelab.reports.tables import main_table
from prunelab.studies.config import read_config, study_config
from prunelab.studies.run import load_run

Read = Callable[[], object]
Target = Callable[[Materials, Path, random.Random], Read]


def configuration(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A study's YAML file."""
    path = folder / "study.yaml"
    if chance.random() < 0.5:
        path.write_text(worse_text(CONFIGURATION, chance), encoding="utf-8", errors="surrogatepass")
    elif chance.random() < 0.2:
        path.write_bytes(worse_bytes(CONFIGURATION.encode(), chance))
    else:
        value = worse_value(yaml.safe_load(CONFIGURATION), chance)
        path.write_text(as_json(value, chance))  # JSON is YAML
    return lambda: study_config(read_config(path), str(path), path)


def plan(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A plan; one that is accepted is applied."""
    path = folder / "plan.json"
    if chance.random() < 0.2:
        path.write_bytes(worse_bytes(json.dumps(materials.plan_fields).encode(), chance))
    else:
        path.write_text(as_json(worse_value(materials.plan_fields, chance), chance))

    def read() -> object:
        planned_cuts(folder, {None})
        found = PruningPlan.load(path)
        _ = found.fingerprint
        model = materials.model
        check_plan(model, found)
        statistics = ActivationStatistics.load(materials.statistics)
        return pruned_model(model, found, statistics)

    return read


def _worse_checkpoint(materials: Materials, folder: Path, chance: random.Random) -> Path:
    place = materials.copied(materials.checkpoint, folder)
    names = sorted(path.name for path in place.iterdir())
    name = chance.choice([*names, "config.json", "config.json", "model.safetensors"])
    path = place / name
    given = path.read_bytes()
    if name.endswith(".safetensors"):
        path.write_bytes(_worse_tensors(given, chance))
    elif name == "tokenizer.json" or chance.random() < 0.3 or not name.endswith(".json"):
        path.write_bytes(worse_bytes(given, chance))
    else:
        path.write_text(as_json(worse_value(json.loads(given), chance), chance))
    return place


def _worse_tensors(given: bytes, chance: random.Random) -> bytes:
    """A safetensors file whose header, length or contents are worse."""
    length = struct.unpack("<Q", given[:8])[0]
    header, body = given[8 : 8 + length], given[8 + length :]
    kind = chance.randrange(5)
    if kind == 0:
        return worse_bytes(given, chance)
    if kind == 1:
        header = worse_bytes(header, chance)
    elif kind == 2:
        return struct.pack("<Q", chance.choice((0, 1, length - 1, 2**31, 2**63))) + header + body
    elif kind == 3:
        body = body[: chance.randrange(len(body))]
    else:
        header = as_json(worse_value(json.loads(header), chance), chance).encode()
    return struct.pack("<Q", len(header)) + header + body


def checkpoint(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A checkpoint loaded into memory and run."""
    place = _worse_checkpoint(materials, folder, chance)

    def read() -> object:
        model = load_model(str(place), device="cpu")
        with torch.no_grad():
            return model.model(torch.tensor([[1, 2, 3]])).logits

    return read


def streamed_checkpoint(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A checkpoint left on the disk, and one block of it run."""
    place = _worse_checkpoint(materials, folder, chance)

    def read() -> object:
        model = open_streamed(str(place), device="cpu")
        with model.decoder.loaded(0) as block:
            return [parameter.sum() for parameter in block.parameters()]

    return read


def statistics(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A file of statistics; half of them with the hash that belongs to what they hold."""
    path = folder / "s.safetensors"
    if chance.random() < 0.5:
        path.write_bytes(_worse_tensors(materials.statistics.read_bytes(), chance))
        return lambda: ActivationStatistics.load(path)
    with safe_open(materials.statistics, framework="pt") as file:
        words = dict(file.metadata())
    tensors = load_file(materials.statistics)
    name = chance.choice(list(tensors))
    if chance.random() < 0.5:
        one = tensors.pop(name)
        ways: list[Callable[[], Tensor]] = [one.float, lambda: one[None], lambda: one[:-1], lambda: one * torch.nan]
        if chance.random() < 0.8:
            tensors[name] = chance.choice(ways)().contiguous()
    words |= {"content": _content(tensors)}
    word = chance.choice(list(words))
    words[word] = worse_text(words[word], chance).encode("utf-8", "replace").decode()
    save_file(tensors, path, words)
    return lambda: ActivationStatistics.load(path)


def run(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A run with one file worse, read as `results`, `report` and `recommend` read it."""
    place = materials.copied(materials.run, folder)
    files = [path for path in sorted(place.rglob("*")) if path.is_file() and "report" not in path.parts]
    path = chance.choice(files)
    given = path.read_bytes()
    if path.suffix == ".json" and chance.random() < 0.7:
        fields = worse_value(json.loads(given), chance)
        if isinstance(fields, dict) and "hash" in fields and chance.random() < 0.7:  # a consistent hand edit
            of_all = {name: value for name, value in fields.items() if name != "hash"}
            of_figures = {"measurements": fields.get("measurements")}
            fields["hash"] = content_hash(of_all if "format" in fields else of_figures)
        path.write_text(as_json(fields, chance))
    else:
        path.write_bytes(worse_bytes(given, chance))
    with_report = chance.random() < 0.1

    def read() -> object:
        found = load_run(place)
        _ = found.planned, [one.samples for one in found.measured]
        if with_report:
            write_report(replace(found, folder=folder / "out"))
        return main_table(found.measurements, found.differences)

    return read


def data_set(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A data set's rows, read and scored."""
    name, repository, file = chance.choice((
        ("boolq", "aps/super_glue", "boolq/validation.jsonl"),
        ("gsm8k", "openai/gsm8k", "main/test.jsonl"),
        ("winogrande", "allenai/winogrande", "winogrande_xl/validation.jsonl"),
    ))  # fmt: skip
    (folder / repository).parent.mkdir(parents=True)
    path = materials.copied(materials.hub / repository, (folder / repository).parent) / file
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    if chance.random() < 0.25:
        path.write_bytes(worse_bytes(path.read_bytes(), chance))
    else:
        at = chance.randrange(len(rows))
        rows[at] = worse_value(rows[at], chance)
        path.write_text("".join(as_json(row, chance) + "\n" for row in rows))

    def read() -> object:
        settings = EvaluationSettings(limit=2, datasets_root=folder, tokens_a_batch=1024)
        runs = benchmark_tasks([name], settings, [0])
        checked_model(runs, materials.model, lambda place: materials.model)
        if name == "gsm8k":  # generating takes longer than all the rest
            return None
        return [evaluate(materials.model, dense_cell(materials.model), *one) for one in runs]

    return read


def calibration(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A text of the user's own."""
    given = chance.choice((materials.text, materials.rows))
    path = folder / chance.choice(("t.txt", "t.jsonl", "t.JSONL", "t.json", "t"))
    if chance.random() < 0.5:
        path.write_bytes(worse_bytes(given.read_bytes(), chance))
    else:
        rows = [{"text": text} for text in materials.text.read_text().split("\n<|endoftext|>\n")]
        at = chance.randrange(len(rows))
        rows[at] = worse_value(rows[at], chance)
        path.write_text("".join(as_json(row, chance) + "\n" for row in rows), errors="surrogatepass")

    def read() -> object:
        is_pairs(str(path))
        return draw_calibration_set(str(path), materials.model.tokenizer, samples=4, sequence_length=32, held_out=2)

    return read


def template(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A tokenizer's chat template, rendered as instructions are."""
    place = materials.copied(materials.checkpoint, folder)
    (place / "chat_template.jinja").write_text(worse_text(TEMPLATE, chance), encoding="utf-8", errors="replace")

    def read() -> object:
        model = load_model(str(place), device="cpu")
        benchmarks["boolq"].check_model(model, EvaluationSettings(chat_template="always"))
        lm = PrunelabLM(model.model, model.tokenizer, batch_tokens=256)
        return lm.apply_chat_template([{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])

    return read


OPTIONS = {
    "prune": ["--method", "--ratio", "--samples", "--sequence-length", "--seed", "--protect-first", "--competition",
              "--channel-multiple", "--compensation", "--plan", "--statistics", "--device", "--dtype", "--memory"],
    "evaluate": ["--benchmark", "--suite", "--limit", "--shots", "--temperature", "--completions", "--seed", "--window",
                 "--tokens-a-batch", "--dtype", "--device", "--memory"],
    "throughput": ["--prompt-tokens", "--new-tokens", "--repeats", "--runtime", "--dtype"],
    "study": ["--method", "--ratio", "--benchmark", "--seed", "--limit", "--window", "--temperature", "--engine",
              "--workers"],
    "results": ["--benchmark", "--csv"],
    "recommend": ["--keep", "--speedup", "--memory", "--weight", "--benchmark", "--model"],
    "report": [], "compare": [], "merge": ["--prefer"], "export": ["--to", "--type"], "list": [], "push": ["--to"],
    "extract-language-model": ["--into"],
}  # fmt: skip


def command_line(materials: Materials, folder: Path, chance: random.Random) -> Read:
    """A command with odd values for its options, and one of its outputs named."""
    name = chance.choice(list(OPTIONS))
    words = [name]
    given = {"results": materials.run, "report": folder / "none", "compare": materials.run, "merge": materials.run,
             "recommend": materials.run, "list": "methods"}.get(name, materials.checkpoint)  # fmt: skip
    words += [str(given)] if name != "study" else [] if chance.random() < 0.3 else ["--model", str(given)]
    words += [str(chance.choice((materials.run, folder / "none")))] if name in ("compare", "merge") else []
    values = [str(value) for value in NASTY if isinstance(value, str | int | float)]
    values += ["9" * 5000, "flap", "0.2", "5", "1e-310"]
    for option in chance.sample(OPTIONS[name], min(len(OPTIONS[name]), chance.choice((1, 1, 2)))):
        words += [option] if option == "--csv" else [f"{option}={chance.choice(values)}"]
    if name in ("prune", "evaluate", "throughput", "export", "merge", "extract-language-model", "study"):
        words += ["--out", str(folder / "out")]
    if name == "prune":
        words += ["--calibration", str(materials.text)]
    if name == "study":
        words += ["--dry-run"]
    words = [word.replace("\x00", "").encode("utf-8", "replace").decode() for word in words]
    return lambda: run_command(words)


TARGETS: dict[str, tuple[Target, int]] = {
    "configurations": (configuration, 110), "plans": (plan, 100), "checkpoints": (checkpoint, 45),
    "streamed checkpoints": (streamed_checkpoint, 35), "statistics": (statistics, 60), "runs": (run, 40),
    "data sets": (data_set, 10), "calibration files": (calibration, 60), "templates": (template, 25),
    "command lines": (command_line, 15), **MORE_TARGETS,
}  # fmt: skip
"""Each kind, and its share of the inputs."""
