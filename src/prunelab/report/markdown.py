"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from prunelab.files import write_text
from prunelab.report.figures import quality_by_ratio, write_figure
from prunelab.report.tables import main_table
from prunelab.results import Measurement

if TYPE_CHECKING:
    from prunelab.config import StudyConfig


class FailedCell(Protocol):
    """What the report says of a cell that failed."""

    @property
    def cell(self) -> str:
        """Which."""

    @property
    def error(self) -> str:
        """Why."""


REPORT = """\
# Pruning study

{table}

![Quality against the removed share of the blocks' weights](figures/quality_by_ratio.svg)

A ratio is a share of the decoder blocks' projection weights (norms and added biases do not count); *achieved* is what
the cut came to. Depth moves in whole blocks{matched}. Perplexities are in windows of {window} tokens or the model's
context, whichever is shorter. Speed is relative to the dense model, at batch size 1, on {hardware}.
{failures}
## How it was made

- calibration: {calibration}
- seeds: {seeds}
- versions: {versions}

`results.csv` holds every figure, `plans/` what each cut kept, `study.yaml` the configuration.
"""


def report_text(config: StudyConfig, measurements: Sequence[Measurement], failures: Sequence[FailedCell]) -> str:
    """The report's text."""
    details = measurements[0].details if measurements else {}
    names = ("prunelab", "python", "torch", "transformers")
    failed = [f"- {f.cell}: {f.error.strip().splitlines()[-1]}" for f in failures]
    return REPORT.format(
        table=main_table(measurements).markdown(),
        matched=", and the other methods were asked for what it achieved" if config.match_depth else "",
        window=config.window,
        hardware=details.get("hardware", "unknown hardware"),
        failures="\n## What failed\n\n" + "\n".join(failed) + "\n" if failed else "",
        calibration=", ".join(f"{k} {v}" for k, v in config.calibration.model_dump().items()),
        seeds=", ".join(map(str, config.seeds)),
        versions=", ".join(f"{name} {details.get(name, 'unknown')}" for name in names),
    )


def write_report(config: StudyConfig, measurements: Sequence[Measurement], failures: Sequence[FailedCell]) -> None:
    """Write `report/report.md` and its figures into the run's folder."""
    folder = config.out / "report"
    write_figure(quality_by_ratio(measurements), folder / "figures" / "quality_by_ratio")
    write_text(folder / "report.md", report_text(config, measurements, failures))
