"""Log-likelihoods and completions of a model, with shared work computed once.

`prunelab.inference.lm_eval_adapter` wraps both as an lm-eval language model; import it only where lm-eval is needed.
"""

from typing import TYPE_CHECKING

from prunelab.io.lazy import lazy_attributes

if TYPE_CHECKING:
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

__getattr__ = lazy_attributes(
    __name__,
    {
        "LogLikelihood": "prunelab.inference.loglikelihood",
        "Scorer": "prunelab.inference.loglikelihood",
        "ScoringRequest": "prunelab.inference.prefix_tree",
        "Progress": "prunelab.inference.runner",
        "ScoringStatistics": "prunelab.inference.runner",
        "Completion": "prunelab.inference.sampler",
        "Prompt": "prunelab.inference.sampler",
        "Sampler": "prunelab.inference.sampler",
        "SamplingSettings": "prunelab.inference.sampling",
    },
)
