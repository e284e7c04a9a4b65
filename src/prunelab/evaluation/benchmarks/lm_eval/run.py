"""lm-eval's evaluator over prunelab's scorer and sampler, silent, and with progress."""

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
    """What lm-eval made of the model's answers.

    Attributes:
        figures: by task, lm-eval's aggregated metrics under their keys, such as `acc,none`.
        samples: by task, lm-eval's record of every document and filter, in order.
        tasks: by task, lm-eval's task object.
        truncated: requests that were longer than the context and lost tokens on the left.
        tokens_a_batch: tokens that went through the model at once.
        shrunk_from: what that would have been with enough memory; None where it was that.
        max_length: the context in tokens.
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
        NonFiniteValue: naming the task and the document for which the model gives NaN or infinity.
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
        found = evaluator.evaluate(
            lm,
            {"tasks": built},
            limit=settings.limit,
            bootstrap_iters=0,
            log_samples=True,
            apply_chat_template=chat_template,
            # What lm-eval's own command does with a chat template.
            fewshot_as_multiturn=chat_template,
        )
    counts = lm.statistics.values()
    worker = lm.sampler if tasks[0].generates else lm.scorer
    return Results(
        figures=found["results"],
        samples=found["samples"],
        tasks=built,
        truncated=sum(part.truncated for part in counts),
        tokens_a_batch=worker.batch_tokens,
        shrunk_from=worker.shrunk_from,
        max_length=lm.max_length,
    )


@contextmanager
def quiet() -> Iterator[None]:
    """No bars and no lines of lm-eval's or the scorer's: what matters in them is in the results' conditions."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "prunelab.inference")]
    levels = [logger.level for logger in loggers]
    bar = lm_eval.api.task.tqdm
    for logger in loggers:
        # An answer in no language that langdetect knows is an error to lm-eval: here it is an answer.
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
    """lm-eval compiles a prompt's template anew for every document and shot, 3 ms each: minutes for MMLU."""
    templates = lm_eval.utils.env
    templates.from_string = cache(templates.from_string)
    try:
        yield
    finally:
        del templates.from_string
