"""Rows written token by token: each leaves when it is finished, and others take the places that are free."""

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
"""The share of the places that must be free for others to begin: they cost forwards of their own, and a copy of all."""


@dataclass(eq=False)
class DecodingRow:
    """A completion being written.

    Attributes:
        owners: who gets it, as (prompt, completion) numbers: in greedy decoding, all completions of a prompt.
        document: names it in errors and in the keys of its random numbers.
        length: tokens of its prompt.
        before: the prompt's last token ids, with which what is written is decoded.
        tokens: written so far.
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
        prompt: its tokens behind the prefix.
        rows: its completions, which begin together, so that the prompt runs once.
    """

    prompt: PackedRow
    rows: Sequence[DecodingRow]


class BatchDecoder:
    """Completes prompts, as many at once as there are places."""

    def __init__(self, runner: TreeRunner, tokenizer: Any, eos_token_ids: frozenset[int], seed: int) -> None:
        """Take what is the same for every batch."""
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
        """Write rows, whose prompts stand behind a frozen prefix, and yield each as it finishes.

        Args:
            waiting: the prompts, the longest first.
            prefix: what they stand on.
            settings: how tokens are chosen.
            places: how many rows may be written at once, from the tokens of the longest prompt among them.

        Raises:
            NonFiniteValue: the model computed NaN or infinity for a document, which the message names.
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
                rows += [row for one in begun for row in one.rows]
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
        """Put the rows that begin into the cache; logits behind each one's prompt, (rows, vocabulary)."""
        device = self.runner.device
        prompts = [one.prompt for one in begun]
        width = max(len(prompt) for prompt in prompts)
        chunk = max(1, SATURATION[device.type] // width)
        logits, recorded = [], []
        for start in range(0, len(prompts), chunk):
            recorded.append(prefix.recording())
            batch = make_batch(prompts[start : start + chunk], prefix.length, device, width)
            logits.append(self.runner.forward(batch, recorded[-1]))
        sources = torch.tensor([i for i, one in enumerate(begun) for _ in one.rows], device=device)
        lengths = torch.tensor([row.length for one in begun for row in one.rows], device=device)
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
        """Why each row ends with its last token, None where it goes on."""
        stopped = [row.tokens[-1] in self.eos_token_ids for row in rows]
        stops = [stop for stop in settings.stop if stop]
        if stops:
            # A token is at least a byte; the two before it may join with it when decoded.
            tail = max(len(stop.encode()) for stop in stops) + 2
            for i, row in enumerate(rows):
                text = last_text(self.tokenizer, row.before, row.tokens, tail)
                stopped[i] |= any(stop in text for stop in stops)
        full = [len(row.tokens) == settings.max_new_tokens for row in rows]
        return ["stop" if stop else "length" if end else None for stop, end in zip(stopped, full, strict=True)]


def _that_begin(queue: deque[Waiting], rows: Sequence[DecodingRow], places: Callable[[int], int]) -> list[Waiting]:
    """What is taken from the queue: as much as there are places for, but nothing while few are free.

    Where nothing is being written, a prompt begins even if its completions are more than the places.
    """
    begun: list[Waiting] = []
    if not queue:
        return begun
    there_are = places(max(row.length for row in (*rows, *queue[0].rows)))
    free = there_are - len(rows)
    if rows and free < REFILL * there_are:
        return begun
    while queue and (len(queue[0].rows) <= free or not (rows or begun)):
        begun.append(queue.popleft())
        free -= len(begun[-1].rows)
    return begun
