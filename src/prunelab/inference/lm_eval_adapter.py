"""prunelab's scorer and sampler as an lm-eval language model, so that any lm-eval task can use them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, resolve_max_length
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from prunelab.errors import InvalidRequest
from prunelab.inference.continuation import takes_first_space
from prunelab.inference.loglikelihood import Scorer
from prunelab.inference.prefix_tree import ScoringRequest
from prunelab.inference.sampler import Prompt, Sampler
from prunelab.inference.sampling import SamplingSettings
from prunelab.inference.tokenization import Encoder
from prunelab.models.chat_templates import render
from prunelab.models.tokenizer_validation import require_start

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from prunelab.inference.runner import Progress, ScoringStatistics

logger = logging.getLogger(__name__)

GENERATION_SETTINGS = {"until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k"}


class PrunelabLM(TemplateLM):  # type: ignore[misc]
    """A language model for `lm_eval.simple_evaluate(model=...)` that computes shared work once.

    Its answers equal those of lm-eval's HFLM (in float32 up to rounding), with three differences: log-softmax is in
    float32 for every dtype; generation uses only the end-of-text tokens of the model's generation configuration; a row
    ends at its own stop string, independent of the rest of its batch.

    Attributes:
        tokenizer: the tokenizer, unchanged.
        scorer, sampler: compute the answers; record their `batch_tokens` and `statistics` with the results.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        batch_tokens: int | None = None,
        max_length: int | None = None,
        add_bos_token: bool | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        """Wrap a transformers causal language model and its tokenizer.

        Args:
            model: the model; it is put into evaluation mode.
            tokenizer: a transformers tokenizer.
            batch_tokens: tokens per batch of the scorer and the sampler; None chooses by memory.
            max_length: context length in tokens; None reads the configuration, as HFLM does.
            add_bos_token: whether texts begin with the tokenizer's special tokens; None leaves that to the tokenizer.
            seed: seed of sampling.
            progress: called with the numbers of finished and of all requests of a kind; for rolling log-likelihoods,
                of windows.
            scorer: the scorer to use; a new one by default.

        Raises:
            InvalidRequest, UnsupportedModel: the model does not accept custom attention masks.
        """
        super().__init__()
        self.model = model.eval()
        self.tokenizer = tokenizer
        self._device = model.device
        self._max_length = max_length or resolve_max_length(model.config, tokenizer)
        self.progress = progress
        self.encoder = Encoder(tokenizer, add_bos_token)
        self._takes_first_space = takes_first_space(tokenizer)
        self.scorer = scorer or Scorer(model, max_length=self._max_length, batch_tokens=batch_tokens)
        self.sampler = Sampler(model, tokenizer, max_length=self._max_length, batch_tokens=batch_tokens, seed=seed)

    @property
    def eot_token_id(self) -> int | None:
        """The tokenizer's end-of-text token; None if it has none."""
        token: int | None = self.tokenizer.eos_token_id
        return token

    @property
    def prefix_token_id(self) -> int | None:
        """The token that stands for an empty context: beginning-of-text, or else end-of-text."""
        return self.encoder.prefix_token_id

    @property
    def max_length(self) -> int:
        """Context length in tokens."""
        return self._max_length

    @property
    def max_gen_toks(self) -> int:
        """Maximum number of generated tokens if a task sets no limit, as in HFLM."""
        return 256

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's name, a part of lm-eval's keys for cached requests."""
        name: str = self.tokenizer.name_or_path
        return name.replace("/", "__")

    @property
    def statistics(self) -> dict[str, ScoringStatistics]:
        """Counts of "scoring" and of "sampling" since this object was created."""
        return {"scoring": self.scorer.statistics, "sampling": self.sampler.statistics}

    def get_model_info(self) -> dict[str, Any]:
        """The settings that a result depends on, which lm-eval stores with its results."""
        return {
            "model_num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "model_dtype": str(self.model.dtype),
            "max_length": self._max_length,
            "scoring_batch_tokens": self.scorer.batch_tokens,
            "sampling_batch_tokens": self.sampler.batch_tokens,
            "statistics": {part: asdict(counts) for part, counts in self.statistics.items()},
        }

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids of one string."""
        return self.encoder.encode([string], special=add_special_tokens)[string]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-probability of each continuation given its context, and whether greedy decoding generates it."""
        pairs = self.encoder.encode_pairs([request.args for request in requests])
        names = [_name(request, i) for i, request in enumerate(requests)]
        return self._score((*pair, name) for pair, name in zip(pairs, names, strict=True))

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        return self._score((context, rest, f"request {i}") for i, (_, context, rest) in enumerate(requests))

    def _score(self, requests: Iterable[tuple[Sequence[int], Sequence[int], str]]) -> list[tuple[float, bool]]:
        before = self.scorer.statistics.truncated
        scores = self.scorer.score([ScoringRequest(*request) for request in requests], self.progress)
        self._report_truncated(self.scorer.statistics.truncated - before, len(scores))
        return list(scores)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of each text, in windows of the context length; every token is scored once."""
        require_start(self.tokenizer_name, self.tokenizer, "rolling log-likelihoods need one as the first context")
        texts = [request.args[0] for request in requests]
        encoded = self.encoder.encode(texts)
        owners: list[int] = []
        windows: list[tuple[list[int], list[int], str]] = []
        for owner, (text, request) in enumerate(zip(texts, requests, strict=True)):
            rolling = get_rolling_token_windows(encoded[text], self.prefix_token_id, self._max_length, 1)
            for context, continuation in map(make_disjoint_window, rolling):
                owners.append(owner)
                windows.append((context, continuation, _name(request, owner)))
        totals = [0.0] * len(requests)
        for owner, (log_probability, _) in zip(owners, self._score(windows), strict=True):
            totals[owner] += log_probability
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """A completion of each context with its generation settings; repeats of a request are numbered."""
        ids = self.encoder.encode_prompts(request.args[0] for request in requests)
        repeats: Counter[Hashable] = Counter()
        by_settings: dict[SamplingSettings, list[tuple[int, Prompt]]] = {}
        for i, request in enumerate(requests):
            context, options = request.args
            document = _name(request, i)
            key = (document, request.idx, context)
            prompt = Prompt(ids[context], document, (repeats[key],))
            repeats[key] += 1
            by_settings.setdefault(self._settings(options), []).append((i, prompt))
        texts = [""] * len(requests)
        before = self.sampler.statistics.truncated
        done = 0

        def report(finished: int, _: int) -> None:
            if self.progress is not None:
                self.progress(done + finished, len(requests))

        for settings, numbered in by_settings.items():
            completions = self.sampler.generate([prompt for _, prompt in numbered], settings, report)
            done += len(numbered)
            for (i, _), [completion] in zip(numbered, completions, strict=True):
                # HFLM decodes completions alone, and lm-eval's metrics expect such text.
                texts[i] = completion.text.removeprefix(" ") if self._takes_first_space else completion.text
        self._report_truncated(self.sampler.statistics.truncated - before, len(requests))
        return texts

    def _settings(self, options: dict[str, Any]) -> SamplingSettings:
        """Convert lm-eval's generation settings; missing ones mean greedy decoding or no truncation."""
        known = normalize_gen_kwargs(options, self.max_gen_toks)
        if unknown := set(known) - GENERATION_SETTINGS:
            raise InvalidRequest(
                f"generation settings {sorted(unknown)} are unknown; allowed are {sorted(GENERATION_SETTINGS)}: "
                "remove the unknown ones from the task"
            )
        if known["do_sample"] and not known.get("temperature"):
            raise InvalidRequest(
                "do_sample is true and there is no temperature; give a temperature above 0 in the task"
            )
        end = self.eot_token_id
        eos = None if end is None else self.tokenizer.decode(end, skip_special_tokens=False)
        return SamplingSettings(
            max_new_tokens=known["max_gen_toks"],
            temperature=known["temperature"] if known["do_sample"] else 0.0,
            top_p=known.get("top_p", 1.0),
            top_k=known.get("top_k") or None,
            stop=tuple(handle_stop_sequences(known["until"], eos=eos)),
        )

    def _report_truncated(self, truncated: int, requests: int) -> None:
        if truncated:
            logger.warning(
                "%d of %d requests exceed the context of %d tokens and were truncated on the left",
                truncated,
                requests,
                self._max_length,
            )

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Messages as one prompt; if the template rejects system messages they are left out, as in HFLM."""
        options = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
        }
        try:
            prompt = render(self.tokenizer, chat_history, **options)
        except InvalidRequest:
            if all(message["role"] != "system" for message in chat_history):
                raise
            logger.warning("the chat template failed: retrying without the system message")
            rest = [message for message in chat_history if message["role"] != "system"]
            prompt = render(self.tokenizer, rest, **options)
        return prompt


def _name(request: Instance, index: int) -> str:
    """The request's name in errors."""
    if request.task_name is None or request.doc_id is None:
        return f"request {index}"
    return f"{request.task_name}, document {request.doc_id}"
