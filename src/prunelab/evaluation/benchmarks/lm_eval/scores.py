"""Typed scores with standard errors, and one record per sample, from lm-eval's results."""

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
    """One metric of a task.

    Attributes:
        name: name in prunelab's results.
        key: key in lm-eval's results: name and filter.
        kind: averaged quantity: correct documents, correct parts of documents, or log-likelihoods.
    """

    name: str
    key: str
    kind: Literal["share", "share_of_parts", "perplexity"] = "share"

    @property
    def value_key(self) -> str:
        """The metric's key in a sample's record."""
        return self.key.split(",")[0]

    @property
    def filter(self) -> str:
        """The filter of the model's answer that the metric uses."""
        return self.key.split(",")[1]

    def values(self, samples: Samples) -> list[Any]:
        """The metric's value for every document."""
        return [sample[self.value_key] for sample in samples if sample["filter"] == self.filter]


def task_scores(
    metrics: Iterable[Metric], figures: Mapping[str, Any], samples: Samples, group: str = ""
) -> list[Score]:
    """A task's metric values, as computed by lm-eval, with standard errors.

    The error of a share of documents is lm-eval's: the sample standard deviation (n - 1) divided by the root of n. For
    a share of parts and for a perplexity documents are resampled, since parts and words of one document are dependent.
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
    """Standard error of a share of n documents; None for a single document."""
    return math.sqrt(share * (1 - share) / (n - 1)) if n > 1 else None


def pooled(scores: Sequence[Score], group: str = "") -> Score:
    """Several tasks' score of one metric with equal weights per document, as lm-eval's `weight_by_size`.

    The error is that of lm-eval's `pooled_sample_stderr`: tasks are strata whose variances are pooled.
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
    """Scores of the total, of categories, and of all tasks, in this order.

    Args:
        by_group: each task's scores by `category/task`, in the same order of metrics.
    """
    columns = list(zip(*by_group.values(), strict=True))
    categories = sorted({group.split("/")[0] for group in by_group})
    scores = [pooled(column) for column in columns]
    for category in categories:
        scores += [pooled([s for s in c if s.group.startswith(f"{category}/")], category) for c in columns]
    return scores + [score for column in columns for score in column]


def records(samples: Samples, task: Any, metrics: Sequence[Metric], group: str = "") -> list[Record]:
    """One record per document: prompt hash, answer, and verdict.

    `sample` identifies the document, independent of model and limit; `correct` is the first metric's verdict.
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
        # If every choice has its own prompt, lm-eval's `target` is the text that follows all of them.
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
    """Accuracy of random guesses: the mean over documents of the reciprocal number of choices."""
    return fmean(1 / len(sample["scores"]) for sample in samples)
