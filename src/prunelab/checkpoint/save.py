"""Write a pruned model as a transformers checkpoint: safetensors, pruning plan and model card; nothing is pickled."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from prunelab.checkpoint.card import model_card
from prunelab.checkpoint.license import copy_texts, folder_of
from prunelab.io.atomic_write import atomic_folder, require_space

if TYPE_CHECKING:
    from prunelab.models.loading import LanguageModel
    from prunelab.pruning.plan import PruningPlan

PLAN_FILE = "pruning_plan.json"
PROCESSOR_FILES = (
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "chat_template.json",
    "chat_template.jinja",
)  # fmt: skip


def save_checkpoint(
    pruned: LanguageModel, plan: PruningPlan, out: Path, *, command: str = "", overwrite: bool = False
) -> None:
    """Write the pruned model with tokenizer, generation config, plan, card and the base's licence, atomically.

    A checkpoint with blocks of different widths includes `modeling_prunelab.py`, named in the `auto_map` of its config.

    Args:
        pruned: the pruned model.
        plan: its pruning plan.
        out: the folder to create.
        command: the command that made it, for the card.
        overwrite: whether to replace an existing `out`.

    Raises:
        OutputExists: `out` exists and `overwrite` is false.
        DiskFull: the checkpoint does not fit on the disk; checked before writing where possible.
    """
    with save_model(pruned, out, overwrite) as temporary:
        plan.save(temporary / PLAN_FILE)
        (temporary / "README.md").write_text(model_card(pruned, plan, command), encoding="utf-8")


@contextmanager
def save_model(model: LanguageModel, out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Write a model with its tokenizer, processor and licence files, atomically.

    Yields:
        The temporary folder, for further files; it is renamed to `out` at the end.

    Raises:
        OutputExists: `out` exists and `overwrite` is false.
        DiskFull: the checkpoint does not fit on the disk; checked before writing where possible.
    """
    tensors = model.model.state_dict().values()
    require_space(out, sum(tensor.numel() * tensor.element_size() for tensor in tensors))
    with atomic_folder(out, overwrite) as temporary:
        model.model.save_pretrained(temporary)
        model.tokenizer.save_pretrained(temporary)
        save_processor(model, temporary)
        copy_texts(folder_of(model.model), temporary)
        yield temporary


def save_processor(model: LanguageModel, folder: Path) -> None:
    """Save a vision-language model's processor, or copy the processor's files if it could not be loaded."""
    if model.processor is not None:
        model.processor.save_pretrained(folder)
    elif model.decoder.family.is_multimodal and (base := folder_of(model.model)) is not None:
        for name in PROCESSOR_FILES:
            path = base / name
            if path.is_file() and not (folder / name).exists():
                shutil.copyfile(path, folder / name)
