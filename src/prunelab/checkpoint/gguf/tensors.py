"""A model's tensors in llama.cpp's form: its names, its order of rotary channels, and zeros for padded units."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from prunelab.checkpoint.gguf.architecture import PROJECTIONS, Layout, norms_of, used_biases
from prunelab.io.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

    from prunelab.models.families import BlockShape
    from prunelab.models.layout import InputProjection
    from prunelab.models.loading import LanguageModel


@dataclass(frozen=True)
class NamedTensor:
    """One tensor of the file.

    Attributes:
        name: llama.cpp's name of the tensor.
        shape: its shape.
        make: computes the tensor in float32; called once, so that one tensor at a time is in memory.
    """

    name: str
    shape: tuple[int, ...]
    make: Callable[[], Tensor]

    @property
    def is_matrix(self) -> bool:
        """Whether the tensor is a matrix, written in the requested number format; vectors stay float32."""
        return len(self.shape) == 2


def named_tensors(model: LanguageModel, layout: Layout) -> Iterator[NamedTensor]:
    """All tensors of the file, in file order."""
    body = model.decoder.body
    embeddings = model.model.get_input_embeddings().weight
    yield _plain("token_embd.weight", embeddings)
    if layout.frequency_factors is not None:
        yield _plain("rope_freqs.weight", layout.frequency_factors)
    yield _norm("output_norm.weight", body.get_submodule("norm"), layout)
    head = model.model.get_output_embeddings().weight
    if head.data_ptr() != embeddings.data_ptr():
        yield _plain("output.weight", head)
    biases = used_biases(model)
    for index, shape in enumerate(layout.shapes):
        yield from _norms(model, layout, index)
        for path, short in PROJECTIONS.items():
            place = _Place(model, layout, index, path)
            if not place.rows or not place.columns:
                continue
            yield NamedTensor(f"blk.{index}.{short}.weight", (place.rows, place.columns), place.weight)
        for path, short in PROJECTIONS.items():
            if (index, path) in biases and shape.key_value_groups + shape.channels:
                place = _Place(model, layout, index, path)
                bias = biases[index, path]
                yield NamedTensor(f"blk.{index}.{short}.bias", (place.rows,), partial(place.bias, bias))


def _plain(name: str, tensor: Tensor) -> NamedTensor:
    return NamedTensor(name, tuple(tensor.shape), lambda: tensor.detach().float())


def _norm(name: str, module: torch.nn.Module, layout: Layout) -> NamedTensor:
    """A norm's weight; Gemma's norms multiply by 1 + weight."""
    weight = module.get_parameter("weight").detach()
    more = 1.0 if layout.architecture == "gemma2" else 0.0
    return NamedTensor(name, tuple(weight.shape), lambda: weight.float() + more)


def _norms(model: LanguageModel, layout: Layout, index: int) -> Iterator[NamedTensor]:
    for path, short in norms_of(model.decoder.family.name).items():
        if short == "attn_norm" and not layout.shapes[index].key_value_groups:
            continue  # `deci` has no such norm in a block without heads
        yield _norm(f"blk.{index}.{short}.weight", model.decoder.blocks[index].get_submodule(path), layout)


@dataclass(frozen=True)
class _Place:
    """One projection of one block, in the model and in the file."""

    model: LanguageModel
    layout: Layout
    index: int
    path: str

    @property
    def projection(self) -> InputProjection | None:
        """The projection's parts if it reads the residual stream; None if it writes to it."""
        input_projections = (r for layout in self.model.decoder.family.layouts() for r in layout.input_projections)
        return next((r for r in input_projections if r.path == self.path), None)

    @property
    def filled(self) -> BlockShape:
        return self.layout.shapes[self.index]

    @property
    def rows(self) -> int:
        if self.projection is None:
            return self.filled.hidden
        return sum(self.filled.units(part) * self.filled.rows(part) for part in self.projection.parts)

    @property
    def columns(self) -> int:
        if self.projection is not None:
            return self.filled.hidden
        part = next(u.part for u in self.model.decoder.family.layouts() if u.output_projection == self.path)
        return self.filled.units(part) * self.filled.rows(part)

    def weight(self) -> Tensor:
        """The weight, padded with zeros, in llama.cpp's order of channels; float32, shape `(rows, columns)`."""
        block = self.model.decoder.blocks[self.index]
        filled = torch.zeros(self.rows, self.columns)
        if self.projection is None or self.model.decoder.shapes[self.index].units(self.projection.parts[0]):
            stored = block.get_parameter(f"{self.path}.weight").detach()
            filled[: stored.shape[0], : stored.shape[1]] = stored
        return self._arranged(filled)

    def bias(self, stored: Tensor) -> Tensor:
        """The bias, padded and ordered in the same way; float32, shape `(rows,)`."""
        filled = torch.zeros(self.rows)
        filled[: len(stored)] = stored
        return self._arranged(filled)

    def _arranged(self, rows: Tensor) -> Tensor:
        if self.path == "self_attn.q_proj":
            rows = rows * self.layout.query_scale
        if self.layout.rotates_neighbours and self.path in ("self_attn.q_proj", "self_attn.k_proj"):
            return neighbours_rotate(rows, self.filled.head_dim)
        return rows


def neighbours_rotate(rows: Tensor, head_dim: int) -> Tensor:
    """Reorder the rows of a query or key projection so that channels i and i + head_dim / 2 become neighbours.

    Args:
        rows: shape `(heads * head_dim, ...)`.
        head_dim: channels of one head.

    Returns:
        The reordered rows, in the same shape.
    """
    halves = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape).contiguous()
