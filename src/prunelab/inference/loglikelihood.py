"""Log-likelihoods of continuations, computed on the prefix tree of all requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from prunelab.errors import NonFiniteValue
from prunelab.inference.batch_memory import SATURATION, batch_size, forward_bytes, say_shrunk
from prunelab.inference.batch_planning import Group, plan_groups
from prunelab.inference.packing import Batch, PackedRow, make_batch, pack_row
from prunelab.inference.prefix_tree import IntArray, PrefixTree, ScoringRequest, build_tree
from prunelab.inference.runner import Progress, ScoringStatistics, TogetherRunner, TreeRunner, costs_of
from prunelab.io.lazy import inference_mode, np, torch
from prunelab.models.rotary import RotaryLengths
from prunelab.models.tokenizer_validation import check_ids

if TYPE_CHECKING:
    from prunelab.inference.kv_cache import PrefixCache
    from prunelab.inference.shared_blocks import SharedPrefixModels

SOFTMAX_ELEMENTS = 1 << 22
"""Number of logits converted to float32 at a time; those of a whole batch would be the largest tensors of the run."""

Answers: TypeAlias = "tuple[Batch, int, torch.Tensor, torch.Tensor]"
"""A batch, a model's index, and its pairs' log-probabilities and greedy flags on the model's device."""


class LogLikelihood(NamedTuple):
    """Log-probability of a continuation in nats, and whether greedy decoding would have generated it."""

    log_probability: float
    is_greedy: bool


class Scorer:
    """Scores continuations on a causal language model of transformers.

    Shared prefixes run once, continuations are packed after them, and the output head runs on scored tokens only. In
    float32 a result depends on `batch_tokens` only by rounding (about 1e-6 per token); in bfloat16 and float16 rounding
    changes log-probabilities by a few hundredths, so record `batch_tokens` with such results.

    Attributes:
        batch_tokens: padded tokens per batch. None is replaced in the first run by the `batch_size` of its heaviest
            row. It is halved after an out-of-memory error.
        shrunk_from: `batch_tokens` with enough memory; None if it was not reduced.
    """

    def __init__(self, model: Any, *, max_length: int, batch_tokens: int | None = None) -> None:
        """Wrap a model in evaluation mode; inputs longer than `max_length` tokens are truncated on the left.

        Raises:
            InvalidRequest, UnsupportedModel: the model does not accept custom attention masks.
        """
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.shrunk_from: int | None = None
        self._runner = TreeRunner(model)
        self._models = [model]
        self._costs = costs_of(model)

    @property
    def statistics(self) -> ScoringStatistics:
        """Counts since the scorer was created."""
        return self._runner.statistics

    @inference_mode
    def score(self, requests: Sequence[ScoringRequest], progress: Progress | None = None) -> list[LogLikelihood]:
        """Score every request; the answers have the order of the requests.

        Pass all requests in one call: shared prefixes are computed once per call.

        Raises:
            DataError: a request has no context, no continuation, or a continuation longer than the context.
            NonFiniteValue: the model's logits for a request are NaN or infinite; the message names the request.
        """
        [scores] = self._score_each(requests, progress)
        if isinstance(scores, NonFiniteValue):
            raise scores
        return scores

    def _score_each(
        self, requests: Sequence[ScoringRequest], progress: Progress | None
    ) -> list[list[LogLikelihood] | NonFiniteValue]:
        """Every model's scores, or its error."""
        shape = (len(self._models), len(requests))
        sums, greedy = np.zeros(shape), np.ones(shape, dtype=np.bool_)
        unscored = np.tile([len(request.continuation) for request in requests], (shape[0], 1))
        faults: dict[int, NonFiniteValue] = {}
        for owners, index, log_probabilities, best in self._run_classes(requests):
            values = log_probabilities.cpu().double().numpy()
            if index not in faults and not np.isfinite(values).all():
                faults[index] = self._non_finite(index, requests, owners[~np.isfinite(values)])
                if len(faults) == len(self._models):
                    break
            np.add.at(sums[index], owners, values)
            np.logical_and.at(greedy[index], owners, best.cpu().numpy())
            np.subtract.at(unscored[index], owners, 1)
            if progress is not None:
                progress(int((unscored == 0).all(axis=0).sum()), len(requests))
        return [
            faults.get(index)
            or [LogLikelihood(float(total), bool(flag)) for total, flag in zip(sums[index], greedy[index], strict=True)]
            for index in range(len(self._models))
        ]

    def _run_classes(
        self, requests: Sequence[ScoringRequest]
    ) -> Iterator[tuple[IntArray, int, torch.Tensor, torch.Tensor]]:
        """For one batch at a time: each pair's request, the model's index, log-probabilities and greedy flags.

        Requests with different rotary frequencies share no prefix.
        """
        for request in requests:
            check_ids(self._models[0], max((*request.context, *request.continuation), default=0), request.name)
        rotary = RotaryLengths(self._models)
        lengths = [min(len(r.context) + len(r.continuation) - 1, self.max_length) for r in requests]
        classes = rotary.classes(lengths)
        trees = {key: build_tree([requests[i] for i in indices], self.max_length) for key, indices in classes.items()}
        self.statistics.requests += len(requests)
        for tree in trees.values():
            self.statistics.truncated += tree.truncated
            self.statistics.distinct_tokens += tree.distinct_tokens
        for key, indices in classes.items():
            owners = np.array(indices, dtype=np.int64)
            with rotary.fixed(key):
                for batch, index, log_probabilities, best in self._run(trees[key]):
                    yield owners[batch.requests], index, log_probabilities, best

    def _run(self, tree: PrefixTree) -> Iterator[Answers]:
        """The answers of every batch; one batch runs on the device while the previous one is read."""
        pending: list[Answers] = []
        for prefix, group in self._runner.walk(tree, plan_groups(tree, self._costs)):
            for rows in self._batches(tree, group):
                pending += self._answers(rows, prefix)
                while len(pending) > len(self._models):
                    yield pending.pop(0)
        yield from pending

    def _batches(self, tree: PrefixTree, group: Group) -> Iterator[list[PackedRow]]:
        """The group's rows, longest first, in batches of at most `batch_tokens` tokens; single rows while it is
        unknown.

        A batch also ends where its padding would cost more than another forward.
        """
        waiting: list[PackedRow] = []
        padding = 0
        for row in group.rows:
            packed = pack_row(tree, row, group.length)
            longest = len(waiting[0]) if waiting else len(packed)
            padding += longest - len(packed)
            full = (len(waiting) + 1) * longest > (self.batch_tokens or 0)
            if waiting and (full or padding > self._costs.call):
                yield waiting
                waiting, padding = [], 0
            waiting.append(packed)
        if waiting:
            yield waiting

    def _answers(self, rows: list[PackedRow], prefix: PrefixCache) -> list[Answers]:
        """Run rows as one batch, or as two if they do not fit into memory."""
        device = self._runner.device
        batch = make_batch(rows, prefix.length, device)
        if self.batch_tokens is None:
            needed = forward_bytes(self._models[0], prefix.length + batch.ids.shape[1])
            size = batch_size(self._models[0], device, needed, SATURATION[device.type])
            self.batch_tokens, self.shrunk_from = size.tokens, size.shrunk_from
        try:
            return self._read_each(batch, prefix)
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        # Outside the handler: the exception's traceback keeps the failed forward's tensors alive.
        self.shrunk_from = self.shrunk_from or self.batch_tokens
        self.batch_tokens = max(1, batch.ids.numel() // 2)
        say_shrunk(self.shrunk_from, self.batch_tokens)
        half = (len(rows) + 1) // 2
        return self._answers(rows[:half], prefix) + self._answers(rows[half:], prefix)

    def _read_each(self, batch: Batch, prefix: PrefixCache) -> list[Answers]:
        """Every model's answers for a batch; a model's logits are freed before the next model runs."""
        return [(batch, index, *_read(logits, batch)) for index, logits in self._runner.forwards(batch, prefix)]

    def _non_finite(self, index: int, requests: Sequence[ScoringRequest], suspects: IntArray) -> NonFiniteValue:
        """The error that names the faulty request: NaN spreads within a packed row, so each suspect is run alone."""
        alone = list(dict.fromkeys(suspects.tolist()))
        culprit = next((request for request in alone if not self._is_finite(index, requests[request])), alone[0])
        return NonFiniteValue(
            f"{requests[culprit].name}: the model's logits hold NaN or infinity; log-probabilities must be finite: "
            "score in float32 or bfloat16, or prune less"
        )

    def _is_finite(self, index: int, request: ScoringRequest) -> bool:
        tokens = [*request.context, *request.continuation][-(self.max_length + 1) :]
        ids = torch.tensor([tokens[:-1]], device=self._runner.device)
        logits = self._models[index](input_ids=ids, use_cache=False).logits[0, -len(request.continuation) :]
        return bool(logits.float().logsumexp(-1).isfinite().all())


class SharedPrefixScorer(Scorer):
    """Scores continuations on several models pruned from one; their common blocks run once."""

    def __init__(self, together: SharedPrefixModels, *, max_length: int, batch_tokens: int | None = None) -> None:
        """Wrap the models; batches follow from the costs of the first, which are equal for all."""
        super().__init__(together.models[0], max_length=max_length, batch_tokens=batch_tokens)
        self._runner = TogetherRunner(together)
        self._models = list(together.models)

    @inference_mode
    def score_each(
        self, requests: Sequence[ScoringRequest], progress: Progress | None = None
    ) -> list[list[LogLikelihood] | NonFiniteValue]:
        """Every model's scores in the order of the models, each in the order of the requests.

        A model whose logits are NaN or infinite has, instead of scores, an error that names the request.

        Raises:
            DataError: a request has no context, no continuation, or a continuation longer than the context.
        """
        return self._score_each(requests, progress)


def _read(logits: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and greedy flag of each pair, (pairs,) each, from logits (scored, vocabulary)."""
    places = torch.from_numpy(batch.places).to(logits.device, non_blocking=True)
    targets = torch.from_numpy(batch.targets).to(logits.device, non_blocking=True)
    normalizers, best = [], []
    size = max(1, SOFTMAX_ELEMENTS // logits.shape[-1])
    for start in range(0, len(logits), size):
        normalizers.append(logits[start : start + size].float().logsumexp(-1))
        best.append(logits[start : start + size].argmax(-1))
    picked = logits[places, targets].float() - torch.cat(normalizers)[places]
    return picked, torch.cat(best)[places] == targets
