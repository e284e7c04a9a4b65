"""The command that creates the checkpoint of a run's cut."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from prunelab.analysis.claims.evidence import Evidence, MeasuredCut
from prunelab.models.loading import short_name
from prunelab.pruning.apply import CalibrationOptions
from prunelab.pruning.methods import methods
from prunelab.studies.store import slug

if TYPE_CHECKING:
    from prunelab.pruning.plan_summary import PlannedCut
    from prunelab.studies.config import StudyConfig
    from prunelab.studies.run import Run


def prune_command(run: Run, cut: MeasuredCut, plan: PlannedCut | None = None) -> str:
    """`prunelab prune` with the run's calibration and pruning options and the ratio requested from the plan.

    The command passes the plan itself if it would otherwise produce a different one: for a method that compares losses
    on held-out windows, if the run held out a different number of windows than `prunelab prune` does; and for a random
    method whose seed is not that of the calibration.

    Args:
        run: the run.
        cut: one of its cuts.
        plan: the cut's plan; by default, the run is searched for it.
    """
    plan = plan or _plan_of(run, cut)
    config = run.config
    entry = next((model for model in config.models if (model.name or short_name(model.path)) == cut.model), None)
    path = entry.path if entry is not None else cut.model
    dtype = (entry.dtype if entry is not None else None) or config.dtype
    name = slug(f"{cut.model}-{cut.method}-{100 * cut.ratio:g}")
    words = ["prunelab", "prune", path, *_what(run, cut, plan), "--out", name]
    calibration = config.calibration
    words += ["--calibration", calibration.corpus, "--samples", str(calibration.samples)]
    words += ["--sequence-length", str(calibration.sequence_length)]
    seed = cut.seed if config.vary_calibration else config.seeds[0]
    words += ["--seed", str(seed or 0)]
    for option, value in (("--device", config.device), ("--dtype", dtype), ("--datasets-root", config.datasets_root)):
        words += [] if value is None else [option, str(value)]
    return shlex.join(words)


def _plan_of(run: Run, cut: MeasuredCut) -> PlannedCut | None:
    fingerprint = next((m.plan for m in run.measurements if _is_of(cut, m) and m.plan is not None), None)
    return None if fingerprint is None else run.planned.get(fingerprint)


def _what(run: Run, cut: MeasuredCut, plan: PlannedCut | None) -> list[str]:
    """The options for method, requested ratio and pruning, or for the plan, which implies them."""
    other_loss = methods[cut.method].needs_loss and run.config.calibration.held_out != CalibrationOptions().held_out
    other_draw = methods[cut.method].is_random and cut.seed != run.config.seeds[0] and not run.config.vary_calibration
    if plan is not None and (other_loss or other_draw):
        return ["--plan", str(plan.path)]
    ratio = plan.requested_ratio if plan is not None else _asked(run, cut)
    return ["--method", cut.method, "--ratio", f"{ratio:.12g}", *_how(run.config)]


def _is_of(cut: MeasuredCut, m: object) -> bool:
    return all(getattr(m, name) == getattr(cut, name) for name in ("model", "method", "ratio", "seed"))


def _asked(run: Run, cut: MeasuredCut) -> float:
    """The requested ratio without a plan: a study that matches depth requests the ratio that depth achieved."""
    if not run.config.match_depth or cut.strategy == "depth":
        return cut.ratio
    depth = [
        depth_cut for depth_cut in Evidence(run, list(methods)).cuts("depth", cut.model) if depth_cut.ratio == cut.ratio
    ]
    return depth[0].achieved_ratio if depth else cut.ratio


def _how(config: StudyConfig) -> list[str]:
    """The pruning options that differ from the command's defaults."""
    pruning, words = config.pruning, []
    for option, value, default in (
        ("--protect-first", pruning.protect_first, 0),
        ("--protect-last", pruning.protect_last, 0),
        ("--channel-multiple", pruning.channel_multiple, 1),
        ("--competition", pruning.competition, "all"),
        ("--compensation", pruning.compensation, "auto"),
    ):
        words += [option, str(value)] if value != default else []
    for option, given in (("--drop-sublayers", pruning.drop_sublayers), ("--uniform", pruning.uniform)):
        words += [option] if given else []
    return words
