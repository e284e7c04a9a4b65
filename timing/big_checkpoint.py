"""Checkpoints of random weights with the exact shapes of large models, written tensor by tensor.

`python timing/big_checkpoint.py DIR [--blocks N]` writes Llama-3-8B's, 16 GB in bfloat16; without DIR, a small one that
is deleted afterwards.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from prunelab.checkpoint.writer import Announced, write_tensors
from prunelab.models.empty import empty_model


@dataclass(frozen=True)
class Shapes:
    """The dimensions of a Llama."""

    hidden: int
    channels: int
    heads: int
    key_value_heads: int
    head_dim: int
    vocabulary: int
    blocks: int
    context: int

    def with_blocks(self, blocks: int) -> Shapes:
        """The same dimensions with another number of blocks."""
        return replace(self, blocks=blocks)


LLAMA_3_8B = Shapes(4096, 14336, 32, 8, 128, 128256, 32, 8192)
SMALL = Shapes(256, 768, 8, 4, 32, 4096, 8, 512)


def write_checkpoint(folder: Path, shapes: Shapes, dtype: str = "bfloat16", seed: int = 0) -> None:
    """Write a loadable checkpoint with at most one tensor in memory."""
    config = LlamaConfig(
        vocab_size=shapes.vocabulary, hidden_size=shapes.hidden, intermediate_size=shapes.channels,
        num_hidden_layers=shapes.blocks, num_attention_heads=shapes.heads,
        num_key_value_heads=shapes.key_value_heads, head_dim=shapes.head_dim, max_position_embeddings=shapes.context,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0}, rms_norm_eps=1e-5, bos_token_id=0,
        eos_token_id=1, tie_word_embeddings=False,
    )  # fmt: skip
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = empty_model(LlamaForCausalLM, config, getattr(torch, dtype))
    folder.mkdir(parents=True)
    model.save_pretrained(folder, state_dict={})
    (folder / "model.safetensors").unlink(missing_ok=True)
    announced = [Announced(name, tuple(t.shape), t.dtype) for name, t in model.state_dict().items()]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    write_tensors(folder, announced, _random(announced, seed), parameters)
    core = Tokenizer(models.WordLevel({f"w{i}": i for i in range(shapes.vocabulary)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=core, bos_token="w0", eos_token="w1").save_pretrained(folder)


def _random(announced: list[Announced], seed: int) -> Iterator[tuple[str, Tensor]]:
    """Ones for norms; for matrices, one random block of realistic scale, repeated."""
    drawn = torch.randn(1 << 22, generator=torch.Generator().manual_seed(seed)) * 0.02
    for number, announcement in enumerate(announced):
        if len(announcement.shape) == 1:
            yield announcement.name, torch.ones(announcement.shape, dtype=announcement.dtype)
            continue
        part = drawn.roll(1 + 7919 * number).to(announcement.dtype)
        tensor = torch.empty(announcement.shape, dtype=announcement.dtype)
        flat = tensor.view(-1)
        for start in range(0, flat.numel(), len(part)):
            stop = min(start + len(part), flat.numel())
            flat[start:stop] = part[: stop - start]
        yield announcement.name, tensor


def main() -> None:
    """Write a checkpoint, and print its size and the time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--blocks", type=int, default=LLAMA_3_8B.blocks)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = asked.folder or Path(place) / "small"
        start = time.perf_counter()
        write_checkpoint(folder, LLAMA_3_8B.with_blocks(asked.blocks) if asked.folder else SMALL)
        size = sum(path.stat().st_size for path in folder.iterdir())
        print(f"{size / 1e9:.3g} GB in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
