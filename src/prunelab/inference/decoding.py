"""Batched decoding, token by token: finished rows leave the batch, and waiting prompts take their places."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from prunelab.errors import NonFiniteValue
from prunelab.inference.batch_memory import SATURATION
from prunelab.inference.continuation import last_text
from prunelab.inference.packing import PackedRow, make_batch
from prunelab.inference.sampling import SamplingSettings, choose, uniform
from prunelab.io.lazy import torch

if TYPE_CHECKING:
    from prunelab.inference.kv_cache import DecodingCache, PrefixCache
    from prunelab.inference.runner import TreeRunner

FinishReason = Literal["stop", "length"]

REFILL = 0.25
"""Share of places that must be free before waiting prompts begin: beginning costs forwards, and a copy of all rows."""


@dataclass(eq=False)
class DecodingRow:
    """A completion in progress.

    Attributes:
        owners: its owners as (prompt, completion) indices: in greedy decoding, all completions of a prompt.
        document: name in errors and in the keys of random numbers.
        length: number of tokens of its prompt.
        before: last token ids of the prompt, which are decoded with the completion.
        tokens: tokens generated so far.
    """

    owners: list[tuple[int, int]]
    document: str
    length: int
    before: tuple[int, ...] = ()
    tokens: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Waiting:
    """A prompt that has not begun.

    Attributes:
        prompt: its tokens after the prefix.
        rows: its completions, which begin at the same time, so that the prompt runs once.
    """

    prompt: PackedRow
    rows: Sequence[DecodingRow]


class BatchDecoder:
    """Completes prompts in batches of limited size."""

    def __init__(self, runner: TreeRunner, tokenizer: Any, eos_token_ids: frozenset[int], seed: int) -> None:
        """Store what all batches share."""
        self.runner = runner
        self.tokenizer = tokenizer
        self.eos_token_ids = eos_token_ids
        self.seed = seed

    def decode(
        self,
        waiting: Iterable[Waiting],
        prefix: PrefixCache,
        settings: SamplingSettings,
        places: Callable[[int], int],
    ) -> Iterator[tuple[DecodingRow, FinishReason]]:
        """Complete prompts after a frozen prefix, and yield each row when it finishes.

        Args:
            waiting: the prompts, longest first.
            prefix: the frozen prefix.
            settings: sampling settings.
            places: number of rows that may be decoded at once, from the number of tokens of their longest prompt.

        Raises:
            NonFiniteValue: the model's logits for a document are NaN or infinite; the message names the document.
        """
        from prunelab.inference.kv_cache import DecodingCache

        device = self.runner.device
        queue, rows = deque(waiting), list[DecodingRow]()
        cache, logits = DecodingCache(), torch.empty(0)
        while queue or rows:
            if begun := _that_begin(queue, rows, places):
                cache = cache if rows else DecodingCache()
                first = self._prefill(begun, prefix, cache)
                logits = torch.cat([logits, first]) if rows else first
                rows += [row for prompt in begun for row in prompt.rows]
            self._append(rows, logits, settings)
            reasons = self._finish_reasons(rows, settings)
            yield from ((row, reason) for row, reason in zip(rows, reasons, strict=True) if reason)
            alive = [i for i, reason in enumerate(reasons) if reason is None]
            if alive and len(alive) < len(rows):
                cache.keep(torch.tensor(alive, device=device))
            rows = [rows[i] for i in alive]
            if rows:
                positions = [row.length + len(row.tokens) - 1 for row in rows]
                depths = torch.tensor(positions, device=device)[:, None]
                cache.depths = torch.cat([cache.depths, depths], dim=1)
                ids = torch.tensor([row.tokens[-1:] for row in rows], device=device)
                logits = self.runner.decode(ids, depths, cache.depths, max(positions), cache)

    def _prefill(self, begun: Sequence[Waiting], prefix: PrefixCache, cache: DecodingCache) -> torch.Tensor:
        """Add beginning rows to the cache; returns the logits after each row's prompt, (rows, vocabulary)."""
        device = self.runner.device
        prompts = [begin.prompt for begin in begun]
        width = max(len(prompt) for prompt in prompts)
        chunk = max(1, SATURATION[device.type] // width)
        logits, recorded = [], []
        for start in range(0, len(prompts), chunk):
            recorded.append(prefix.recording())
            batch = make_batch(prompts[start : start + chunk], prefix.length, device, width)
            logits.append(self.runner.forward(batch, recorded[-1]))
        sources = torch.tensor([i for i, begin in enumerate(begun) for _ in begin.rows], device=device)
        lengths = torch.tensor([row.length for begin in begun for row in begin.rows], device=device)
        cache.add(recorded, sources, lengths, prefix.length + width)
        return torch.cat(logits)[sources]

    def _append(self, rows: list[DecodingRow], logits: torch.Tensor, settings: SamplingSettings) -> None:
        """Choose each row's next token from logits (rows, vocabulary)."""
        numbers = [uniform(self.seed, row.document, row.owners[0][1], len(row.tokens)) for row in rows]
        uniforms = torch.tensor(numbers, dtype=torch.float64)
        finite = logits.sum(-1, dtype=torch.float32).isfinite()
        chosen = choose(logits, settings, uniforms).where(finite, -1).tolist()
        for row, token in zip(rows, chosen, strict=True):
            if token < 0:
                raise NonFiniteValue(
                    f"{row.document}: the model's logits hold NaN or infinity after {len(row.tokens)} generated "
                    "tokens; they must be finite: generate in float32 or bfloat16, or prune less"
                )
            row.tokens.append(token)

    def _finish_reasons(self, rows: list[DecodingRow], settings: SamplingSettings) -> list[FinishReason | None]:
        """Why each row ends with its last token; None if it continues."""
        stopped = [row.tokens[-1] in self.eos_token_ids for row in rows]
        stops = [stop for stop in settings.stop if stop]
        if stops:
            # A token decodes to at least one byte; two more tokens cover characters that span tokens.
            tail = max(len(stop.encode()) for stop in stops) + 2
            for i, row in enumerate(rows):
                text = last_text(self.tokenizer, row.before, row.tokens, tail)
                stopped[i] |= any(stop in text for stop in stops)
        full = [len(row.tokens) == settings.max_new_tokens for row in rows]
        return ["stop" if stop else "length" if end else None for stop, end in zip(stopped, full, strict=True)]


def _that_begin(queue: deque[Waiting], rows: Sequence[DecodingRow], places: Callable[[int], int]) -> list[Waiting]:
    """The prompts taken from the queue: as many as there are places for, but none while few places are free.

    If no row is being decoded, one prompt begins even if it has more completions than there are places.
    """
    begun: list[Waiting] = []
    if not queue:
        return begun
    total = places(max(row.length for row in (*rows, *queue[0].rows)))
    free = total - len(rows)
    if rows and free < REFILL * total:
        return begun
    while queue and (len(queue[0].rows) <= free or not (rows or begun)):
        begun.append(queue.popleft())
        free -= len(begun[-1].rows)
    return begun
