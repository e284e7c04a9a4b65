"""From lm-eval's results to typed scores with standard errors, and to one record a sample."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

from prunelab.evaluation.benchmarks.base import LARGEST_LOSS, Score
from prunelab.evaluation.metrics.repetition import repeats_itself
from prunelab.stats.paired_tests import perplexity, ratio, standard_error

Samples = Sequence[Mapping[str, Any]]
Record = dict[str, Any]


@dataclass(frozen=True)
class Metric:
    """One of a task's metrics.

    Attributes:
        name: what results call it.
        key: what lm-eval's results call it: its name and its filter.
        kind: what is averaged: documents that are right; parts of documents that are right; log-likelihoods.
    """

    name: str
    key: str
    kind: Literal["share", "share_of_parts", "perplexity"] = "share"

    @property
    def value_key(self) -> str:
        """Its name in a sample's record."""
        return self.key.split(",")[0]

    @property
    def filter(self) -> str:
        """Which reading of the model's answer it judges."""
        return self.key.split(",")[1]

    def values(self, samples: Samples) -> list[Any]:
        """Its value for every document."""
        return [sample[self.value_key] for sample in samples if sample["filter"] == self.filter]


def task_scores(
    metrics: Iterable[Metric], figures: Mapping[str, Any], samples: Samples, group: str = ""
) -> list[Score]:
    """A task's figures, which are lm-eval's, with standard errors.

    Of a share of documents the error is lm-eval's: the sample standard deviation (n - 1) over the root of n. For a
    share of parts and for a perplexity documents are resampled, parts and words of one document being dependent.
    """
    return [_score(metric, float(figures[metric.key]), metric.values(samples), group) for metric in metrics]


def _score(metric: Metric, value: float, values: Sequence[Any], group: str) -> Score:
    if metric.kind == "share":
        return Score(metric.name, value, len(values), share_error(value, len(values)), group)
    if metric.kind == "share_of_parts":
        error = standard_error([(sum(parts), len(parts)) for parts in values], ratio)
        return Score(metric.name, value, sum(map(len, values)), error, group)
    small = all(-log_likelihood <= LARGEST_LOSS * count for log_likelihood, count in values)
    units = [(-log_likelihood, count) for log_likelihood, count in values]
    error = standard_error(units, perplexity) if small else None
    return Score(metric.name, value, len(values), error, group)


def share_error(share: float, n: int) -> float | None:
    """Standard error of a share of n documents; None for a single one."""
    return math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None


def pooled(scores: Sequence[Score], group: str = "") -> Score:
    """Several tasks' score in one metric, every document counting alike, as lm-eval's `weight_by_size`.

    The error is that of lm-eval's `pooled_sample_stderr`: the tasks are strata, whose variances are pooled.
    """
    n = sum(score.n for score in scores)
    value = sum(score.value * score.n for score in scores) / n
    freedom = n - len(scores)
    error = None
    if freedom > 0:
        squares = sum((s.n - 1) * s.n * (s.standard_error or 0.0) ** 2 for s in scores)
        error = math.sqrt(squares / freedom / n)
    return Score(scores[0].metric, value, n, error, group)


def with_groups(by_group: Mapping[str, Sequence[Score]]) -> list[Score]:
    """All tasks' scores behind those of their categories and of the whole.

    Args:
        by_group: each task's scores in the same order of metrics, under `category/task`.
    """
    columns = list(zip(*by_group.values(), strict=True))
    categories = sorted({group.split("/")[0] for group in by_group})
    scores = [pooled(column) for column in columns]
    for category in categories:
        scores += [pooled([s for s in c if s.group.startswith(f"{category}/")], category) for c in columns]
    return scores + [score for column in columns for score in column]


def records(samples: Samples, task: Any, metrics: Sequence[Metric], group: str = "") -> list[Record]:
    """One record a document: what was asked, what the model made of it, and whether that is right.

    `sample` names the document, the same one for every model and limit; `correct` is the first metric's verdict.
    """
    by_document: dict[int, dict[str, Mapping[str, Any]]] = {}
    for sample in samples:
        by_document.setdefault(sample["doc_id"], {})[sample["filter"]] = sample
    return [
        {
            "sample": f"{group}/{document}" if group else str(document),
            "group": group,
            "prompt_hash": by_filter[metrics[0].filter]["prompt_hash"],
            **_answer(by_filter[metrics[0].filter], task),
            **_verdicts(by_filter, metrics),
        }
        for document, by_filter in by_document.items()
    ]


def _answer(sample: Mapping[str, Any], task: Any) -> Record:
    if task.OUTPUT_TYPE == "multiple_choice":
        scores = [log_likelihood for log_likelihood, _ in sample["filtered_resps"]]
        # Where every choice has a prompt of its own, lm-eval's `target` is the text that follows them all.
        target = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
        return {"scores": scores, "prediction": scores.index(max(scores)), "target": int(target)}
    written = sample["resps"][0][0]
    text: Record = {"text": written, "repeats": repeats_itself(written)}
    if sample["filter"] == "none":
        return text
    return {**text, "prediction": str(sample["filtered_resps"][0]), "target": str(sample["target"])}


def _verdicts(by_filter: Mapping[str, Mapping[str, Any]], metrics: Sequence[Metric]) -> Record:
    verdicts: Record = {}
    for metric in metrics:
        value = by_filter[metric.filter][metric.value_key]
        if metric.kind == "share_of_parts":
            verdicts |= {metric.name: sum(value), "parts": len(value)}
        else:
            verdicts[metric.name] = bool(value)
    first = by_filter[metrics[0].filter][metrics[0].value_key]
    return {**verdicts, "correct": all(first) if isinstance(first, list) else bool(first)}


def chance_of(samples: Sequence[Record]) -> float:
    """Accuracy of guessing: the mean over documents of one over the number of choices."""
    return fmean(1 / len(sample["scores"]) for sample in samples)
