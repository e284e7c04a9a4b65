"""Runtimes of generation, eager and compiled, and the ideal speed of generation.

At batch size 1 a token costs reading every weight once, so the ideal speed is the memory bandwidth divided by the bytes
that a token reads. The eager runtime stays below it because launching an operation costs time independent of its size;
there, removing blocks pays off and reducing widths hardly does.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from prunelab.errors import MissingRequirement
from prunelab.io.lazy import inference_mode, torch, transformers

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.models.loading import LanguageModel

Runtime = Literal["eager", "compiled"]
Step: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
"""From token ids and their positions, both `(1, tokens)`, to the likeliest next token, `(1, 1)`."""

_SAMPLE_BYTES = 1 << 29


def check_runtime(runtime: Runtime) -> None:
    """Check that a compiler is available for the compiled runtime.

    Raises:
        MissingRequirement: there is no C++ compiler; the message names the package to install.
    """
    if runtime == "compiled" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        raise MissingRequirement(
            "--runtime compiled needs a C++ compiler: install g++ (`apt install g++`), or measure --runtime eager"
        )


class TimedGeneration:
    """A model prepared for token-by-token generation.

    Args:
        model: the model.
        runtime: `compiled` compiles the single-token step with a cache of fixed length, which CUDA replays as a graph;
            reading the prompt is eager in both runtimes.
        length: number of tokens of prompt plus completion.
    """

    def __init__(self, model: LanguageModel, runtime: Runtime, length: int) -> None:
        self.model = model
        self.runtime = runtime
        self.length = length
        self._cache: Any = None
        self._one: Any = model.model
        if runtime == "compiled":
            mode = "reduce-overhead" if model.device.type == "cuda" else "default"
            self._one = torch.compile(model.model.forward, mode=mode, dynamic=False)
            self._cache = transformers.StaticCache(config=model.model.config, max_cache_len=length)

    def begin(self) -> None:
        """Begin a new sequence with an empty cache."""
        if self.runtime == "eager":
            self._cache = transformers.DynamicCache(config=self.model.model.config)
        else:
            self._cache.reset()

    def read(self, ids: Tensor) -> Tensor:
        """Read a prompt `(1, tokens)`; returns the first new token, `(1, 1)`."""
        return self._next(self.model.model, ids, torch.arange(ids.shape[1], device=ids.device)[None])

    def write(self, token: Tensor, position: int) -> Tensor:
        """Process a token at a position; returns the next token, `(1, 1)`."""
        return self._next(self._one, token, torch.full_like(token, position))

    def _next(self, forward: Any, ids: Tensor, positions: Tensor) -> Tensor:
        out = forward(
            input_ids=ids, position_ids=positions, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        )
        following: Tensor = out.logits[:, -1:].argmax(dim=-1)
        return following


def bytes_a_token(model: LanguageModel, length: int) -> int:
    """Bytes read per new token: every weight once, one row of the embedding, and the cache of `length` tokens."""
    network = model.model
    embedding: Tensor = network.get_input_embeddings().weight
    tied = network.get_output_embeddings().weight is embedding
    weights = sum(p.numel() * p.element_size() for p in network.parameters() if tied or p is not embedding)
    element = embedding.element_size()
    cached = sum(2 * shape.key_value_groups * shape.head_dim for shape in model.decoder.shapes) * element
    return int(weights + cached * length)


@inference_mode
def bytes_a_second(device: torch.device, size: int, synchronise: Callable[[torch.device], None]) -> float:
    """Memory bandwidth in bytes per second for `size` bytes of weights, measured by matrix-vector products.

    The matrix fits a processor cache exactly if the weights do; sizes above half a gigabyte are measured with half a
    gigabyte.

    Args:
        device: the device.
        size: number of bytes.
        synchronise: waits until the device is idle.
    """
    width = 1024
    rows = max(1, min(size, _SAMPLE_BYTES) // (4 * width))
    matrix, vector = torch.ones(rows, width, device=device), torch.ones(width, device=device)
    repeats = max(3, (1 << 27) // (4 * width * rows))
    best = float("inf")
    for _ in range(5):
        synchronise(device)
        start = time.perf_counter()
        for _ in range(repeats):
            matrix @ vector
        synchronise(device)
        best = min(best, (time.perf_counter() - start) / repeats)
    return matrix.numel() * 4 / best
