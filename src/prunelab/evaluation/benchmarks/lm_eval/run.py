"""lm-eval's evaluator on prunelab's scorer and sampler, without output and with progress."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import lm_eval.api.task
import lm_eval.utils
from lm_eval import evaluator

from prunelab.inference.lm_eval_adapter import PrunelabLM
from prunelab.inference.make_scorer import make_scorer

if TYPE_CHECKING:
    from prunelab.evaluation.benchmarks.base import EvaluationSettings, Progress
    from prunelab.evaluation.benchmarks.lm_eval.definition import PreparedTask
    from prunelab.models.loading import LanguageModel


@dataclass(frozen=True)
class Results:
    """Results of lm-eval's evaluator.

    Attributes:
        figures: by task, lm-eval's aggregated metrics by their keys, such as `acc,none`.
        samples: by task, lm-eval's record of every document and filter, in order.
        tasks: by task, lm-eval's task object.
        truncated: number of requests longer than the context, which were truncated on the left.
        tokens_a_batch: tokens per batch.
        shrunk_from: tokens per batch with enough memory; None if it was not reduced.
        max_length: context length in tokens.
    """

    figures: Mapping[str, Mapping[str, Any]]
    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    tasks: Mapping[str, Any]
    truncated: int
    tokens_a_batch: int | None
    shrunk_from: int | None
    max_length: int


def run_tasks(
    model: LanguageModel,
    tasks: Sequence[PreparedTask],
    settings: EvaluationSettings,
    *,
    shots: int,
    chat_template: bool,
    progress: Progress | None = None,
) -> Results:
    """Evaluate a model on tasks.

    Raises:
        NonFiniteValue: the model's logits are NaN or infinite; the message names the task and the document.
    """
    with quiet(), templates_compiled_once():
        built = {task.name: task.build(shots, settings.seed, model.context_length) for task in tasks}
        lm = PrunelabLM(
            model.model,
            model.tokenizer,
            batch_tokens=settings.tokens_a_batch,
            max_length=model.context_length,
            seed=settings.seed,
            progress=progress,
            scorer=make_scorer(model, max_length=model.context_length, batch_tokens=settings.tokens_a_batch),
        )
        evaluated = evaluator.evaluate(
            lm,
            {"tasks": built},
            limit=settings.limit,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=chat_template,
            # As lm-eval's command does with a chat template.
            fewshot_as_multiturn=chat_template,
        )
    counts = lm.statistics.values()
    worker = lm.sampler if tasks[0].generates else lm.scorer
    return Results(
        figures=evaluated["results"],
        samples=evaluated["samples"],
        tasks=built,
        truncated=sum(part.truncated for part in counts),
        tokens_a_batch=worker.batch_tokens,
        shrunk_from=worker.shrunk_from,
        max_length=lm.max_length,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence lm-eval and the scorer: the relevant counts are in the results' conditions."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "prunelab.inference")]
    levels = [logger.level for logger in loggers]
    bar = lm_eval.api.task.tqdm
    for logger in loggers:
        # lm-eval logs an error for an answer whose language langdetect does not recognise.
        logger.setLevel(logging.CRITICAL)
    lm_eval.api.task.tqdm = lambda documents, **_: documents
    try:
        yield
    finally:
        lm_eval.api.task.tqdm = bar
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def templates_compiled_once() -> Iterator[None]:
    """Cache lm-eval's prompt templates, which it compiles for every document and shot (3 ms each: minutes for MMLU)."""
    templates = lm_eval.utils.env
    templates.from_string = cache(templates.from_string)
    try:
        yield
    finally:
        del templates.from_string
