"""Convert the cells of a run for trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunelab.io.fingerprint import content_hash
from prunelab.studies.trackers import TrackedCell

if TYPE_CHECKING:
    from prunelab.evaluation.records import Measurement
    from prunelab.studies.run import Run


def tracked_cells(run: Run) -> list[TrackedCell]:
    """The cells of a run for trackers."""
    by_cell: dict[tuple[str, str, float, int | None, str | None], list[Measurement]] = {}
    for m in run.measurements:
        by_cell.setdefault((m.model, m.method, m.ratio, m.seed, m.plan), []).append(m)
    plans = run.planned
    cells = []
    for (model, method, ratio, seed, plan), figures in by_cell.items():
        identity = {"model": model, "method": method, "ratio": ratio, "seed": seed, "plan": plan}
        parameters = {**identity, "achieved_ratio": figures[0].achieved_ratio, "dtype": figures[0].details.get("dtype")}
        label = model if method == "dense" else f"{model} {method} {ratio:.0%}{f' seed {seed}' if seed else ''}"
        cells.append(
            TrackedCell(
                id=content_hash({"run": str(run.folder.resolve()), **identity}),
                name=label,
                study=run.folder.resolve().name,
                parameters={key: str(value) for key, value in parameters.items() if value is not None},
                metrics={_metric(m): m.value for m in figures},
                files=[run.folder / "results.csv", *([plans[plan].path] if plan is not None and plan in plans else [])],
            )
        )
    return cells


def _metric(m: Measurement) -> str:
    shots = "" if m.shots is None else f" {m.shots}-shot"
    return f"{m.benchmark}{shots}/{m.metric}{f'/{m.group}' if m.group else ''}"
