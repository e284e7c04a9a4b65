"""Heat maps of the key-value groups and channels that the plans remove from each block."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING

from prunelab.reports.chart import Chart, HeatMap
from prunelab.reports.grid import ReportCut, Study

if TYPE_CHECKING:
    from prunelab.pruning.plan_summary import PlannedCut

UNITS = {"key_value_groups": "key-value groups", "channels": "MLP channels"}


def plan_map(study: Study) -> Chart | None:
    """Two maps per model, with one row per cut and one column per block; a cut with several seeds shows their mean."""
    by_cut: dict[ReportCut, dict[str, PlannedCut]] = {}
    for m in study.run.measurements:
        plan = study.plans.get(m.plan or "")
        if plan is not None:
            by_cut.setdefault(ReportCut(m.model, m.method, m.ratio), {})[plan.fingerprint] = plan
    panels = []
    for model in study.grid.models:
        cuts = [cut for cut in study.grid.of_model(model, dense=False) if cut in by_cut]
        for unit in UNITS if cuts else ():
            panels.append(_map(model, unit, [(cut, list(by_cut[cut].values())) for cut in cuts]))
    caption = (
        "One row per cut, one column per block of the dense model; a stronger colour means that more was removed. A "
        "removed block shows full colour in both maps. Cuts with several seeds show their mean."
    )
    return Chart("plans", "Removed weights by block", caption, tuple(panels), wide=True) if panels else None


def _map(model: str, unit: str, cuts: Sequence[tuple[ReportCut, list[PlannedCut]]]) -> HeatMap:
    values, tips = [], []
    for cut, plans in cuts:
        shares = [mean(block) for block in zip(*(plan.removed[unit] for plan in plans), strict=True)]
        values.append(tuple(shares))
        tips.append(tuple(_tip(cut, unit, plans, block, share) for block, share in enumerate(shares)))
    blocks = tuple(str(block) for block in range(max(map(len, values))))
    rows = tuple(f"{cut.label}{' (mean)' if len(plans) > 1 else ''}" for cut, plans in cuts)
    return HeatMap(f"{model}: {UNITS[unit]}", model, rows, blocks, tuple(values), tuple(tips), "block")


def _tip(cut: ReportCut, unit: str, plans: Sequence[PlannedCut], block: int, share: float) -> str:
    """The removed share of a block; for a single plan's key-value groups, also their indices."""
    indices = plans[0].removed_groups[block] if unit == "key_value_groups" and len(plans) == 1 else ""
    which = f": {'number' if indices.isdigit() else 'numbers'} {indices}" if indices else ""
    return f"{cut.label}, block {block}: {share:.0%} removed{which}"
