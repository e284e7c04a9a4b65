"""Write a pruned model where everything can load it: safetensors, its plan, a card, and nothing pickled."""

from __future__ import annotations

from pathlib import Path

from prunelab.checkpoint.card import model_card
from prunelab.files import require_space, written_folder
from prunelab.loading import LanguageModel
from prunelab.plan import PruningPlan

PLAN_FILE = "pruning_plan.json"


def save_checkpoint(
    pruned: LanguageModel, plan: PruningPlan, out: Path, *, command: str = "", overwrite: bool = False
) -> None:
    """Write the pruned model with its tokenizer, generation config, plan and card; whole or not at all.

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
    tensors = pruned.model.state_dict().values()
    require_space(out, sum(tensor.numel() * tensor.element_size() for tensor in tensors))
    with written_folder(out, overwrite) as aside:
        pruned.model.save_pretrained(aside)
        pruned.tokenizer.save_pretrained(aside)
        plan.save(aside / PLAN_FILE)
        (aside / "README.md").write_text(model_card(pruned, plan, command), encoding="utf-8")
