"""WikiText-2 perplexity (Merity et al. 2016), the way the pruning literature reports it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch

from prunelab.benchmarks import register
from prunelab.benchmarks.base import Benchmark, Evaluation, EvaluationSettings, Progress, Score
from prunelab.calibration.corpus import WIKITEXT2, start_tokens
from prunelab.errors import InvalidRequest
from prunelab.fingerprint import content_hash
from prunelab.loading import LanguageModel
from prunelab.losses import token_losses


@register
class WikiText2(Benchmark):
    """Perplexity of the test split in windows that do not overlap.

    The lines are joined by blank lines, the text is cut into windows of a stated length (the field's usual one is 2048;
    it is cut to the model's context), a rest is left out, and the mean loss over windows is exponentiated. Each window
    is scored by itself; its first token is not scored. Gemma's windows begin with the start token, without which the
    model is unusable; for all other models nothing is put in front, as in the literature.
    """

    name = "wikitext2"
    title: ClassVar[str] = "WikiText-2: perplexity"
    primary: ClassVar[str] = "token_perplexity"
    higher_is_better: ClassVar[bool] = False

    def check(self, settings: EvaluationSettings) -> None:
        """The test split must be there."""
        self._text(settings)

    def _text(self, settings: EvaluationSettings) -> str:
        return "\n\n".join(WIKITEXT2.load("test", settings.datasets_root)["text"])

    def identity(self, settings: EvaluationSettings) -> dict[str, Any]:
        """The text, the window and the limit."""
        data = content_hash({"text": self._text(settings)})
        return {"data": data, "window": settings.window, "limit": settings.limit}

    def evaluate(
        self, model: LanguageModel, settings: EvaluationSettings, progress: Progress | None = None
    ) -> Evaluation:
        """Score every window."""
        window = min(settings.window, model.context_length)
        start = start_tokens(model.tokenizer) if model.decoder.family.needs_start_token else []
        ids = model.tokenizer(self._text(settings), add_special_tokens=False, verbose=False).input_ids
        length = window - len(start)
        count = min(len(ids) // length, settings.limit or len(ids))
        if count == 0:
            raise InvalidRequest(
                f"WikiText-2 has {len(ids)} tokens, not one window of {window}: give a smaller one"
            )
        windows = torch.tensor(ids[: count * length]).reshape(count, length)
        windows = torch.cat([torch.tensor(start, dtype=torch.long).expand(count, -1), windows], dim=1)
        losses = token_losses(model, windows).double().mean(dim=1)
        perplexity = math.exp(losses.mean().item())
        error = losses.std().item() / math.sqrt(count) * perplexity if count > 1 else None
        return Evaluation(
            scores=[Score("token_perplexity", perplexity, count, error)],
            samples=[
                {"sample": str(index), "loss_sum": loss * (window - 1), "tokens": window - 1}
                for index, loss in enumerate(losses.tolist())
            ],
            conditions={"window": window, "split": "test"},
        )
