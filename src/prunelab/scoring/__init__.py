"""How evaluation runs a model: log-likelihoods and completions in which nothing is computed twice.

`prunelab.scoring.lm` makes an lm-eval language model of both; it is imported where lm-eval is wanted.
"""

from prunelab.scoring.loglikelihood import Score, Scorer
from prunelab.scoring.running import Progress, ScoringStatistics
from prunelab.scoring.sampler import Completion, Prompt, Sampler
from prunelab.scoring.sampling import SamplingSettings
from prunelab.scoring.tree import ScoringRequest

__all__ = [
    "Completion",
    "Progress",
    "Prompt",
    "Sampler",
    "SamplingSettings",
    "Score",
    "Scorer",
    "ScoringRequest",
    "ScoringStatistics",
]
