"""What a model writes for a benchmark, kept before it is judged, so that it is never generated twice."""

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
    """What the model wrote.

    Attributes:
        completions: by prompt, then by number.
        tokens_a_batch: tokens that went through the model at once.
        shrunk_from: what that would have been with enough memory; None where it was that.
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
    """The completions of every prompt, from the workspace where this model has written just these before.

    Raises:
        NonFiniteValue: naming the document for which the model gives NaN or infinity.
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
    found: dict[tuple[str, int], Completion] = {}
    for completion in sampler.stream(prompts, sampling):
        found[completion.document, completion.completion] = completion
        progress(len(found), total)
    ordered = [found[prompt.document, number] for prompt in prompts for number in prompt.completions]
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
    """Where the completions are kept, named by all that decides them; None without a workspace."""
    if settings.workspace is None:
        return None
    key = content_hash(
        {
            "model": [model.fingerprint, model.dtype, model.context_length],
            "version": benchmark.version,
            "prompts": [asdict(prompt) for prompt in prompts],
            "sampling": asdict(sampling),
            "end_tokens": sorted(sampler.eos_token_ids),
            "decoded": "behind the prompt",  # completions kept before that may lack a space
            "seed": settings.seed,
            "tokens_a_batch": settings.tokens_a_batch,
        }
    )
    return settings.workspace / f"{benchmark.name}-{key}.json"


def keep_completions(path: Path, generation: WorkspaceCompletions) -> None:
    """Write what a model wrote, with its hash, until the benchmark's measurements are written."""
    fields = json.loads(json.dumps(asdict(generation)))
    write_text(path, json.dumps({**fields, "hash": content_hash(fields)}) + "\n")


def kept_completions(path: Path) -> WorkspaceCompletions | None:
    """The completions in a file; None where there is none, or one that was changed, which is then written anew."""
    try:
        if not path.exists():
            return None
        fields = read_json_object(path)
        if fields.pop("hash", None) != content_hash(fields):
            raise DataError("it was changed after it was written")
        return WorkspaceCompletions(
            [Completion(**one) for one in fields["completions"]], fields["tokens_a_batch"], fields.get("shrunk_from")
        )
    except (DataError, KeyError, TypeError):
        warnings.warn(f"{path} is damaged: its completions are generated anew", UserWarning, stacklevel=3)
        return None
