"""A made-up study of everything that a report can show: every benchmark, plans, texts and subjects, for any grid."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from made_up_runs import DENSE, Cut, MadeUpRun

from prunelab.models.families import BlockShape
from prunelab.pruning.allocation import KeptUnits, achieved_ratio
from prunelab.pruning.methods import methods
from prunelab.pruning.plan import BaseModelRecord, PlannedBlock, PruningPlan
from prunelab.reports.content import report_of
from prunelab.reports.tables import csv_of, table_of
from prunelab.studies.run import Run

SHAPE = BlockShape(hidden=4096, key_value_groups=8, queries_per_group=4, head_dim=128, channels=14336)
"""Llama-3-8B's."""
LOST = {"depth": 1.6, "width": 2.0, "hybrid": 1.3}
"""How much of the quality goes with a share of the weights, at first, under a calibrated method."""
QUESTIONS = {
    "arc_easy": (2376, 0.78, 0.25, 0.7), "arc_challenge": (1172, 0.55, 0.25, 0.9), "boolq": (3270, 0.82, 0.5, 0.6),
    "winogrande": (1267, 0.74, 0.5, 0.5), "pope": (3000, 0.87, 0.5, 1.0), "mmmu": (900, 0.43, 0.25, 1.0),
}  # fmt: skip
"""Documents, the dense model's share of right answers, the share of guessing, and how fast pruning hurts."""
SUBJECTS = {"stem": 19, "humanities": 13, "social_sciences": 12, "other": 13}
"""MMLU's."""
LOOP = "So the answer is 7 and 7 and 7 and 7 and 7 and 7 and 7 and 7 and 7 and"


@dataclass(frozen=True)
class MadeUpStudy:
    """A grid in which every figure follows from method, ratio and benchmark, with a little noise of its own.

    Args:
        folder: of the run; records and plans are written into it.
        models: their names.
        methods: pruning methods.
        ratios: shares removed.
        seeds: of random methods.
        size: of every benchmark, as a share of the real one's.
        questions: which of `QUESTIONS`.
        blocks: of every model.
    """

    folder: Path
    models: Sequence[str] = ("LLaMA-3-8B", "Gemma-2-2B")
    methods: Sequence[str] = ("shortgpt", "flap", "hybrid", "random_depth")
    ratios: Sequence[float] = (0.1, 0.2, 0.3)
    seeds: Sequence[int] = (0, 1)
    size: float = 0.05
    questions: Sequence[str] = tuple(QUESTIONS)
    blocks: int = 32
    shape: BlockShape = SHAPE
    plans: dict[tuple[Cut, int], PruningPlan] = field(default_factory=dict)

    def run(self) -> Run:
        """Make it."""
        (self.folder / "plans").mkdir(parents=True, exist_ok=True)
        made = MadeUpRun(
            self.folder, {}, {"methods": list(self.methods), "ratios": list(self.ratios), "seeds": list(self.seeds)}
        )
        for cut, seed in self.cells():
            self._plan(cut, seed)
        for model in self.models:
            for cut, seed in self.cells():
                self._measure(made, model, cut, seed)
        return made.run()

    def cells(self) -> Iterator[tuple[Cut, int]]:
        """A model's cuts and their seeds, the dense one first."""
        yield DENSE, 0
        for method in self.methods:
            for ratio in self.ratios:
                for seed in self.seeds if methods[method].is_random else self.seeds[:1]:
                    yield (method, ratio), seed

    def kept(self, cut: Cut, sensitivity: float = 1.0, what: object = "") -> float:
        """The share of the quality that a cut keeps."""
        method, ratio = cut
        if method == "dense":
            return 1.0
        draws = methods[method].is_random
        lost = (2.2 if draws else LOST[methods[method].strategy]) * ratio * sensitivity
        return max(0.0, min(1.0, 1 - lost + random.Random(f"{cut} {what}").uniform(-0.03, 0.03)))

    def _plan(self, cut: Cut, seed: int) -> None:
        """What goes: whole blocks, or a share of all, that is uneven from block to block."""
        method, ratio = cut
        if method == "dense":
            return
        chance = random.Random(f"{cut} {seed}")
        strategy, shape = methods[method].strategy, self.shape
        depth = {"depth": ratio, "width": 0.0, "hybrid": ratio / 2}[strategy]
        gone = set(chance.sample(range(1, self.blocks), round(depth * self.blocks)))
        blocks = [
            PlannedBlock(
                block=block,
                key_value_groups=_kept_units(
                    chance, shape.key_value_groups, (ratio - depth) * chance.uniform(0.5, 1.5)
                ),
                channels=_kept_units(chance, shape.channels, (ratio - depth) * chance.uniform(0.5, 1.5)),
            )
            for block in range(self.blocks)
            if block not in gone
        ]
        kept = KeptUnits(
            *(tuple(getattr(b, name) for b in blocks) for name in ("block", "key_value_groups", "channels"))
        )
        shapes = (shape,) * self.blocks
        achieved = achieved_ratio(shapes, kept)
        weights = sum(one.cost for one in shapes)
        base = BaseModelRecord(
            name=self.models[0], family="llama", fingerprint="made-up", parameters=weights, shapes=shapes
        )
        plan = PruningPlan(
            base=base, method=method, requested_ratio=ratio, achieved_ratio=achieved, share_of_model=achieved,
            blocks=tuple(blocks), compensation="none",
        )  # fmt: skip
        plan.save(self.folder / "plans" / f"{method}-{100 * ratio:g}-s{seed}.json")
        self.plans[cut, seed] = plan

    def _measure(self, made: MadeUpRun, model: str, cut: Cut, seed: int) -> None:
        plan = self.plans.get((cut, seed))
        before = len(made.measured)
        for name in self.questions:
            of, dense, chance, sensitivity = QUESTIONS[name]
            share = chance + (dense - chance) * self.kept(cut, sensitivity, (model, name, seed))
            made.questions(model, cut, name, round(share * self._n(of)), self._n(of), seed=seed, shots=0)
        self._mmlu(made, model, cut, seed)
        self._sums(made, model, cut, seed)
        followed = round(0.6 * self.kept(cut, 1.4, (model, "ifeval")) * self._n(541))
        made.instructions(model, cut, followed, self._n(541), seed)
        self._programs(made, model, cut, seed)
        depth = cut[0] != "dense" and methods[cut[0]].strategy == "depth"
        made.windows(model, cut, 1.9 + (9 if depth else 5) * cut[1], of=self._n(141), seed=seed)
        terms = self._n(320)
        pro, known = (round(share * terms) for share in (0.62 - cut[1] / 3, 0.5 + 0.42 * self.kept(cut)))
        made.stereotypes(model, cut, [pro, pro, round(0.9 * pro), pro], [known] * 4, terms, seed)
        speed = 40 * (1 + cut[1] * (1.4 if depth else 0.1))
        made.speed(model, cut, speed, seed, weight_bytes=16e9 * (1 - 0.9 * cut[1]), peak_memory_bytes=17e9)
        if plan is not None:
            own = {"plan": plan.fingerprint, "achieved_ratio": plan.achieved_ratio}
            for one in made.measured[before:]:
                one.measurements[:] = [m.model_copy(update=own) for m in one.measurements]  # type: ignore[index]

    def _n(self, of: int) -> int:
        return max(8, round(of * self.size))

    def _mmlu(self, made: MadeUpRun, model: str, cut: Cut, seed: int) -> None:
        n = self._n(14042)
        share = 0.25 + 0.4 * self.kept(cut, 1.0, (model, "mmlu", seed))
        made.questions(model, cut, "mmlu", round(share * n), n, seed=seed, shots=5)
        whole = made.measured[-1].measurements[0]
        for category, count in SUBJECTS.items():
            for group in (category, *(f"{category}/subject_{i}" for i in range(count))):
                value = max(0.0, share + random.Random(f"{group} {cut} {model}").uniform(-0.15, 0.15))
                part = whole.model_copy(update={"group": group, "value": value, "primary": False, "n": n // 57 or 1})
                made.measured[-1].measurements.append(part)  # type: ignore[attr-defined]

    def _sums(self, made: MadeUpRun, model: str, cut: Cut, seed: int) -> None:
        """GSM8K with what was written: what is wrong under pruning mostly goes round in circles."""
        n = self._n(1319)
        right = round(0.5 * self.kept(cut, 1.8, (model, "gsm8k", seed)) * n)
        rows = [
            {
                "sample": str(i), "group": "", "correct": i < right, "target": str(i),
                "text": f" That is {i}.\n#### {i}" if i < right else LOOP if i % 2 else f" No.\n#### {i + 1}",
                "prediction": str(i) if i < right else "[invalid]" if i % 2 else str(i + 1),
            }
            for i in range(n)
        ]  # fmt: skip
        value = right / n
        error = (value * (1 - value) / (n - 1)) ** 0.5
        made.add(model, cut, "gsm8k", {"exact_match": value}, pd.DataFrame(rows), error, seed, shots=5)

    def _programs(self, made: MadeUpRun, model: str, cut: Cut, seed: int) -> None:
        """HumanEval with five completions a problem."""
        n = self._n(164)
        passed = round(0.3 * self.kept(cut, 2.2, (model, "humaneval", seed)) * n)
        breaks = min(n - passed, round(0.9 * cut[1] * n))
        rows: list[dict[str, Any]] = []
        for i in range(n):
            verdict = "passed" if i < passed else "syntax_error" if i >= n - breaks else "failed"
            text = (
                "    return x"
                if verdict == "passed"
                else f"    {LOOP}"
                if verdict == "syntax_error"
                else "    return 0"
            )
            rows += [
                {
                    "sample": f"task/{i}/{c}", "problem": f"task/{i}", "completion": c, "verdict": verdict,
                    "text": text,
                    "prompt": f'def task_{i}(x):\n    """Return x, <b>whatever</b> & however."""\n',
                    "correct": verdict == "passed", "repeats": verdict == "syntax_error",
                }
                for c in range(5)
            ]  # fmt: skip
        figures = {
            "pass@1": passed / n, "pass@5": passed / n, "syntax_error": breaks / n, "timed_out": 0.0,
            "repeats": breaks / n,
        }  # fmt: skip
        made.add(model, cut, "humaneval", figures, pd.DataFrame(rows), 0.03, seed)


def _kept_units(chance: random.Random, of: int, share: float) -> tuple[int, ...]:
    gone = set(chance.sample(range(of), min(of - 1, max(0, round(share * of)))))
    return tuple(unit for unit in range(of) if unit not in gone)


def golden_study(folder: Path) -> Run:
    """The small study whose tables are kept under `tests/golden/tables`."""
    text = ("arc_easy", "arc_challenge", "boolq", "winogrande")
    return MadeUpStudy(folder, ("LLaMA-3-8B",), ratios=(0.1, 0.2), size=0.01, blocks=8, questions=text).run()


def golden_tables(run: Run) -> dict[str, str]:
    """Every table of a run's report by its file's name, but for those of times and paths."""
    sheets = [sheet for sheet in report_of(run).sheets if sheet.name not in ("cells", "seconds", "how_it_was_made")]
    tables = {f"{sheet.name}.csv": csv_of(sheet) for sheet in sheets}
    return {**tables, **{f"{sheet.name}.md": f"{table_of(sheet).markdown()}\n" for sheet in sheets}}
