"""Time of pruning and saving relative to loading and `save_pretrained`."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import torch
import transformers
from common import random_llama, ratio, report
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from prunelab.calibration import CalibrationSet, calibrate
from prunelab.checkpoint.save import save_checkpoint
from prunelab.models.loading import LanguageModel
from prunelab.pruning.apply import make_pruning_plan, pruned_model


def main() -> None:
    """Print the ratios for a depth and a width cut."""
    transformers.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    model = LanguageModel("random-109M", random_llama(), tokenizer)
    ids = torch.randint(32000, (2, 256), generator=torch.Generator().manual_seed(0))
    statistics = calibrate(model.decoder, CalibrationSet(ids))
    model.fingerprint  # noqa: B018  (hashed once per model)
    with tempfile.TemporaryDirectory() as folder:
        base, out = Path(folder) / "base", Path(folder) / "out"
        model.model.save_pretrained(base)

        def load_and_save() -> None:
            AutoModelForCausalLM.from_pretrained(base).save_pretrained(Path(folder) / "again")

        for method in ("shortgpt", "flap"):

            def prune_and_save(method: str = method) -> None:
                plan = make_pruning_plan(model, method, 0.2, statistics=statistics)
                save_checkpoint(pruned_model(model, plan, statistics), plan, out, overwrite=True)

            what = f"prune to 20 % by {method} and save / load and save_pretrained"
            report(what, *ratio(prune_and_save, load_and_save), target=1.5)


if __name__ == "__main__":
    main()
