"""A real llama.cpp, from a package, as the oracle of exported files."""

from __future__ import annotations

import ctypes
import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """256 tokens, each readable by itself, and a start and an end token: llama.cpp reports no half characters."""
    letters = [*map(chr, range(33, 127)), "Ġ", "Ċ"]
    merges = [(a, b) for a in letters[:2] for b in letters][: 256 - len(letters)]
    tokens = [*letters, *(a + b for a, b in merges)]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<s>", "</s>"])
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


class LlamaCpp:
    """A GGUF file in llama.cpp: one thread, its cache in float32 so that only the file's numbers are judged."""

    def __init__(self, path: Path, context: int = 256) -> None:
        xllamacpp: Any = pytest.importorskip("xllamacpp", reason="no llama.cpp: pip install xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = context
        params.n_parallel = 1
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.fit_params = False
        params.warmup = False
        params.verbosity = -1
        self.server = xllamacpp.Server(params)
        # Its end joins a thread that does not always end, and the tests would wait for ever: nothing ends it before the
        # process does.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.server))

    def tokens(self, text: str) -> list[int]:
        """A text's tokens, special ones added and recognised."""
        ids: list[int] = self._post("/tokenize", {"content": text, "add_special": True, "parse_special": True})[
            "tokens"
        ]
        return ids

    def chat(self, messages: Sequence[dict[str, str]]) -> str:
        """The prompt that the file's chat template makes."""
        prompt: str = self._post("/apply-template", {"messages": messages})["prompt"]
        return prompt

    def top_log_probabilities(self, prompt: Sequence[int], count: int = 8) -> dict[int, float]:
        """The likeliest next tokens."""
        answer = self._complete(prompt, 1, n_probs=count)
        return {top["id"]: top["logprob"] for top in answer["completion_probabilities"][0]["top_logprobs"]}

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """The likeliest continuation, token by token."""
        tokens: list[int] = self._complete(prompt, count, return_tokens=True)["tokens"]
        return tokens

    def _complete(self, prompt: Sequence[int], count: int, **more: object) -> Any:
        request = {"prompt": list(prompt), "n_predict": count, "temperature": 0, "ignore_eos": True, **more}
        return self._post("/completion", request)

    def _post(self, path: str, body: object) -> Any:
        request = urllib.request.Request(
            self.server.listening_address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)
