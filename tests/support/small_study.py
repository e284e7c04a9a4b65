"""A study of a tiny model that takes a second, and what two runs of it must have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunelab.reports import write_report
from prunelab.studies.config import study_config
from prunelab.studies.progress import PlainView
from prunelab.studies.run import Run
from prunelab.studies.runner import run_study


def small_study(model: Path, corpus: Path, hub: Path, out: Path) -> dict[str, Any]:
    """The dense model and one cut in depth and one in width, each measured twice."""
    return {
        "models": [str(model)], "methods": ["shortgpt", "flap"], "ratios": [0.25],
        "benchmarks": [f"text:{corpus}", "boolq"], "out": str(out), "device": "cpu", "datasets_root": str(hub),
        "calibration": {"corpus": str(corpus), "samples": 8, "sequence_length": 64, "held_out": 2},
    }  # fmt: skip


def run(given: dict[str, Any], view: PlainView | None = None) -> Run:
    """Run it; nothing may fail."""
    result = run_study(study_config(given), say=lambda line: None, view=view)
    write_report(result)
    assert not result.failures, result.failures
    return result


def figures(result: Run) -> list[dict[str, Any]]:
    """Everything measured but for the time it took."""
    return [m.model_dump(exclude={"seconds"}) for m in result.measurements]


def files(folder: Path) -> dict[str, int]:
    """When each file of what was computed was written, by its path in the run's folder."""
    found = [path for name in ("cells", "plans", "statistics") for path in folder.glob(f"{name}/**/*.*")]
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(found) if not p.name.startswith(".")}
