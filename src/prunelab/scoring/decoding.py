"""Rows of a batch written token by token, each leaving when it is finished."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from prunelab.errors import NonFiniteValue
from prunelab.scoring.cache import DecodingCache, PrefixCache
from prunelab.scoring.memory import SATURATION
from prunelab.scoring.packing import PackedRow, make_batch
from prunelab.scoring.running import TreeRunner
from prunelab.scoring.sampling import SamplingSettings, choose, uniform

FinishReason = Literal["stop", "length"]


@dataclass(eq=False)
class DecodingRow:
    """A completion being written.

    Attributes:
        owners: who gets it, as (prompt, completion) numbers: in greedy decoding, all completions of a prompt.
        document: names it in errors and in the keys of its random numbers.
        source: which prompt of the batch it continues.
        length: tokens of that prompt.
        tokens: written so far.
    """

    owners: list[tuple[int, int]]
    document: str
    source: int
    length: int
    tokens: list[int] = field(default_factory=list)


class Decoder:
    """Completes batches of prompts."""

    def __init__(self, runner: TreeRunner, tokenizer: Any, eos_token_ids: frozenset[int], seed: int) -> None:
        """Take what is the same for every batch."""
        self.runner = runner
        self.tokenizer = tokenizer
        self.eos_token_ids = eos_token_ids
        self.seed = seed

    def decode(
        self,
        rows: list[DecodingRow],
        prompts: Sequence[PackedRow],
        prefix: PrefixCache,
        settings: SamplingSettings,
    ) -> Iterator[tuple[DecodingRow, FinishReason]]:
        """Write `rows`, which continue `prompts` behind a frozen prefix, and yield each as it finishes.

        Raises:
            NonFiniteValue: the model computed NaN or infinity for a document, which the message names.
        """
        device = self.runner.device
        sources = torch.tensor([row.source for row in rows], device=device)
        logits, recorded = self._prefill(prompts, prefix)
        logits = logits[sources]
        columns = prefix.length + max(len(prompt) for prompt in prompts)
        cache = DecodingCache(recorded, sources, columns)
        keys = torch.arange(columns, device=device).repeat(len(rows), 1)
        keys[keys >= torch.tensor([[row.length] for row in rows], device=device)] = -1
        while True:
            self._append(rows, logits, settings)
            reasons = self._finish_reasons(rows, settings)
            yield from ((row, reason) for row, reason in zip(rows, reasons, strict=True) if reason)
            alive = [i for i, reason in enumerate(reasons) if reason is None]
            if not alive:
                return
            if len(alive) < len(rows):
                index = torch.tensor(alive, device=device)
                cache.keep(index)
                keys, rows = keys[index], [rows[i] for i in alive]
            positions = [row.length + len(row.tokens) - 1 for row in rows]
            depths = torch.tensor(positions, device=device)[:, None]
            keys = torch.cat([keys, depths], dim=1)
            ids = torch.tensor([row.tokens[-1:] for row in rows], device=device)
            logits = self.runner.decode(ids, depths, keys, max(positions), cache)

    def _prefill(self, prompts: Sequence[PackedRow], prefix: PrefixCache) -> tuple[torch.Tensor, list[PrefixCache]]:
        """Logits behind each prompt, (prompts, vocabulary), and caches that recorded the prompts' keys."""
        device = self.runner.device
        width = max(len(prompt) for prompt in prompts)
        chunk = max(1, SATURATION[device.type] // width)
        logits, recorded = [], []
        for start in range(0, len(prompts), chunk):
            recorded.append(prefix.recording())
            batch = make_batch(prompts[start : start + chunk], prefix.length, device, width)
            logits.append(self.runner.forward(batch, recorded[-1]))
        return torch.cat(logits), recorded

    def _append(self, rows: list[DecodingRow], logits: torch.Tensor, settings: SamplingSettings) -> None:
        """Choose each row's next token from logits (rows, vocabulary)."""
        step = len(rows[0].tokens)
        numbers = [uniform(self.seed, row.document, row.owners[0][1], step) for row in rows]
        uniforms = torch.tensor(numbers, dtype=torch.float64)
        finite = logits.sum(-1, dtype=torch.float32).isfinite()
        chosen = choose(logits, settings, uniforms).where(finite, -1).tolist()
        for row, token in zip(rows, chosen, strict=True):
            if token < 0:
                raise NonFiniteValue(
                    f"{row.document}: the model's logits hold NaN or infinity after {step} generated tokens; "
                    "they must be finite: generate in float32 or bfloat16, or prune less"
                )
            row.tokens.append(token)

    def _finish_reasons(self, rows: list[DecodingRow], settings: SamplingSettings) -> list[FinishReason | None]:
        """Why each row ends with its last token, None where it goes on."""
        stopped = [row.tokens[-1] in self.eos_token_ids for row in rows]
        stops = [stop for stop in settings.stop if stop]
        if stops:
            # A token is at least a byte; the two before it may join with it when decoded.
            tail = max(len(stop.encode()) for stop in stops) + 2
            for i, text in enumerate(self.tokenizer.batch_decode([row.tokens[-tail:] for row in rows])):
                stopped[i] |= any(stop in text for stop in stops)
        full = len(rows[0].tokens) == settings.max_new_tokens
        return ["stop" if stop else "length" if full else None for stop in stopped]
