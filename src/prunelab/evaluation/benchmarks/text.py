"""Perplexity of a text file, document by document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from prunelab.calibration.corpus import start_tokens
from prunelab.errors import DataError
from prunelab.evaluation.benchmarks import register_with_argument
from prunelab.evaluation.benchmarks.base import (
    Benchmark,
    Evaluation,
    EvaluationSettings,
    Progress,
    Score,
    resampled_perplexity,
    without_infinite,
)
from prunelab.inference.losses import token_losses
from prunelab.io.datasets import read_documents
from prunelab.io.fingerprint import content_hash
from prunelab.io.lazy import torch
from prunelab.stats.paired_tests import Comparison, exponential

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.models.loading import LanguageModel
    from prunelab.models.metadata import ModelMetadata


@register_with_argument("text:FILE")
class TextPerplexity(Benchmark):
    """Perplexity of a user's text or JSONL file.

    Every document is scored separately after the tokenizer's start token. A document longer than the window is split
    into windows that do not overlap, each after a start token. Without a start token a window's first token is not
    scored. A perplexity per word or byte that overflows a float, as in a text without spaces, is left out.
    """

    title: ClassVar[str] = "perplexity of a text or JSONL file, each document on its own"
    primary: ClassVar[str] = "token_perplexity"
    higher_is_better: ClassVar[bool] = False
    scores_likelihoods: ClassVar[bool] = True

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.name = f"text:{self.path.name}"

    @classmethod
    def from_argument(cls, argument: str) -> TextPerplexity:
        """`text:FILE`."""
        return cls(argument)

    def check(self, settings: EvaluationSettings) -> None:
        """Check that the file contains documents."""
        read_documents(self.path)

    def compare(self, dense: pd.DataFrame, pruned: pd.DataFrame) -> Comparison | None:
        """Paired bootstrap over documents; None if a perplexity overflows."""
        return resampled_perplexity(dense, pruned)

    def expected_tokens(self, model: ModelMetadata, settings: EvaluationSettings) -> int:
        """Number of tokens in all windows."""
        window = min(settings.window, model.context_length)
        documents = read_documents(self.path)[: settings.limit]
        return sum(ids.numel() for document in documents for ids in _windows(model.tokenizer, document, window))

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """Hash of the documents, the window and the limit."""
        data = content_hash({"documents": read_documents(self.path)})
        return {"data": data, "window": settings.window, "limit": settings.limit}

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Score every document."""
        window = min(settings.window, model.context_length)
        documents = read_documents(self.path)[: settings.limit]
        samples: list[dict[str, Any]] = []
        for index, document in enumerate(documents):
            losses = [token_losses(model, ids).double() for ids in _windows(model.tokenizer, document, window)]
            samples.append(
                {
                    "sample": str(index),
                    "loss_sum": sum(loss.sum().item() for loss in losses),
                    "tokens": sum(loss.numel() for loss in losses),
                    "words": len(document.split()),
                    "bytes": len(document.encode()),
                }
            )
            if progress is not None:
                progress(index + 1, len(documents))
        total = {key: sum(sample[key] for sample in samples) for key in ("loss_sum", "tokens", "words", "bytes")}
        if not total["tokens"]:
            raise DataError(f"{self.path} has 0 tokens to predict: give documents of at least 2 tokens")
        scores, infinite = without_infinite(
            [
                Score(f"{unit}_perplexity", exponential(total["loss_sum"] / max(total[f"{unit}s"], 1)), len(samples))
                for unit in ("token", "word", "byte")
            ]
        )
        return Evaluation(scores, samples, {"window": window, "split": "file", **infinite})


def _windows(tokenizer: Any, document: str, window: int) -> Iterator[torch.Tensor]:
    """The document's windows, one row each, beginning with the start token."""
    start = start_tokens(tokenizer)
    ids = tokenizer(document, add_special_tokens=False, verbose=False).input_ids
    for part in torch.tensor(ids, dtype=torch.long).split(window - len(start)):
        row = torch.cat([torch.tensor(start, dtype=torch.long), part])
        if len(row) > 1:
            yield row[None]
