"""Every change from the dense model, in words."""

from __future__ import annotations

from prunelab.report.grid import Study
from prunelab.report.parts import Listing, Section

LEAD = (
    "Each cut against the dense model on the same samples: exact McNemar for right and wrong answers, a paired "
    "bootstrap for everything else (with less than six samples its standard error and Student's t, p never below what "
    "as many signs can give); 95 % intervals of the difference; p also after Holm over the cut's benchmarks."
)


def section(study: Study) -> Section | None:
    """A sentence a benchmark, cut by cut."""
    cells: dict[tuple[str, str], list[str]] = {}
    for d in study.run.differences:
        m = d.measurement
        seed = f", seed {m.seed}" if m.seed else ""
        cells.setdefault((m.model, f"{m.model}, {m.method} {m.ratio:.0%}{seed}"), []).append(d.sentence())
    folded = len(cells) > 6
    parts = tuple(Listing(title, tuple(lines), model, folded) for (model, title), lines in cells.items())
    return Section("changes", "What was lost", LEAD, parts) if parts else None
