"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from prunelab.comparison import Difference
from prunelab.files import write_text
from prunelab.report.figures import quality_by_ratio, write_figure
from prunelab.report.tables import main_table
from prunelab.run import Run

REPORT = """\
# Pruning study

{table}

![Quality against the removed share of the blocks' weights](figures/quality_by_ratio.svg)

A ratio is a share of the decoder blocks' projection weights (norms and added biases do not count); *achieved* is what
the cut came to. Depth moves in whole blocks{matched}. Perplexities are in windows of {window} tokens or the model's
context, whichever is shorter. Speed is relative to the dense model, at batch size 1, on {hardware}.
{lost}{failures}
## How it was made

- calibration: {calibration}
- seeds: {seeds}
- limit: {limit}{from_validation}
- versions: {versions}

`results.csv` holds every figure, `plans/` what each cut kept, `study.yaml` the configuration.
"""


VALIDATION = "\n- shots of benchmarks without a train split were drawn from validation, the scored item left out"
LOST = """
## What was lost

Each cut against the dense model on the same samples: exact McNemar for right and wrong answers, a paired bootstrap for
everything else (with less than six samples its standard error and Student's t, p never below what as many signs can
give); 95 % intervals of the difference; p also after Holm over the cut's benchmarks. An asterisk in the table
marks a change that was seen (5 %, after Holm).

"""


def report_text(run: Run) -> str:
    """The report's text."""
    config, measurements, differences = run.config, run.measurements, run.differences
    details = measurements[0].details if measurements else {}
    names = ("prunelab", "python", "torch", "transformers")
    failed = [f"- {f.cell}: {f.error.strip().splitlines()[-1]}" for f in run.failures]
    return REPORT.format(
        table=main_table(measurements, differences).markdown(),
        lost=_lost(differences),
        matched=", and the other methods were asked for what it achieved" if config.match_depth else "",
        window=config.window,
        hardware=details.get("hardware", "unknown hardware"),
        failures="\n## What failed\n\n" + "\n".join(failed) + "\n" if failed else "",
        calibration=", ".join(f"{k} {v}" for k, v in config.calibration.model_dump().items()),
        limit=f"{config.limit} documents of each benchmark" if config.limit else "none, all documents",
        from_validation=VALIDATION if any(m.details.get("shots_from_validation") for m in measurements) else "",
        seeds=", ".join(map(str, config.seeds)),
        versions=", ".join(f"{name} {details.get(name, 'unknown')}" for name in names),
    )


def _lost(differences: Sequence[Difference]) -> str:
    """What every cut changed, a sentence a benchmark."""
    cells: dict[str, list[str]] = {}
    for d in differences:
        m = d.measurement
        seed = f", seed {m.seed}" if m.seed else ""
        cells.setdefault(f"{m.model}, {m.method} {m.ratio:.0%}{seed}", []).append(f"- {d.sentence()}")
    if not cells:
        return ""
    parts = [f"**{cell}**\n\n" + "\n".join(sentences) for cell, sentences in cells.items()]
    return LOST + "\n\n".join(parts) + "\n"


def write_report(run: Run) -> None:
    """Write `report/report.md` and its figures into the run's folder."""
    folder = run.folder / "report"
    write_figure(quality_by_ratio(run.measurements), folder / "figures" / "quality_by_ratio")
    write_text(folder / "report.md", report_text(run))
