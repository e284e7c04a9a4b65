"""Estimated numbers of tokens of lm-eval's tasks, from a sample of their documents and without the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prunelab.evaluation.benchmarks.lm_eval.run import quiet, templates_compiled_once
from prunelab.inference.tokenization import Encoder
from prunelab.models.chat_templates import check_template, render

if TYPE_CHECKING:
    from prunelab.evaluation.benchmarks.base import EvaluationSettings
    from prunelab.evaluation.benchmarks.lm_eval.definition import PreparedTask
    from prunelab.models.metadata import ModelMetadata

SAMPLED = 32
"""Number of evenly spaced documents per task on which the estimate is based."""


def tokens_of_tasks(
    model: ModelMetadata, tasks: Sequence[PreparedTask], settings: EvaluationSettings, shots: int, chat_template: bool
) -> int:
    """Number of tokens of prompts, choices and expected answers.

    A document's prompt counts once, however many choices follow it. Shared examples count for each document, which is
    more than is computed. An answer's expected length is that of the reference answer, or the maximum if there is none.
    """
    if chat_template:
        check_template(model.path, model.tokenizer)
    with quiet(), templates_compiled_once():
        return round(sum(_tokens_of(model, task, settings, shots, chat_template) for task in tasks))


def _tokens_of(
    model: ModelMetadata, prepared: PreparedTask, settings: EvaluationSettings, shots: int, chat_template: bool
) -> float:
    task = prepared.build(shots, settings.seed, model.context_length)
    count = min(len(task.eval_docs), settings.limit or len(task.eval_docs))
    step = max(1, count // SAMPLED)
    chosen = list(range(0, count, step))[:SAMPLED]
    task.build_all_requests(
        samples=chosen,
        apply_chat_template=chat_template,
        fewshot_as_multiturn=chat_template,
        chat_template=_template(model.tokenizer) if chat_template else None,
    )
    encoder = Encoder(model.tokenizer)
    by_document: dict[int, list[Any]] = {}
    for request in task.instances:
        by_document.setdefault(request.doc_id, []).append(request)
    new_tokens = prepared.new_tokens(model.context_length) if prepared.generates else 0
    counted = sum(_tokens_of_document(encoder, task, requests, new_tokens) for requests in by_document.values())
    return counted * count / len(by_document)


def _template(tokenizer: Any) -> Any:
    def apply(chat: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return render(
            tokenizer,
            chat,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    return apply


def _tokens_of_document(encoder: Encoder, task: Any, requests: Sequence[Any], new_tokens: int) -> int:
    kind = requests[0].request_type
    if kind == "loglikelihood_rolling":
        return len(encoder.encode([requests[0].args[0]])[requests[0].args[0]])
    if kind == "generate_until":
        prompt = requests[0].args[0]
        target = task.doc_to_target(requests[0].doc)
        answer = len(encoder.encode([target], special=False)[target]) if isinstance(target, str) and target else None
        return len(encoder.encode_prompts([prompt])[prompt]) + min(new_tokens, answer or new_tokens)
    pairs = encoder.encode_pairs([request.args for request in requests])
    contexts = {tuple(context) for context, _ in pairs}
    return sum(map(len, contexts)) + sum(len(choice) for _, choice in pairs)
