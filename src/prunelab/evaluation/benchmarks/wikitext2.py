"""WikiText-2 perplexity (Merity et al. 2016), as in the pruning literature and as in lm-eval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from prunelab.calibration.corpus import WIKITEXT2, start_tokens
from prunelab.errors import InvalidRequest
from prunelab.evaluation.benchmarks import register
from prunelab.evaluation.benchmarks.base import (
    Benchmark,
    Evaluation,
    EvaluationSettings,
    Progress,
    Score,
    resampled_perplexity,
    without_infinite,
)
from prunelab.evaluation.benchmarks.lm_eval.definition import Definition, PreparedTask, prepare
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric, Record, task_scores
from prunelab.inference.losses import TOKENS_A_BATCH, token_losses
from prunelab.io.data_rows import Row, TextRow, Words, require_rows
from prunelab.io.fingerprint import content_hash
from prunelab.io.lazy import torch
from prunelab.models.tokenizer_validation import require_start
from prunelab.stats.paired_tests import Comparison, exponential

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.io.datasets import Source
    from prunelab.models.loading import LanguageModel
    from prunelab.models.metadata import ModelMetadata


class PageRow(Row):
    """A page."""

    page: Words


PAGES = Definition("wikitext/wikitext.yaml", PageRow, "--benchmark wikitext2")
PAGE_METRICS = (
    Metric("word_perplexity", "word_perplexity,none", "perplexity"),
    Metric("byte_perplexity", "byte_perplexity,none", "perplexity"),
)


@register
class WikiText2(Benchmark):
    """Perplexity of the test split, per token in windows that do not overlap, per word and per byte by page.

    `token_perplexity`, as in the literature: the lines are joined by blank lines, the text is split into windows of a
    given length (usually 2048; limited by the model's context), the remainder is dropped, and the mean loss over
    windows is exponentiated. Each window is scored separately; its first token is not scored. Gemma's windows begin
    with the start token, without which the model fails; other models' windows do not, as in the literature.

    `word_perplexity` and `byte_perplexity`, as in lm-eval's `wikitext`: every page's log-likelihood in windows of the
    context length, each conditioned on the token before it, divided by the words or bytes of the page before
    detokenisation. Unlike `token_perplexity`, they are comparable between models with different vocabularies. Values
    that overflow a float are left out.
    """

    name = "wikitext2"
    title: ClassVar[str] = "WikiText-2: perplexity per token, word and byte"
    version: ClassVar[int] = 2
    primary: ClassVar[str] = "token_perplexity"
    higher_is_better: ClassVar[bool] = False
    scores_likelihoods: ClassVar[bool] = True

    def sources(self) -> Sequence[Source]:
        """The text as lines and as pages."""
        return [WIKITEXT2, PAGES.source]

    def check(self, settings: EvaluationSettings) -> None:
        """Check that the test split exists, as lines and as pages."""
        self._text(settings.datasets_root)
        self._pages(settings)

    def _text(self, root: Path | None) -> str:
        lines = WIKITEXT2.load("test", root)
        require_rows(WIKITEXT2, "test", lines, TextRow)
        return "\n\n".join(lines["text"][:])  # slice into a list: iterating over the column is slow

    def _pages(self, settings: EvaluationSettings) -> PreparedTask:
        return prepare(PAGES, settings.datasets_root)

    def check_tokenizer(self, name: str, tokenizer: Any, settings: EvaluationSettings) -> None:
        """Check that the tokenizer has a start token."""
        require_start(name, tokenizer, "WikiText-2 needs one before every page")

    def compare(self, dense: pd.DataFrame, pruned: pd.DataFrame) -> Comparison | None:
        """Paired bootstrap over windows; None if a perplexity overflows."""
        return resampled_perplexity(dense[dense["unit"] == "window"], pruned[pruned["unit"] == "window"])

    def expected_tokens(self, model: ModelMetadata, settings: EvaluationSettings) -> int:
        """Tokens of all windows and pages."""
        # Imported here because it imports lm-eval.
        from prunelab.evaluation.benchmarks.lm_eval.cost import tokens_of_tasks

        window = min(settings.window, model.context_length)
        ids = model.tokenizer(self._text(settings.datasets_root), add_special_tokens=False, verbose=False).input_ids
        windows = min(len(ids) // window, settings.limit or len(ids))
        return windows * window + tokens_of_tasks(model, [self._pages(settings)], settings, 0, False)

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """Hash of the text, the window, the limit, and lm-eval's definition."""
        pages = self._pages(settings)
        return {
            "data": content_hash({"text": self._text(settings.datasets_root), "pages": pages.fingerprint}),
            "definition": [version("lm-eval"), pages.version],
            "window": settings.window,
            "limit": settings.limit,
            "tokens_a_batch": settings.tokens_a_batch,
        }

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Score every window, then every page; a limit applies to each."""
        score, windows, window = self._score_windows(model, settings)
        scores, pages, conditions = self._score_pages(model, settings, progress)
        kept, infinite = without_infinite([score, *scores])
        return Evaluation(kept, windows + pages, {"window": window, "split": "test", **conditions, **infinite})

    def _score_windows(self, model: LanguageModel, settings: EvaluationSettings) -> tuple[Score, list[Record], int]:
        window = min(settings.window, model.context_length)
        start = start_tokens(model.tokenizer) if model.decoder.family.needs_start_token else []
        ids = model.tokenizer(self._text(settings.datasets_root), add_special_tokens=False, verbose=False).input_ids
        length = window - len(start)
        count = min(len(ids) // length, settings.limit or len(ids))
        if count == 0:
            raise InvalidRequest(
                f"WikiText-2 has {len(ids)} tokens, fewer than one window of {window}: give a smaller --window"
            )
        windows = torch.tensor(ids[: count * length]).reshape(count, length)
        windows = torch.cat([torch.tensor(start, dtype=torch.long).expand(count, -1), windows], dim=1)
        losses = token_losses(model, windows, settings.tokens_a_batch or TOKENS_A_BATCH).double().mean(dim=1)
        value = exponential(losses.mean().item())
        # The delta method: the error of the mean loss, times the derivative of its exponential.
        error = losses.std().item() / math.sqrt(count) * value if count > 1 and math.isfinite(value) else None
        samples: list[Record] = [
            {"sample": f"window-{index}", "unit": "window", "loss_sum": loss * (window - 1), "tokens": window - 1}
            for index, loss in enumerate(losses.tolist())
        ]
        return Score("token_perplexity", value, count, error), samples, window

    def _score_pages(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None
    ) -> tuple[list[Score], list[Record], dict[str, Any]]:
        # Imported here because it imports lm-eval.
        from prunelab.evaluation.benchmarks.lm_eval.run import run_tasks

        task = self._pages(settings)
        results = run_tasks(model, [task], settings, shots=0, chat_template=False, progress=progress)
        page_samples = results.samples[task.name]
        samples: list[Record] = [
            {
                "sample": f"page-{sample['doc_id']}",
                "unit": "page",
                "loss_sum": -sample["word_perplexity"][0],
                "words": sample["word_perplexity"][1],
                "bytes": sample["byte_perplexity"][1],
            }
            for sample in page_samples
        ]
        conditions = {
            "page_window": results.max_length,
            "tokens_a_batch": results.tokens_a_batch,
            "definition": f"lm-eval {version('lm-eval')} {task.name} {task.version}",
        }
        return task_scores(PAGE_METRICS, results.figures[task.name], page_samples), samples, conditions
