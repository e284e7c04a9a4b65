"""Generated completions, stored before they are judged, so that they are never generated twice."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunelab.errors import DataError
from prunelab.inference import Completion, Prompt, Sampler, SamplingSettings
from prunelab.io.atomic_write import write_text
from prunelab.io.fingerprint import content_hash
from prunelab.io.structured import read_json_object

if TYPE_CHECKING:
    from prunelab.evaluation.benchmarks.base import Benchmark, EvaluationSettings, Progress
    from prunelab.models.loading import LanguageModel


@dataclass(frozen=True)
class WorkspaceCompletions:
    """The completions of all prompts.

    Attributes:
        completions: in the order of the prompts, then of their completion numbers.
        tokens_a_batch: tokens per batch.
        shrunk_from: tokens per batch with enough memory; None if it was not reduced.
    """

    completions: Sequence[Completion]
    tokens_a_batch: int | None
    shrunk_from: int | None = None


def generated(
    benchmark: Benchmark,
    model: LanguageModel,
    prompts: Sequence[Prompt],
    sampling: SamplingSettings,
    settings: EvaluationSettings,
    progress: Progress,
) -> WorkspaceCompletions:
    """The completions of every prompt; read from the workspace if this model has generated exactly these before.

    Raises:
        NonFiniteValue: the model's logits for a document are NaN or infinite; the message names the document.
    """
    sampler = Sampler(
        model.model,
        model.tokenizer,
        max_length=model.context_length,
        batch_tokens=settings.tokens_a_batch,
        seed=settings.seed,
    )
    path = _path(benchmark, model, prompts, sampling, settings, sampler)
    total = sum(len(prompt.completions) for prompt in prompts)
    if path is not None and (kept := kept_completions(path)) is not None:
        progress(total, total)
        return kept
    completions: dict[tuple[str, int], Completion] = {}
    for completion in sampler.stream(prompts, sampling):
        completions[completion.document, completion.completion] = completion
        progress(len(completions), total)
    ordered = [completions[prompt.document, number] for prompt in prompts for number in prompt.completions]
    generation = WorkspaceCompletions(ordered, sampler.batch_tokens, sampler.shrunk_from)
    if path is not None:
        keep_completions(path, generation)
    return generation


def _path(
    benchmark: Benchmark,
    model: LanguageModel,
    prompts: Sequence[Prompt],
    sampling: SamplingSettings,
    settings: EvaluationSettings,
    sampler: Sampler,
) -> Path | None:
    """The completions' file, named by a hash of all that determines them; None without a workspace."""
    if settings.workspace is None:
        return None
    key = content_hash(
        {
            "model": [model.fingerprint, model.dtype, model.context_length],
            "version": benchmark.version,
            "prompts": [asdict(prompt) for prompt in prompts],
            "sampling": asdict(sampling),
            "end_tokens": sorted(sampler.eos_token_ids),
            "decoded": "behind the prompt",  # completions stored before this key may lack a space
            "seed": settings.seed,
            "tokens_a_batch": settings.tokens_a_batch,
        }
    )
    return settings.workspace / f"{benchmark.name}-{key}.json"


def keep_completions(path: Path, generation: WorkspaceCompletions) -> None:
    """Write completions with their hash; they are kept until the benchmark's measurements are written."""
    fields = json.loads(json.dumps(asdict(generation)))
    write_text(path, json.dumps({**fields, "hash": content_hash(fields)}) + "\n")


def kept_completions(path: Path) -> WorkspaceCompletions | None:
    """The completions in a file; None if the file is missing, damaged or was changed."""
    try:
        if not path.exists():
            return None
        fields = read_json_object(path)
        if fields.pop("hash", None) != content_hash(fields):
            raise DataError("it was changed after it was written")
        return WorkspaceCompletions(
            [Completion(**completion) for completion in fields["completions"]],
            fields["tokens_a_batch"],
            fields.get("shrunk_from"),
        )
    except (DataError, KeyError, TypeError):
        warnings.warn(f"{path} is damaged: generating its completions again", UserWarning, stacklevel=3)
        return None
