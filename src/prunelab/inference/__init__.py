"""Log-likelihoods and completions of a model, with shared work computed once.

`prunelab.inference.lm_eval_adapter` wraps both as an lm-eval language model; import it only where lm-eval is needed.
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
