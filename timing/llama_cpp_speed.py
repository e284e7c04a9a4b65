"""Size and speed in llama.cpp of the dense model, and with a fifth of its blocks or of its widths removed.

`--keep FILE` writes the results.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from common import keep, random_llama, ratio

from prunelab.calibration import CalibrationSet, calibrate
from prunelab.checkpoint.gguf.export import NumberFormat, export_gguf
from prunelab.models.loading import LanguageModel, load_model
from prunelab.pruning.apply import make_pruning_plan, pruned_model

NEW_TOKENS = 48


def generator(path: Path) -> Callable[[], object]:
    """Decodes `NEW_TOKENS` tokens greedily after a prompt of one token, on one thread."""
    import xllamacpp

    params: Any = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = str(path), 128, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.fit_params, params.verbosity = False, -1
    server: Any = xllamacpp.Server(params)
    request = {"prompt": [5], "max_tokens": NEW_TOKENS, "temperature": 0, "ignore_eos": True}

    def run() -> object:
        answer = server.handle_completions(request)
        assert answer["usage"]["completion_tokens"] == NEW_TOKENS
        return answer

    return run


def main() -> None:
    """Print the ratios to the dense model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="a JSON file for the results")
    given = parser.parse_args()
    transformers.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    whole = LanguageModel("random", random_llama(blocks=10), load_model("pocket-llama", device="cpu").tokenizer)
    ids = torch.randint(1280, (2, 256), generator=torch.Generator().manual_seed(0))
    statistics = calibrate(whole.decoder, CalibrationSet(ids))
    cuts = {"depth": ("shortgpt", 0.2), "width": ("flap", 0.2)}
    plans = {what: make_pruning_plan(whole, *cut, statistics=statistics) for what, cut in cuts.items()}
    models = {"dense": whole, **{what: pruned_model(whole, plan, statistics) for what, plan in plans.items()}}
    formats: tuple[NumberFormat, ...] = ("f16", "q8_0")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number_format in formats:
            paths = {what: Path(folder) / f"{what}-{number_format}.gguf" for what in models}
            sizes = {what: export_gguf(models[what], path, number_format).size for what, path in paths.items()}
            run = {what: generator(path) for what, path in paths.items()}
            for what, plan in plans.items():
                times, spread = ratio(run[what], run["dense"])
                name = f"{number_format}, {what} {plan.achieved_ratio:.1%}"
                found[name] = {
                    "size": sizes[what] / sizes["dense"],
                    "tokens per second": 1 / times,
                    "spread of tokens per second": spread / times**2,
                }
                size, speed, apart = found[name].values()
                print(
                    f"{name}: size {size:.3f}, tokens per second {speed:.3f} (± {apart:.3f}) of the dense model's",
                    flush=True,
                )
    keep(given.keep, found)


if __name__ == "__main__":
    main()
