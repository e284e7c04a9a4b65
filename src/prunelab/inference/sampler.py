"""Batched generation: each prompt runs once for all its completions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunelab.errors import InvalidRequest
from prunelab.inference.batch_memory import batch_size, cache_bytes, forward_bytes, say_shrunk
from prunelab.inference.batch_planning import Group, plan_groups
from prunelab.inference.continuation import ANCHOR, continuation_text
from prunelab.inference.decoding import BatchDecoder, DecodingRow, FinishReason, Waiting
from prunelab.inference.packing import pack_row
from prunelab.inference.prefix_tree import PrefixTree, ScoringRequest, build_tree
from prunelab.inference.runner import Progress, ScoringStatistics, TreeRunner, costs_of
from prunelab.io.lazy import inference_mode, torch
from prunelab.models.rotary import RotaryLengths
from prunelab.models.tokenizer_validation import check_ids

if TYPE_CHECKING:
    from prunelab.inference.kv_cache import PrefixCache
    from prunelab.inference.sampling import SamplingSettings

ROWS = defaultdict(lambda: 256, cpu=32)
"""By type of device: maximum number of completions generated at once."""


@dataclass(frozen=True)
class Prompt:
    """A prompt to complete.

    Attributes:
        ids: token ids; at least one.
        document: name of the sample in errors, and part of each random number's key.
        completions: numbers of the requested completions; a resumed run requests only the missing ones.
    """

    ids: Sequence[int]
    document: str
    completions: Sequence[int] = (0,)


@dataclass(frozen=True)
class Completion:
    """A generated completion.

    Attributes:
        document: name of the prompt's sample.
        completion: number of the completion.
        text: without special tokens, cut before the first stop string.
        tokens: number of generated tokens, those cut off included.
        finish_reason: "stop" for a stop string or an end-of-text token, "length" for `max_new_tokens`.
    """

    document: str
    completion: int
    text: str
    tokens: int
    finish_reason: FinishReason


class Sampler:
    """Generates completions of many prompts on a causal language model of transformers.

    A random number depends on (seed, document, completion, step), so a completion does not depend on its batch (in
    float32; in 16-bit dtypes rounding differs between batches), and a run can be resumed.

    Attributes:
        batch_tokens: number of tokens whose keys and values are held at once, new tokens included. None is replaced in
            the first run by `batch_size`. It is halved after an out-of-memory error.
        shrunk_from: `batch_tokens` with enough memory; None if it was not reduced.
        eos_token_ids: tokens that end a completion.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        max_length: int,
        batch_tokens: int | None = None,
        eos_token_ids: Collection[int] | None = None,
        seed: int = 0,
    ) -> None:
        """Wrap a model in evaluation mode and its tokenizer; `max_length` limits prompt plus completion.

        By default the tokenizer's end-of-text token and those of the model's generation configuration end a text.

        Raises:
            InvalidRequest, UnsupportedModel: the model does not accept custom attention masks.
        """
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.shrunk_from: int | None = None
        self.eos_token_ids = frozenset(end_tokens(model, tokenizer) if eos_token_ids is None else eos_token_ids)
        self._tokenizer = tokenizer
        self._runner = TreeRunner(model)
        self._rotary = RotaryLengths([model])
        self._decoder = BatchDecoder(self._runner, tokenizer, self.eos_token_ids, seed)

    @property
    def statistics(self) -> ScoringStatistics:
        """Counts since the sampler was created."""
        return self._runner.statistics

    def generate(
        self, prompts: Sequence[Prompt], settings: SamplingSettings, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """The completions of each prompt, in the order of `Prompt.completions`.

        Raises:
            InvalidRequest: `max_new_tokens` leaves no room for a prompt.
            NonFiniteValue: the model's logits for a document are NaN or infinite; the message names the document.
        """
        completions: list[dict[int, Completion]] = [{} for _ in prompts]
        total = sum(len(prompt.completions) for prompt in prompts)
        for done, (index, completion) in enumerate(self._stream(prompts, settings), start=1):
            completions[index][completion.completion] = completion
            if progress is not None:
                progress(done, total)
        return [
            [by_number[number] for number in p.completions] for by_number, p in zip(completions, prompts, strict=True)
        ]

    def stream(self, prompts: Sequence[Prompt], settings: SamplingSettings) -> Iterator[Completion]:
        """The same completions in the order in which they finish, so that a caller can store partial results."""
        for _, completion in self._stream(prompts, settings):
            yield completion

    @inference_mode
    def _stream(self, prompts: Sequence[Prompt], settings: SamplingSettings) -> Iterator[tuple[int, Completion]]:
        for key, indices in self._classes(prompts, settings).items():
            with self._rotary.fixed(key):
                for index, completion in self._stream_class([prompts[i] for i in indices], settings):
                    yield indices[index], completion

    def _classes(self, prompts: Sequence[Prompt], settings: SamplingSettings) -> dict[int, list[int]]:
        """Prompts grouped by rotary frequencies, which must be constant from the first new token to the last.

        Raises:
            InvalidRequest: `max_new_tokens` leaves no room for a prompt, or frequencies change within a completion.
        """
        room = self._room(settings)
        lengths = [min(len(prompt.ids), room) for prompt in prompts]
        for prompt, length in zip(prompts, lengths, strict=True):
            check_ids(self._runner.model, max(prompt.ids, default=0), prompt.document)
            last = length + settings.max_new_tokens - 1
            if self._rotary.key(length) != self._rotary.key(last):
                raise InvalidRequest(
                    f"{prompt.document}: rotary frequencies change at {self._rotary.limit} tokens, within the "
                    f"completion of {settings.max_new_tokens} tokens after a prompt of {length}: set "
                    f"max_position_embeddings to {self._rotary.limit} in a copy of the model's config.json"
                )
        return self._rotary.classes(lengths)

    def _stream_class(self, prompts: Sequence[Prompt], settings: SamplingSettings) -> Iterator[tuple[int, Completion]]:
        """Completions of prompts with equal rotary frequencies."""
        tree = self._tree(prompts, settings)
        # A row costs a prefill, and a forward per further token.
        root = plan_groups(tree, costs_of(self._runner.model, steps=1 + settings.max_new_tokens))
        for prefix, group in self._runner.walk(tree, root):
            for row, reason in self._complete(tree, group, prefix, prompts, settings):
                before = prompts[row.owners[0][0]].ids
                text = cut_at_stops(continuation_text(self._tokenizer, before, row.tokens), settings.stop)
                for index, number in row.owners:
                    document = prompts[index].document
                    yield index, Completion(document, number, text, len(row.tokens), reason)

    def _room(self, settings: SamplingSettings) -> int:
        """Maximum number of prompt tokens that leaves room for the completion."""
        room = self.max_length - settings.max_new_tokens
        if room < 1:
            raise InvalidRequest(
                f"max_new_tokens is {settings.max_new_tokens}; allowed is at most {self.max_length - 1} in a context "
                f"of {self.max_length} tokens: lower max_new_tokens"
            )
        return room

    def _tree(self, prompts: Sequence[Prompt], settings: SamplingSettings) -> PrefixTree:
        """The prompts as a tree, truncated on the left to leave room for the completion, as lm-eval does."""
        room = self._room(settings)
        # A prompt is the input of a request whose single continuation token is a placeholder.
        tree = build_tree([ScoringRequest(p.ids[-room:], (0,), p.document) for p in prompts], room)
        self.statistics.requests += sum(len(prompt.completions) for prompt in prompts)
        self.statistics.truncated += sum(len(prompt.ids) > room for prompt in prompts)
        self.statistics.distinct_tokens += tree.distinct_tokens
        return tree

    def _complete(
        self, tree: PrefixTree, group: Group, prefix: PrefixCache, prompts: Sequence[Prompt], settings: SamplingSettings
    ) -> Iterator[tuple[DecodingRow, FinishReason]]:
        """Complete the inputs of a group; after an out-of-memory error, half as many at once."""
        inputs = [index for [(index, _)] in group.rows]
        if self.batch_tokens is None:
            model, device = self._runner.model, self._runner.device
            most = ROWS[device.type] * self.max_length  # the maximum that is ever held
            size = batch_size(model, device, 2 * cache_bytes(model) + forward_bytes(model, 1), most)
            self.batch_tokens, self.shrunk_from = size.tokens, size.shrunk_from
        done: set[tuple[int, int]] = set()

        def places(length: int) -> int:
            fitting = (self.batch_tokens or 0) // (length + settings.max_new_tokens)
            return max(1, min(fitting, ROWS[self._runner.device.type]))

        def waiting() -> Iterator[Waiting]:
            for index in inputs:
                owned = [o for o in _owners(tree, index, prompts, settings) if o[0] not in done]
                length = int(tree.lengths[index])
                asked = [prompts[owners[0][0]] for owners in owned]
                rows = [
                    DecodingRow(owners, prompt.document, length, tuple(prompt.ids[-ANCHOR:]))
                    for owners, prompt in zip(owned, asked, strict=True)
                ]
                if rows:
                    yield Waiting(pack_row(tree, [(index, index + 1)], prefix.length), rows)

        while True:
            try:
                for row, reason in self._decoder.decode(waiting(), prefix, settings, places):
                    done |= set(row.owners)
                    yield row, reason
                return
            except torch.OutOfMemoryError:
                longest = int(tree.lengths[inputs[0]])
                if places(longest) == 1:
                    raise
            # Unfinished completions are regenerated identically: their random numbers do not depend on the batch.
            self.shrunk_from = self.shrunk_from or self.batch_tokens
            self.batch_tokens = places(longest) * (longest + settings.max_new_tokens) // 2
            say_shrunk(self.shrunk_from, self.batch_tokens)


def end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a text: the tokenizer's, and those of the model's generation configuration.

    Raises:
        InvalidRequest: the generation configuration's `eos_token_id` is not a token id, a list of ids, or null.
    """
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    wrong = [token for token in listed if token is not None and (isinstance(token, bool) or not isinstance(token, int))]
    if wrong:
        raise InvalidRequest(
            f"generation_config.json's eos_token_id contains {wrong[0]!r}: give a token id, a list of ids, or null"
        )
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)


def cut_at_stops(text: str, stops: Sequence[str]) -> str:
    """The text before the first stop string; empty stop strings are ignored."""
    for stop in filter(None, stops):
        text = text.split(stop, maxsplit=1)[0]
    return text


def _owners(
    tree: PrefixTree, index: int, prompts: Sequence[Prompt], settings: SamplingSettings
) -> list[list[tuple[int, int]]]:
    """Owners of each row of an input, as (prompt, completion); greedy decoding needs one row for all."""
    pairs = [(answer.request, n) for answer in tree.answers[index] for n in prompts[answer.request].completions]
    return [pairs] if settings.temperature == 0 else [[pair] for pair in pairs]
