"""Scoring a model and three depth cuts in one pass, compared with its arithmetic and with separate passes.

`--keep FILE` writes the results.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from common import keep, random_llama, ratio, report
from transformers import PreTrainedModel

from prunelab.errors import NonFiniteValue
from prunelab.inference.loglikelihood import Scorer, SharedPrefixScorer
from prunelab.inference.prefix_tree import ScoringRequest
from prunelab.inference.shared_blocks import SharedPrefixModels
from prunelab.models.families import decoder_of
from prunelab.pruning.allocation import KeptUnits
from prunelab.pruning.surgery import cut

BLOCKS, ROUNDS, BATCH = 12, 3, 512
# The cuts remove one, two and three of the last five blocks, none before 60 % of the depth.
REMOVED = ((8,), (7, 9), (8, 9, 10))


def questions(count: int = 6) -> list[ScoringRequest]:
    """Questions of 60 tokens with four choices of 6 tokens each."""
    ids = torch.randint(32000, (count, 60 + 4 * 6), generator=torch.Generator().manual_seed(0)).tolist()
    return [ScoringRequest(row[:60], row[60 + 6 * k : 66 + 6 * k]) for row in ids for k in range(4)]


def main() -> None:
    """Print the ratios, and the largest difference of log-probabilities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="file for the results")
    kept = parser.parse_args().keep
    dense = random_llama()
    decoder, requests = decoder_of(dense), questions()
    all_units = KeptUnits.everything(decoder.shapes)
    models = [dense, *(cut(decoder, all_units.without_blocks(removed)) for removed in REMOVED)]
    together = SharedPrefixModels(models)
    shared_suffix = [BLOCKS - min(removed) - len(removed) for removed in REMOVED]
    print(f"{BLOCKS} blocks; cuts without {', '.join(map(str, REMOVED))}: {shared_suffix} blocks follow the first cut")

    def in_one_pass(*chosen: PreTrainedModel) -> Sequence[object]:
        run = SharedPrefixModels(chosen) if chosen else together
        return SharedPrefixScorer(run, max_length=2048, batch_tokens=BATCH).score_each(requests)

    def alone(model: PreTrainedModel) -> Sequence[object]:
        return Scorer(model, max_length=2048, batch_tokens=BATCH).score(requests)

    head = _head_share(dense)
    least = (1 - head) * (1 + sum(shared_suffix) / BLOCKS) + head * len(models)
    value, spread = ratio(in_one_pass, lambda: alone(dense), ROUNDS)
    report("one pass / the dense model alone", value, spread, target=2.0)
    report(f"one pass / its arithmetic ({least:.2f} dense models)", value / least, spread / least, target=1.15)
    gain, gain_spread = ratio(lambda: [alone(model) for model in models], in_one_pass, ROUNDS)
    print(f"one by one / one pass: {gain:.2f} (± {gain_spread:.2f})")
    scored = SharedPrefixScorer(together, max_length=2048, batch_tokens=BATCH).score_each(requests)
    apart = max(
        abs(a.log_probability - b.log_probability)
        for model, results in zip(models, scored, strict=True)
        if not isinstance(results, NonFiniteValue)
        for a, b in zip(results, Scorer(model, max_length=2048, batch_tokens=BATCH).score(requests), strict=True)
    )
    print(f"log-probabilities apart by at most {apart:.1e}, allowed 1e-05: {'met' if apart <= 1e-5 else 'MISSED'}")
    results = {
        "one pass / the dense model alone": [value, spread],
        "arithmetic in dense models": least,
        "one by one / one pass": [gain, gain_spread],
        "log-probabilities apart": apart,
    }
    keep(kept, {"blocks": BLOCKS, "removed": REMOVED, "blocks behind": shared_suffix, **results})


def _head_share(model: PreTrainedModel) -> float:
    """The output head's share of a dense model's arithmetic: it computes the scored 21 of 80 tokens."""
    head: float = model.get_output_embeddings().weight.numel() * 21 / 80
    blocks = sum(shape.cost for shape in decoder_of(model).shapes)
    return head / (head + blocks)


if __name__ == "__main__":
    main()
