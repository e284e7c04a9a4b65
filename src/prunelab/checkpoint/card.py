"""The model card of a pruned checkpoint: what was removed, by which command, and how to load and serve the model."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import yaml

from prunelab.checkpoint.gguf.support import fit_of
from prunelab.checkpoint.license import Licence, folder_of, licence_beside
from prunelab.checkpoint.serving import serving
from prunelab.io.markup import fenced, markdown
from prunelab.pruning.plan import PruningPlan, to_ranges

if TYPE_CHECKING:
    from prunelab.models.loading import LanguageModel

CARD = """\
---
{head}---

# {base}, {achieved:.1%} of its blocks' weights removed by `{method}`

This model was pruned from {origin} without any training.

| | dense | pruned |
|---|---|---|
| parameters | {before:,} | {after:,} |
| blocks | {blocks_before} | {blocks_after} |
| share of the blocks' projection weights removed | | {achieved:.2%} (requested: {requested:.2%}) |
| share of all parameters removed | | {share:.2%} |

{removed}

Compensation: {compensation}. {notes}

## How to load it

```python
from transformers import {auto_class}, {reader_class}

model = {auto_class}.from_pretrained("PATH"{trust})
{reader} = {reader_class}.from_pretrained("PATH")
```
{why_trust}
{serving}

## How it was made

{command}

`pruning_plan.json` lists the blocks, key-value groups and MLP channels that were kept. Calibration:

{calibration}

Pruning without training reduces quality, and a few standard benchmarks understate the loss. Before you deploy this
checkpoint, evaluate it on your own task; for perplexity: `prunelab evaluate PATH --benchmark wikitext2`.
"""
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
"""The id of a repository on the hub, `owner/name`."""
NEEDS_CODE = """
The model has {parts}, which the stock classes of transformers do not support. The checkpoint therefore
contains a small modelling file, which requires `trust_remote_code=True`. prunelab loads the model with its own copy of
that file.
"""


def model_card(pruned: LanguageModel, plan: PruningPlan, command: str) -> str:
    """Render the text of a checkpoint's README.md.

    Args:
        pruned: the pruned model.
        plan: its pruning plan.
        command: the command that made the checkpoint; empty for the Python API.
    """
    mixed = type(pruned.model).__module__.endswith("modeling_prunelab")
    calibration = plan.provenance.get("calibration")
    family = pruned.decoder.family
    base = plan.base.name
    task = "image-text-to-text" if family.is_multimodal else "text-generation"
    is_id = REPOSITORY.fullmatch(base) is not None  # a folder's name has no slash
    return CARD.format(
        base=markdown(base),
        head=_head(plan, task, licence_beside(folder_of(pruned.model))),
        origin=f"[{markdown(base)}](https://huggingface.co/{base})" if is_id else markdown(base),
        serving=serving("PATH", mixed, fit_of(pruned)).rstrip("\n"),
        auto_class=family.auto_class,
        reader="processor" if family.is_multimodal else "tokenizer",
        reader_class="AutoProcessor" if family.is_multimodal else "AutoTokenizer",
        method=plan.method,
        before=plan.base.parameters,
        after=pruned.decoder.parameters,
        blocks_before=len(plan.base.shapes),
        blocks_after=len(plan.blocks),
        achieved=plan.achieved_ratio,
        requested=plan.requested_ratio,
        share=plan.share_of_model,
        removed=_removed(plan),
        compensation=plan.compensation,
        notes=markdown(" ".join(note[:1].upper() + note[1:] + "." for note in plan.notes)),
        trust=", trust_remote_code=True" if mixed else "",
        why_trust=NEEDS_CODE.format(parts=_parts(pruned)) if mixed else "",
        command=fenced(command or "made with the Python API"),
        calibration=fenced(json.dumps(calibration, indent=1) if calibration else "none", "json"),
    )


def _parts(pruned: LanguageModel) -> str:
    """What the modelling file is needed for."""
    mapped = any(name.endswith(".map") for block in pruned.decoder.blocks for name, _ in block.named_parameters())
    return (
        "a linear map in place of removed blocks" if mapped else "blocks of different widths, or biases in some blocks"
    )


def _head(plan: PruningPlan, task: str, licence: Licence | None) -> str:
    """The front matter: the base model's id and licence if they are known, the task and tags."""
    base = plan.base.name
    fields = {
        **({"base_model": base} if REPOSITORY.fullmatch(base) else {}),
        **(licence.fields() if licence else {}),
        "library_name": "transformers",
        "pipeline_tag": task,
        "tags": ["pruned", "prunelab", plan.method],
    }
    return yaml.safe_dump(fields, sort_keys=False)


def _removed(plan: PruningPlan) -> str:
    """The removed blocks as a sentence, and the kept widths as a table."""
    lines = []
    if plan.removed_blocks:
        lines.append(f"Removed blocks: {to_ranges(plan.removed_blocks)}.")
    narrowed = [
        (b.block, len(b.key_value_groups), len(b.channels))
        for b in plan.blocks
        if len(b.key_value_groups) < plan.base.shapes[b.block].key_value_groups
        or len(b.channels) < plan.base.shapes[b.block].channels
    ]
    if narrowed:
        lines += ["", "| block | key-value groups kept | MLP channels kept |", "|---|---|---|"]
        for block, groups, channels in narrowed:
            shape = plan.base.shapes[block]
            lines.append(f"| {block} | {groups} of {shape.key_value_groups} | {channels} of {shape.channels} |")
        if len(narrowed) < len(plan.blocks):
            lines += ["", "The other blocks keep their full widths."]
    return "\n".join(lines) or "Nothing was removed."
