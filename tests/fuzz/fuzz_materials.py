"""What inputs are made worse from: a tiny checkpoint, its plan and statistics, a run, data sets and texts."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import byte_tokenizer, make_tiny, tiny_model
from miniature_hub import documents, write_data_set
from seeing import seeing_processor
from small_study import small_study

from prunelab.checkpoint.save import save_checkpoint
from prunelab.models.loading import LanguageModel, load_model
from prunelab.pruning.apply import make_pruning_plan, pruned_model
from prunelab.pruning.plan import PruningPlan
from prunelab.studies.config import study_config
from prunelab.studies.runner import run_study

DATA_SETS = ("aps/super_glue", "openai/gsm8k", "allenai/winogrande")
TEMPLATE = """\
{% for message in messages %}{{ '<|' + message['role'] + '|>' }}{{ message['content'] }}{{ eos_token }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""
CONFIGURATION = """\
models:
  - path: pocket-llama
    name: mine
    ratios: [0.2]
    benchmark_ratios: {wikitext2: [0.2]}
  - pocket-qwen2
methods: [flap, shortgpt]
ratios: [0.1, 0.2]
benchmarks: [wikitext2, throughput, arc_easy]
suites: [quick]
seeds: [0, 1]
calibration: {corpus: wikitext2, samples: 16, sequence_length: 128, held_out: 4}
pruning:
  protect_first: 1
  channel_multiple: 4
  competition: all
  compensation: auto
shots: [0, 5]
chat_template: auto
temperature: 0.8
limit: 10
window: 512
memory: 2GB
trackers: []
ray: {workers: 2, cpus_a_cell: 1}
engine: local
out: runs/mine
"""


@dataclass(frozen=True)
class Materials:
    """A folder with all of it; nothing in it may change.

    Attributes:
        root: the folder.
    """

    root: Path

    def make(self) -> None:
        """Fill the folder."""
        self.checkpoint.mkdir(parents=True)
        tiny_model("llama").save_pretrained(self.checkpoint)
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(self.checkpoint)
        (self.checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": 257, "max_length": 20}))
        tiny = make_tiny("llama")
        tiny.statistics.save(self.statistics)
        plan = make_pruning_plan(tiny.model, "flap", 0.25, statistics=tiny.statistics, calibration=tiny.calibration)
        plan.save(self.plan)
        save_checkpoint(pruned_model(tiny.model, plan, tiny.statistics, tiny.calibration), plan, self.pruned)
        readme = self.pruned / "README.md"
        readme.write_text(readme.read_text().replace("---\n", "---\nlicense: mit\n", 1))
        tiny_model("smolvlm").save_pretrained(self.seeing)
        seeing_processor(byte_tokenizer()).save_pretrained(self.seeing)
        line = "the red fox saw a blue bird and the bird saw a green frog near the old stone house"
        words = line.split()
        texts = [" ".join(words[(i * 7 + j * j) % len(words)] for j in range(120)) for i in range(20)]
        self.text.write_text("\n<|endoftext|>\n".join(texts))
        self.rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        for name in DATA_SETS:
            write_data_set(self.hub / name, documents()[name])
        given = small_study(self.checkpoint, self.text, self.hub, self.root / "run")
        run_study(study_config({**given, "methods": ["flap"]}), say=lambda line: None)

    @property
    def checkpoint(self) -> Path:
        """A tiny Llama."""
        return self.root / "checkpoint"

    @property
    def pruned(self) -> Path:
        """A cut of it, as `prunelab prune` writes it."""
        return self.root / "pruned"

    @property
    def seeing(self) -> Path:
        """A tiny vision-language model."""
        return self.root / "seeing"

    @cached_property
    def processor(self) -> Any:
        """Its processor."""
        return seeing_processor(byte_tokenizer())

    @property
    def statistics(self) -> Path:
        """Its statistics."""
        return self.root / "statistics.safetensors"

    @property
    def plan(self) -> Path:
        """A plan for it."""
        return self.root / "plan.json"

    @property
    def text(self) -> Path:
        """Documents as text."""
        return self.root / "text.txt"

    @property
    def rows(self) -> Path:
        """The same as JSONL."""
        return self.root / "rows.jsonl"

    @property
    def hub(self) -> Path:
        """Data sets."""
        return self.root / "hub"

    @property
    def run(self) -> Path:
        """A finished study of the checkpoint."""
        return self.root / "run"

    @cached_property
    def model(self) -> LanguageModel:
        """The checkpoint, loaded."""
        return load_model(str(self.checkpoint), device="cpu")

    @cached_property
    def plan_fields(self) -> dict[str, Any]:
        """The plan's file, of the model that is loaded."""
        fields: dict[str, Any] = json.loads(PruningPlan.load(self.plan).to_json())
        fields["base"]["fingerprint"] = self.model.fingerprint
        return fields

    def copied(self, what: Path, to: Path) -> Path:
        """A copy of a file or a folder, to be made worse."""
        place = to / what.name
        if what.is_dir():
            shutil.copytree(what, place)
        else:
            shutil.copyfile(what, place)
        return place
