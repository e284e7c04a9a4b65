"""How evaluation runs a model: log-likelihoods and completions in which nothing is computed twice.

`prunelab.inference.lm_eval_adapter` makes an lm-eval language model of both; it is imported where lm-eval is wanted.
"""

from prunelab.inference.loglikelihood import LogLikelihood, Scorer
from prunelab.inference.prefix_tree import ScoringRequest
from prunelab.inference.runner import Progress, ScoringStatistics
from prunelab.inference.sampler import Completion, Prompt, Sampler
from prunelab.inference.sampling import SamplingSettings

__all__ = [
    "Completion",
    "LogLikelihood",
    "Progress",
    "Prompt",
    "Sampler",
    "SamplingSettings",
    "Scorer",
    "ScoringRequest",
    "ScoringStatistics",
]
