"""Write a pruned model where everything can load it: safetensors, its plan, a card, and nothing pickled."""

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
    """Write the pruned model with tokenizer, generation config, plan, card and the base's licence; whole or not at all.

    A model whose blocks have widths of their own brings `modeling_prunelab.py` along, named in its config's `auto_map`.

    Args:
        pruned: the model after the cut.
        plan: what was cut.
        out: the folder to make.
        command: the command that made it, for the card.
        overwrite: replace `out` where it exists.

    Raises:
        OutputExists: `out` exists and `overwrite` is false.
        DiskFull: no room, found before writing where possible.
    """
    with save_model(pruned, out, overwrite) as aside:
        plan.save(aside / PLAN_FILE)
        (aside / "README.md").write_text(model_card(pruned, plan, command), encoding="utf-8")


@contextmanager
def save_model(model: LanguageModel, out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Write a model with all that reads for it, whole or not at all; gives the folder for what else belongs there.

    Raises:
        OutputExists: `out` exists and `overwrite` is false.
        DiskFull: no room, found before writing where possible.
    """
    tensors = model.model.state_dict().values()
    require_space(out, sum(tensor.numel() * tensor.element_size() for tensor in tensors))
    with atomic_folder(out, overwrite) as aside:
        model.model.save_pretrained(aside)
        model.tokenizer.save_pretrained(aside)
        save_processor(model, aside)
        copy_texts(folder_of(model.model), aside)
        yield aside


def save_processor(model: LanguageModel, folder: Path) -> None:
    """What a model that sees reads images with; where it could not be loaded, its files as they lie."""
    if model.processor is not None:
        model.processor.save_pretrained(folder)
    elif model.decoder.family.is_multimodal and (base := folder_of(model.model)) is not None:
        for name in PROCESSOR_FILES:
            path = base / name
            if path.is_file() and not (folder / name).exists():
                shutil.copyfile(path, folder / name)
