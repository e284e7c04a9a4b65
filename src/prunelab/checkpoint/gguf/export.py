"""Write a checkpoint as one GGUF file; llama.cpp's own converter does not support blocks of different widths."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from transformers import GenerationConfig

from prunelab.checkpoint.gguf.architecture import Layout, check_structure, layout_of
from prunelab.checkpoint.gguf.tensors import NamedTensor, named_tensors
from prunelab.checkpoint.gguf.token_comparison import compared_tokens
from prunelab.checkpoint.gguf.tokenizer import Vocabulary, chat_templates_of, vocabulary_of
from prunelab.errors import InvalidRequest, MissingRequirement
from prunelab.io.atomic_write import atomic_file, require_space
from prunelab.io.html import html_table
from prunelab.io.outputs import is_gguf
from prunelab.io.paths import require_output_file
from prunelab.models.loading import LanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from prunelab.models.inspection import Inspection

NumberFormat = Literal["f32", "f16", "bf16", "q8_0"]
Q8_0_BLOCK = 32
"""Numbers that share a scale in q8_0; GPU kernels also require row lengths to be a multiple of it."""


@dataclass(frozen=True)
class Exported:
    """A written GGUF file.

    Attributes:
        path: the file.
        architecture: llama.cpp's name of the model's architecture.
        size: size of the file in bytes.
        notes: notes for the user.
    """

    path: Path
    architecture: str
    size: int
    notes: Sequence[str]

    def _repr_html_(self) -> str:
        """A table, for notebooks."""
        rows = [("llama.cpp's architecture", self.architecture), ("bytes", self.size)]
        return html_table(("", ""), [*rows, *(("note", note) for note in self.notes)], str(self.path))


def export_gguf(
    model: LanguageModel,
    out: Path,
    number_format: NumberFormat = "f16",
    *,
    pad_widths: bool = False,
    overwrite: bool = False,
    allow_other_tokens: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write a dense or pruned model as a GGUF file with its tokenizer and chat templates.

    In f32 the widths do not change. In the other formats MLP widths are padded with zeros to a multiple of 32, which
    changes no result. Norms and biases stay f32.

    If llama.cpp is installed (the package `xllamacpp`), it tokenizes a fixed set of texts before the file is written,
    and its tokens are compared with the tokenizer's; otherwise a note reports that they were not compared.

    Args:
        model: the model.
        out: the file to write.
        number_format: number format of the matrices.
        pad_widths: pad every block with zeros to the widest block, for architectures without widths per block.
        overwrite: whether to replace an existing `out`.
        allow_other_tokens: whether to write the file although llama.cpp tokenizes some texts differently; notes name
            them.
        progress: called with the number of tensors written and the number of all tensors.

    Raises:
        UnsupportedModel: no llama.cpp architecture or tokenizer computes the same; names the reason.
        MissingRequirement: the package `gguf` is not installed.
        OutputExists: `out` exists and `overwrite` is false.
        InvalidRequest: an unknown number format, weights outside its range, or a path that cannot be written.
        DiskFull: the file does not fit on the disk.
    """
    if number_format not in get_args(NumberFormat):
        raise InvalidRequest(f"unknown GGUF type {number_format!r}: give one of {', '.join(get_args(NumberFormat))}")
    require_gguf()
    require_output_file(out, overwrite, is_gguf, "a GGUF file")
    layout = layout_of(model, channel_multiple=1 if number_format == "f32" else Q8_0_BLOCK, pad_widths=pad_widths)
    vocabulary = vocabulary_of(model, allow_other_tokens=allow_other_tokens)
    tensors = list(named_tensors(model, layout))
    require_space(out, sum(_size(tensor, number_format) for tensor in tensors))
    token_notes = compared_tokens(
        model,
        vocabulary,
        lambda writer: _add_vocabulary(writer, model, vocabulary),
        allow_other_tokens=allow_other_tokens,
    )
    with atomic_file(out) as temporary:
        writer = _writer(model, layout, vocabulary, number_format)
        _write(writer, temporary, tensors, number_format, progress)
    _, template_notes = chat_templates_of(model.tokenizer)
    notes = (*layout.notes, *vocabulary.notes, *token_notes, *template_notes)
    return Exported(out, layout.architecture, out.stat().st_size, notes)


def check_without_weights(
    inspection: Inspection, tokenizer: PreTrainedTokenizerBase, *, allow_other_tokens: bool
) -> None:
    """Refuse what `export_gguf` would refuse of a checkpoint's structure and tokenizer, before its weights are read.

    The comparison with llama.cpp is remembered: `export_gguf` does not repeat it.

    Args:
        inspection: of the checkpoint.
        tokenizer: the checkpoint's.
        allow_other_tokens: as for `export_gguf`.

    Raises:
        UnsupportedModel: a structure or a tokenizer that is not written, or one whose tokens llama.cpp reads otherwise.
    """
    empty = inspection.empty()
    if (inspection.folder / "generation_config.json").is_file():
        empty.generation_config = GenerationConfig.from_pretrained(str(inspection.folder))
    model = LanguageModel(inspection.name, empty, tokenizer, inspection=inspection)
    check_structure(model)
    vocabulary = vocabulary_of(model, allow_other_tokens=allow_other_tokens)
    compared_tokens(
        model,
        vocabulary,
        lambda writer: _add_vocabulary(writer, model, vocabulary),
        allow_other_tokens=allow_other_tokens,
    )


def require_gguf() -> None:
    """Require the package `gguf`.

    Raises:
        MissingRequirement: the package is not installed; names the command that installs it.
    """
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise MissingRequirement("GGUF files need the package gguf: pip install 'prunelab[gguf]'") from None


def _writer(model: LanguageModel, layout: Layout, vocabulary: Vocabulary, number_format: NumberFormat) -> Any:
    """A GGUF writer with all metadata and no tensors."""
    import gguf

    file_types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    writer = gguf.GGUFWriter(None, layout.architecture)
    writer.add_type("model")
    writer.add_file_type(gguf.LlamaFileType[file_types[number_format]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_geometry(writer, model, layout)
    _add_vocabulary(writer, model, vocabulary)
    templates, _ = chat_templates_of(model.tokenizer)
    writer.add_chat_template([{"name": name, "template": text} for name, text in templates.items()])
    return writer


def _add_geometry(writer: Any, model: LanguageModel, layout: Layout) -> None:
    config, shapes = model.model.config, layout.shapes
    heads = [shape.key_value_groups * shape.queries_per_group for shape in shapes]
    groups = [shape.key_value_groups for shape in shapes]
    channels = [shape.channels for shape in shapes]
    each = layout.architecture == "deci"
    writer.add_block_count(len(shapes))
    writer.add_context_length(layout.context_length)
    writer.add_embedding_length(shapes[0].hidden)
    writer.add_head_count(heads if each else heads[0])
    writer.add_head_count_kv(groups if each else groups[0])
    writer.add_feed_forward_length(channels if each else channels[0])
    writer.add_key_length(shapes[0].head_dim)
    writer.add_value_length(shapes[0].head_dim)
    writer.add_rope_dimension_count(shapes[0].head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(model.model.get_input_embeddings().weight.shape[0])
    if layout.architecture == "gemma2":
        _add_gemma2(writer, config)


def _add_gemma2(writer: Any, config: Any) -> None:
    writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
    writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_sliding_window(config.sliding_window)
    windowed = [kind == "sliding_attention" for kind in config.layer_types]
    # llama.cpp's default, left out so that builds that read no array here load the file too.
    if windowed != [index % 2 == 0 for index in range(len(windowed))]:
        writer.add_sliding_window_pattern(windowed)


def _add_vocabulary(writer: Any, model: LanguageModel, vocabulary: Vocabulary) -> None:
    tokenizer = model.tokenizer
    # llama.cpp strips the spaces after special tokens in models with these names.
    writer.add_name(re.sub("(phi|modern)-?(3|bert)", r"\1_\2", model.name, flags=re.IGNORECASE))
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    special = {
        writer.add_bos_token_id: tokenizer.bos_token_id,
        writer.add_eos_token_id: tokenizer.eos_token_id,
        writer.add_unk_token_id: tokenizer.unk_token_id,
        writer.add_pad_token_id: tokenizer.pad_token_id,
        writer.add_eot_token_id: _end_of_turn(model),
    }
    for add, index in special.items():
        if index is not None:
            add(index)
    writer.add_add_bos_token(vocabulary.adds_begin)
    writer.add_add_eos_token(vocabulary.adds_end)
    if vocabulary.model == "llama":
        writer.add_add_space_prefix(vocabulary.adds_space)


def _end_of_turn(model: LanguageModel) -> int | None:
    """A further token at which generation stops, from the generation config; None if it names no other."""
    ends = getattr(model.model.generation_config, "eos_token_id", None)
    others = [end for end in (ends if isinstance(ends, list) else []) if end != model.tokenizer.eos_token_id]
    return others[-1] if others else None


def _write(
    writer: Any,
    path: Path,
    tensors: Sequence[NamedTensor],
    number_format: NumberFormat,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the file, one tensor in memory at a time."""
    for tensor in tensors:
        form = _form(tensor, number_format)
        shape, dtype = _stored(tensor, form)
        writer.add_tensor_info(tensor.name, shape, dtype, _size(tensor, number_format), raw_dtype=form)
    with closing(writer):
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, tensor in enumerate(tensors, start=1):
            writer.write_tensor_data(_numbers(tensor, _form(tensor, number_format)))
            if progress is not None:
                progress(done, len(tensors))


def _form(tensor: NamedTensor, number_format: NumberFormat) -> Any:
    """The GGML type of a tensor; f16 instead of q8_0 if the row length is no multiple of the block size."""
    import gguf

    if not tensor.is_matrix:
        return gguf.GGMLQuantizationType.F32
    if number_format == "q8_0" and tensor.shape[-1] % Q8_0_BLOCK:
        return gguf.GGMLQuantizationType.F16
    return gguf.GGMLQuantizationType[number_format.upper()]


def _stored(tensor: NamedTensor, form: Any) -> tuple[tuple[int, ...], Any]:
    """The shape and element type of a tensor's bytes."""
    import gguf

    plain = {gguf.GGMLQuantizationType.F32: np.float32, gguf.GGMLQuantizationType.F16: np.float16}
    if form in plain:
        return tensor.shape, plain[form]
    return tuple(gguf.quant_shape_to_byte_shape(tensor.shape, form)), np.uint8


def _size(tensor: NamedTensor, number_format: NumberFormat) -> int:
    shape, dtype = _stored(tensor, _form(tensor, number_format))
    return math.prod(shape) * int(np.dtype(dtype).itemsize)


def _numbers(tensor: NamedTensor, form: Any) -> Any:
    import gguf

    values = tensor.make().contiguous().numpy()
    if form == gguf.GGMLQuantizationType.F16 and np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise InvalidRequest(f"{tensor.name} has values outside the range of f16: give --type bf16 or f32")
    return gguf.quants.quantize(values, form)
