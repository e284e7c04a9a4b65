"""A pruned checkpoint written from one on disk, never more than some rows of a tensor in memory."""

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
    """Write what `save_checkpoint` writes of the pruned model; whole or not at all.

    Args:
        model: the model before the cut.
        plan: what to keep; the caller has checked that it is this model's.
        statistics: what compensation is made of.
        out: the folder to make.
        calibration: the tokens that least squares is fitted to, where the plan's compensation is that.
        command: the command that made it, for the card.
        overwrite: replace `out` where it exists.
        shard_bytes: a file grows no longer than this.

    Returns:
        The pruned model without values but of biases, for what can be said of it.

    Raises:
        OutputExists: `out` exists and `overwrite` is false.
        DiskFull: no room, found before writing where possible.
        InvalidRequest: least squares without tokens.
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
    require_space(out, sum(one.bytes for one in announced))
    with atomic_folder(out, overwrite) as aside:
        # Config, generation config, and the modelling file where one is needed; a file without tensors is of no use.
        pruned.model.save_pretrained(aside, state_dict={})
        (aside / SINGLE).unlink(missing_ok=True)
        write_tensors(
            aside,
            announced,
            _tensors(model, plan, form, statistics if plan.compensation == "bias" else None, repairs, announced),
            pruned.decoder.parameters,
            shard_bytes,
        )
        model.tokenizer.save_pretrained(aside)
        save_processor(model, aside)
        copy_texts(folder_of(model.model), aside)
        plan.save(aside / PLAN_FILE)
        _read_biases(pruned, aside)
        (aside / "README.md").write_text(model_card(pruned, plan, command), encoding="utf-8")
    return pruned


def _read_biases(pruned: LanguageModel, folder: Path) -> None:
    """Give the outline the biases that were written: the card depends on whether they are all zeros."""
    stored = TensorFiles.open(folder).tensors
    outside = pruned.decoder.is_outside_blocks
    biases = {name: one.read() for name, one in stored.items() if name.endswith(".bias") and not outside(name)}
    pruned.model.load_state_dict(biases, strict=False, assign=True)


def _outline(model: StreamedModel, form: TargetArchitecture) -> PreTrainedModel:
    """The pruned model without values but those that no checkpoint holds."""
    pruned = empty_model(form.model_class, form.config, model.model.dtype, model.device)
    pruned.generation_config = model.model.generation_config
    pruned.name_or_path = model.model.name_or_path
    return pruned


def _announced(pruned: PreTrainedModel, prefix: str) -> list[Announced]:
    """Every tensor of the pruned model once, those of no block first, then block by block."""
    own = {name for name, _ in pruned.named_parameters()}
    found = [
        Announced(name, tuple(tensor.shape), tensor.dtype)
        for name, tensor in pruned.state_dict().items()
        # What is tied to another tensor is not written.
        if name in own
    ]
    return sorted(found, key=lambda one: _block_of(one.name, prefix))


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
    made: dict[str, Tensor] = {}
    for one in announced:
        if decoder.is_outside_blocks(one.name):
            yield one.name, _what_stays(decoder, one.name, Remaining())
            continue
        if _block_of(one.name, decoder.prefix) != position:
            position = _block_of(one.name, decoder.prefix)
            made = new_biases(decoder, plan.kept, position, form, statistics)
            for path, repair in (next(repairs) if repairs is not None else {}).items():
                made[f"{decoder.prefix}{position}.{path}.weight"] = repair.weight
                if repair.bias is not None:
                    made[f"{decoder.prefix}{position}.{path}.bias"] = repair.bias
        if one.name in made:
            yield one.name, made.pop(one.name)
            continue
        inner = one.name.removeprefix(f"{decoder.prefix}{position}.")
        part = remaining(decoder, plan.kept, position, inner)
        assert part is not None
        yield one.name, _what_stays(decoder, f"{decoder.prefix}{plan.kept.blocks[position]}.{inner}", part)


def _what_stays(decoder: StreamedDecoder, name: str, part: Remaining) -> Content:
    """A tensor of the model on disk, cut; its bytes are only looked at where they do not lie in whole rows."""
    stored = decoder.files.tensors[decoder.sources[name]]
    if stored.dtype == decoder.model.dtype and not part.of_columns:
        return Moved(stored, part.indices)
    if len(stored.shape) < 2 or not (part.of_columns or part.indices is None):
        return part.of(decoder.tensor(name))
    return (part.of(rows.to(decoder.model.dtype)) for rows in stored.parts(ROWS_AT_ONCE))
