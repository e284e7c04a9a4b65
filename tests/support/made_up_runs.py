"""Made-up runs whose findings are known: sample records are written, figures and paired tests follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunelab.analysis.claims.evidence import registered
from prunelab.stats.paired_tests import paired_accuracy
from prunelab.studies.comparison import Difference, adjusted
from prunelab.studies.config import study_config
from prunelab.studies.run import Measured, Run
from prunelab.studies.store import Measurement, samples_beside, slug

DENSE = ("dense", 0.0)
DOMAINS = ("gender", "profession", "race", "religion")
Cut = tuple[str, float]
"""A method and a ratio."""


@dataclass
class MadeUpRun:
    """A run in the making.

    Attributes:
        folder: where its sample records go.
        achieved: the achieved ratio of a method and ratio, where it is not the ratio itself.
    """

    folder: Path
    achieved: Mapping[Cut, float] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)

    def add(
        self,
        model: str,
        cut: Cut,
        benchmark: str,
        figures: Mapping[str, float],
        records: pd.DataFrame | None = None,
        error: float | None = None,
        seed: int = 0,
        **more: Any,
    ) -> None:
        """One benchmark of one cell; the first figure is the primary one."""
        method, ratio = cut
        dense = method == "dense"
        rows = [
            Measurement(
                model=model, method=method, ratio=ratio, achieved_ratio=self.achieved.get(cut, ratio),
                benchmark=benchmark, metric=metric, value=value, standard_error=error if index == 0 else None,
                n=1 if records is None else len(records), seed=None if dense else seed, primary=index == 0, **more,
            )
            for index, (metric, value) in enumerate(figures.items())
        ]  # fmt: skip
        path = self.folder / slug(f"{model}-{method}-{ratio}-s{seed}-{benchmark}-{more.get('shots')}.json")
        if records is not None:
            records.to_parquet(samples_beside(path))
        self.measured.append(Measured(path, rows))

    def questions(
        self,
        model: str,
        cut: Cut,
        benchmark: str,
        right: int,
        of: int = 1000,
        first: int = 0,
        shots: int | None = None,
        seed: int = 0,
    ) -> None:
        """Questions of which `right`, from the one numbered `first` on, are answered rightly."""
        correct = [first <= index < first + right for index in range(of)]
        records = pd.DataFrame(
            {"sample": [str(i) for i in range(of)], "correct": correct, "score": [float(x) for x in correct]}
        )
        known = registered(benchmark)
        share = right / of
        metric = known.primary if known is not None else "score"
        error = (share * (1 - share) / (of - 1)) ** 0.5
        self.add(model, cut, benchmark, {metric: share}, records, error, seed, shots=shots)

    def instructions(self, model: str, cut: Cut, followed: int, of: int = 400, seed: int = 0) -> None:
        """IFEval with one instruction a prompt."""
        records = pd.DataFrame(
            {
                "sample": [str(i) for i in range(of)],
                "inst_level_strict_acc": [int(i < followed) for i in range(of)],
                "parts": 1,
            }
        )
        self.add(model, cut, "ifeval", {"inst_level_strict_acc": followed / of}, records, 0.02, seed)

    def programs(
        self, model: str, cut: Cut, passed: int, of: int = 100, syntax_errors: int = 0, repeats: int = 0
    ) -> None:
        """HumanEval with one completion a problem; those that fail do so from the last problem on."""
        verdicts = [
            "passed" if i < passed else "syntax_error" if i >= of - syntax_errors else "failed" for i in range(of)
        ]
        records = pd.DataFrame(
            {
                "sample": [f"{i}/0" for i in range(of)],
                "problem": [str(i) for i in range(of)],
                "correct": [verdict == "passed" for verdict in verdicts],
                "verdict": verdicts,
                "repeats": [i >= of - repeats for i in range(of)],
            }
        )
        self.add(model, cut, "humaneval", {"pass@1": passed / of}, records, 0.02)

    def windows(self, model: str, cut: Cut, loss: float, spread: float = 0.01, of: int = 40, seed: int = 0) -> None:
        """WikiText-2 in windows of 100 tokens, whose mean losses alternate around one."""
        # The spread differs between cuts, so that differences of losses have one too.
        shift = np.resize([spread, -spread], of) * (1 + cut[1] + len(cut[0]) / 10)
        records = pd.DataFrame(
            {
                "sample": [f"window-{i}" for i in range(of)],
                "unit": "window",
                "loss_sum": 100 * (loss + shift),
                "tokens": 100,
            }
        )
        self.add(model, cut, "wikitext2", {"token_perplexity": float(np.exp(loss))}, records, seed=seed)

    def stereotypes(
        self,
        model: str,
        cut: Cut,
        stereotyped: Sequence[int],
        meaningful: Sequence[int],
        terms: int = 400,
        seed: int = 0,
    ) -> None:
        """StereoSet with one example a term: so many of each domain's terms are stereotyped, so many are understood."""
        rows = []
        for domain, pro, related in zip(DOMAINS, stereotyped, meaningful, strict=True):
            for term in range(terms):
                high, low = (-1.0, -2.0) if term < pro else (-2.0, -1.0)
                rows.append(
                    {
                        "sample": f"intrasentence/{domain}-{term}", "id": f"{domain}-{term}", "split": "intrasentence",
                        "domain": domain, "target": f"{domain}-{term}", "stereotype": high, "anti_stereotype": low,
                        # Understood are others than the first, or LMS and SS would move together.
                        "unrelated": -3.0 if (term * 7) % terms < related else 0.0,
                    }
                )  # fmt: skip
        lms, ss = (100 * sum(counts) / (4 * terms) for counts in (meaningful, stereotyped))
        figures = {"icat": lms * min(ss, 100 - ss) / 50, "lms": lms, "ss": ss}
        self.add(model, cut, "stereoset", figures, pd.DataFrame(rows), seed=seed)
        whole = self.measured[-1].measurements
        for index, domain in enumerate(DOMAINS):
            own = (100 * meaningful[index] / terms, 100 * stereotyped[index] / terms)
            parts = {"icat": own[0] * min(own[1], 100 - own[1]) / 50, "lms": own[0], "ss": own[1]}
            self.measured[-1].measurements.extend(  # type: ignore[attr-defined]
                whole[0].model_copy(update={"metric": metric, "value": value, "group": domain, "primary": False})
                for metric, value in parts.items()
            )

    def speed(self, model: str, cut: Cut, tokens_per_second: float, seed: int = 0, **more: float) -> None:
        """Throughput: a median without records."""
        self.add(model, cut, "throughput", {"decode_tokens_per_second": tokens_per_second, **more}, seed=seed)

    def run(self) -> Run:
        """The run, its cells compared with their dense models."""
        models = list(dict.fromkeys(one.primary.model for one in self.measured))
        config = study_config({"models": models or ["m"], "out": str(self.folder), **self.fields})
        pruned = [one for one in self.measured if one.primary.method != "dense"]
        by_cell = groupby(sorted(pruned, key=_cell), key=_cell)
        differences: list[Difference] = []
        for _, cell in by_cell:
            found = [self._compared(one) for one in cell]
            differences += adjusted([one for one in found if one is not None])
        return Run(self.folder, config, tuple(self.measured), tuple(differences))

    def _compared(self, pruned: Measured) -> Difference | None:
        m = pruned.primary
        wanted = (m.model, m.benchmark, m.shots)
        dense = [one for one in self.measured if one.primary.method == "dense" and _whole(one.primary) == wanted]
        if not dense or dense[0].samples is None or pruned.samples is None:
            return None
        known = registered(m.benchmark)
        if known is not None:
            comparison = known.compare(dense[0].samples, pruned.samples)
        else:
            tables = [
                one.samples.set_index("sample")["correct"] for one in (dense[0], pruned) if one.samples is not None
            ]
            comparison = paired_accuracy(tables[0], tables[1])
        return None if comparison is None else Difference(m, known is None or known.higher_is_better, comparison)


def _cell(one: Measured) -> tuple[str, str, float, int]:
    return one.primary.model, one.primary.method, one.primary.ratio, one.primary.seed or 0


def _whole(m: Measurement) -> tuple[str, str, int | None]:
    return m.model, m.benchmark, m.shots
