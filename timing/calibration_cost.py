"""Time of calibration relative to a bare forward pass over the same tokens, and of six plans after calibration."""

from __future__ import annotations

import torch
from common import random_llama, ratio, report
from transformers import PreTrainedTokenizerFast

from prunelab.calibration import ActivationStatistics, CalibrationSet, calibrate
from prunelab.models.loading import LanguageModel
from prunelab.pruning.apply import make_pruning_plan

SAMPLES, TOKENS, BATCH, ROUNDS = 8, 512, 2048, 3


def main() -> None:
    """Print the two ratios."""
    model = LanguageModel("random-109M", random_llama(), PreTrainedTokenizerFast)
    decoder = model.decoder
    ids = torch.randint(32000, (SAMPLES, TOKENS), generator=torch.Generator().manual_seed(0))
    calibration = CalibrationSet(ids)
    print(f"{decoder.parameters / 1e6:.0f} M parameters, {ids.numel():,} tokens, {torch.get_num_threads()} threads")

    def collect() -> ActivationStatistics:
        return calibrate(decoder, calibration, tokens_a_batch=BATCH)

    @torch.inference_mode()
    def bare() -> None:
        for batch in ids.split(BATCH // TOKENS):
            decoder.body(input_ids=batch, use_cache=False)

    report("calibration / bare forward", *ratio(collect, bare, ROUNDS), target=1.10)

    statistics = collect()
    model.fingerprint  # noqa: B018  (the weights are hashed once per model, not per plan)

    def six_plans() -> None:
        for method in ("shortgpt", "flap"):
            for share in (0.1, 0.2, 0.3):
                make_pruning_plan(model, method, share, statistics=statistics)

    plans, spread = ratio(six_plans, collect, ROUNDS)
    report("calibration and six plans / calibration", 1 + plans, spread, target=1.15)


if __name__ == "__main__":
    main()
