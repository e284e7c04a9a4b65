"""Write a pruned checkpoint directly from the dense checkpoint on disk, a few rows of a tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from prunelab.checkpoint.card import model_card
from prunelab.checkpoint.license import copy_texts, folder_of
from prunelab.checkpoint.save import PLAN_FILE, save_processor
from prunelab.checkpoint.writer import SHARD_BYTES, Announced, Content, Moved, write_tensors
from prunelab.errors import InvalidRequest
from prunelab.io.atomic_write import atomic_folder, require_space
from prunelab.models.decoder import ROWS_AT_ONCE
from prunelab.models.empty import empty_model
from prunelab.models.tensor_files import SINGLE, TensorFiles
from prunelab.pruning.compensation import least_squares_by_block
from prunelab.pruning.surgery import Remaining, architecture_of, new_biases, remaining

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from prunelab.calibration.corpus import CalibrationSet
    from prunelab.calibration.statistics import ActivationStatistics
    from prunelab.models.loading import LanguageModel
    from prunelab.models.streaming.decoder import StreamedDecoder
    from prunelab.models.streaming.model import StreamedModel
    from prunelab.pruning.architecture import TargetArchitecture
    from prunelab.pruning.compensation.projection import CompensatedProjection
    from prunelab.pruning.plan import PruningPlan


def save_streamed(
    model: StreamedModel,
    plan: PruningPlan,
    statistics: ActivationStatistics | None,
    out: Path,
    calibration: CalibrationSet | None = None,
    *,
    command: str = "",
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> LanguageModel:
    """Write the checkpoint that `save_checkpoint` writes for the pruned model, atomically.

    Args:
        model: the dense model.
        plan: the pruning plan; the caller has checked that it belongs to this model.
        statistics: the activation statistics that bias compensation uses.
        out: the folder to create.
        calibration: the tokens for least-squares compensation; None for other kinds.
        command: the command that made it, for the card.
        overwrite: whether to replace an existing `out`.
        shard_bytes: the largest size of a file in bytes.

    Returns:
        The pruned model on the meta device, with values for its biases only.

    Raises:
        OutputExists: `out` exists and `overwrite` is false.
        DiskFull: the checkpoint does not fit on the disk; checked before writing where possible.
        InvalidRequest: least-squares compensation without calibration tokens.
    """
    repairs = None
    if plan.compensation == "least_squares":
        if calibration is None:
            raise InvalidRequest("least_squares compensation needs the calibration tokens: calibrate first")
        repairs = least_squares_by_block(model.decoder, plan.kept, calibration)
    form = architecture_of(model.decoder, plan.kept, biased=plan.compensation != "none")
    name = f"{model.name}-{plan.method}-{round(100 * plan.requested_ratio):02d}"
    pruned = model.with_model(_outline(model, form), name)
    announced = _announced(pruned.model, model.decoder.prefix)
    require_space(out, sum(tensor.bytes for tensor in announced))
    with atomic_folder(out, overwrite) as temporary:
        # Config, generation config and, if needed, the modelling file; the file without tensors is deleted.
        pruned.model.save_pretrained(temporary, state_dict={})
        (temporary / SINGLE).unlink(missing_ok=True)
        write_tensors(
            temporary,
            announced,
            _tensors(model, plan, form, statistics if plan.compensation == "bias" else None, repairs, announced),
            pruned.decoder.parameters,
            shard_bytes,
        )
        model.tokenizer.save_pretrained(temporary)
        save_processor(model, temporary)
        copy_texts(folder_of(model.model), temporary)
        plan.save(temporary / PLAN_FILE)
        _read_biases(pruned, temporary)
        (temporary / "README.md").write_text(model_card(pruned, plan, command), encoding="utf-8")
    return pruned


def _read_biases(pruned: LanguageModel, folder: Path) -> None:
    """Load the written biases into the empty model: the card depends on whether they are all zeros."""
    stored = TensorFiles.open(folder).tensors
    outside = pruned.decoder.is_outside_blocks
    biases = {name: tensor.read() for name, tensor in stored.items() if name.endswith(".bias") and not outside(name)}
    pruned.model.load_state_dict(biases, strict=False, assign=True)


def _outline(model: StreamedModel, form: TargetArchitecture) -> PreTrainedModel:
    """The pruned model on the meta device, with values only for buffers that no checkpoint stores."""
    pruned = empty_model(form.model_class, form.config, model.model.dtype, model.device)
    pruned.generation_config = model.model.generation_config
    pruned.name_or_path = model.model.name_or_path
    return pruned


def _announced(pruned: PreTrainedModel, prefix: str) -> list[Announced]:
    """Every tensor of the pruned model once: first those outside the blocks, then block by block."""
    parameters = {name for name, _ in pruned.named_parameters()}
    announced = [
        Announced(name, tuple(tensor.shape), tensor.dtype)
        for name, tensor in pruned.state_dict().items()
        # Tensors tied to another tensor are not written.
        if name in parameters
    ]
    return sorted(announced, key=lambda entry: _block_of(entry.name, prefix))


def _block_of(name: str, prefix: str) -> int:
    return int(name.removeprefix(prefix).partition(".")[0]) if name.startswith(prefix) else -1


def _tensors(
    model: StreamedModel,
    plan: PruningPlan,
    form: TargetArchitecture,
    statistics: ActivationStatistics | None,
    repairs: Iterator[dict[str, CompensatedProjection]] | None,
    announced: list[Announced],
) -> Iterator[tuple[str, Content]]:
    """The values in the order announced."""
    decoder, position = model.decoder, -1
    computed: dict[str, Tensor] = {}
    for tensor in announced:
        if decoder.is_outside_blocks(tensor.name):
            yield tensor.name, _what_stays(decoder, tensor.name, Remaining())
            continue
        if _block_of(tensor.name, decoder.prefix) != position:
            position = _block_of(tensor.name, decoder.prefix)
            computed = new_biases(decoder, plan.kept, position, form, statistics)
            for path, repair in (next(repairs) if repairs is not None else {}).items():
                computed[f"{decoder.prefix}{position}.{path}.weight"] = repair.weight
                if repair.bias is not None:
                    computed[f"{decoder.prefix}{position}.{path}.bias"] = repair.bias
        if tensor.name in computed:
            yield tensor.name, computed.pop(tensor.name)
            continue
        inner = tensor.name.removeprefix(f"{decoder.prefix}{position}.")
        part = remaining(decoder, plan.kept, position, inner)
        assert part is not None
        yield tensor.name, _what_stays(decoder, f"{decoder.prefix}{plan.kept.blocks[position]}.{inner}", part)


def _what_stays(decoder: StreamedDecoder, name: str, part: Remaining) -> Content:
    """A pruned tensor of the model on disk; whole rows in the same number format are copied without reading them."""
    stored = decoder.files.tensors[decoder.sources[name]]
    if stored.dtype == decoder.model.dtype and not part.of_columns:
        return Moved(stored, part.indices)
    if len(stored.shape) < 2 or not (part.of_columns or part.indices is None):
        return part.of(decoder.tensor(name))
    return (part.of(rows.to(decoder.model.dtype)) for rows in stored.parts(ROWS_AT_ONCE))
