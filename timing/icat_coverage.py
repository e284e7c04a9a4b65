"""Coverage of the 95 % interval of a change in ICAT, including models with SS at 50.

Simulates StereoSet's 321 target terms with 13 examples each. Every term has its own propensity, which the dense and the
pruned model partly share. `--trials N` sets the number of simulated datasets for each pair of models.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from prunelab.evaluation.metrics.stereoset import icat_statistic
from prunelab.stats.paired_tests import paired_bootstrap

TERMS, EXAMPLES, SPREAD, SHARED = 321, 13, 0.6, 0.5
"""Target terms, examples per term, the propensities' spread in logits, and the share common to both models."""
LMS = (92.0, 86.0)
"""The dense and the pruned model's."""
PAIRS = ((60.0, 57.0), (60.0, 53.0), (60.0, 50.0), (50.0, 55.0), (50.0, 50.0))
"""The dense and the pruned model's SS."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)

Array = NDArray[np.float64]


def centre_of(share: float) -> float:
    """The mean propensity in logits for a given average share over terms, from 0 to 1."""
    weights = WEIGHTS / WEIGHTS.sum()
    return float(brentq(lambda centre: float(weights @ expit(centre + SPREAD * NODES)) - share, -9, 9))


def drawn_terms(draw: np.random.Generator, ss: float, lms: float, common: Array) -> Array:
    """LMS and SS of every term, shape `(terms, 2)`."""
    propensity = np.sqrt(SHARED) * common + np.sqrt(1 - SHARED) * draw.normal(size=TERMS)
    pro = draw.binomial(EXAMPLES, expit(centre_of(ss / 100) + SPREAD * propensity))
    related = draw.binomial(2 * EXAMPLES, lms / 100, size=TERMS)
    return np.column_stack([100 * related / (2 * EXAMPLES), 100 * pro / EXAMPLES])


def coverage(pair: tuple[float, float], trials: int) -> float:
    """The share of simulated datasets whose interval covers the true difference."""
    draw = np.random.default_rng(0)
    truth = icat_statistic(np.array([[lms, ss] for lms, ss in zip(LMS, pair, strict=True)]))
    held = 0
    for trial in range(trials):
        common = draw.normal(size=TERMS)
        dense, pruned = (drawn_terms(draw, ss, lms, common) for ss, lms in zip(pair, LMS, strict=True))
        low, high = paired_bootstrap(dense, pruned, icat_statistic, seed=trial, resamples=1000).interval
        held += low <= truth[1] - truth[0] <= high
    return held / trials


def main() -> None:
    """Print the coverage for each pair of models."""
    trials = int(sys.argv[sys.argv.index("--trials") + 1]) if "--trials" in sys.argv else 2000
    for pair in PAIRS:
        share = coverage(pair, trials)
        error = (share * (1 - share) / trials) ** 0.5
        print(f"SS {pair[0]:g} to {pair[1]:g}: the 95 % interval of ICAT covers {share:.1%} +- {error:.1%}", flush=True)


if __name__ == "__main__":
    main()
