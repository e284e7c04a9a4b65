"""Results of the Python API, with HTML representations for notebooks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelab.checkpoint.gguf.export import Exported, NumberFormat, export_gguf
from prunelab.checkpoint.save import save_checkpoint
from prunelab.errors import UnknownName
from prunelab.evaluation.benchmarks import EvaluationSettings
from prunelab.io.html import html_table
from prunelab.pruning.plan import PruningPlan, to_ranges
from prunelab.studies.store import to_frame

if TYPE_CHECKING:
    import pandas as pd

    from prunelab.evaluation.records import Measurement
    from prunelab.models.loading import LanguageModel
    from prunelab.studies.run import Run


@dataclass(frozen=True)
class PrunedModel:
    """A pruned model and its pruning plan.

    Attributes:
        model: the model; `model.model` is the transformers model, `model.tokenizer` its tokenizer.
        plan: what was kept, and how it was chosen.
        call: the call that created it, for the model card.
    """

    model: LanguageModel
    plan: PruningPlan
    call: str = ""

    def save(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Write a Hugging Face checkpoint; see `save_checkpoint`."""
        save_checkpoint(self.model, self.plan, Path(out), command=self.call, overwrite=overwrite)
        return Path(out)

    def to_gguf(self, out: str | Path, number_format: NumberFormat = "f16", **options: Any) -> Exported:
        """Write a GGUF file for llama.cpp; see `export_gguf`."""
        return export_gguf(self.model, Path(out), number_format, **options)

    def __repr__(self) -> str:
        plan = self.plan
        removed = f"{plan.achieved_ratio:.2%} of the blocks' weights removed"
        return f"PrunedModel({plan.base.name!r}, {plan.method!r}, {removed})"

    def _repr_html_(self) -> str:
        plan, before, after = self.plan, self.plan.base.parameters, self.model.decoder.parameters
        shapes = self.model.decoder.shapes
        rows = [
            ("parameters", before, after),
            ("blocks", len(plan.base.shapes), len(shapes)),
            (
                "key-value groups in total",
                sum(s.key_value_groups for s in plan.base.shapes),
                sum(s.key_value_groups for s in shapes),
            ),
            ("MLP channels in total", sum(s.channels for s in plan.base.shapes), sum(s.channels for s in shapes)),
        ]
        removed = f"; removed blocks: {to_ranges(plan.removed_blocks)}" if plan.removed_blocks else ""
        caption = (
            f"{plan.base.name}, {plan.method}: {plan.achieved_ratio:.2%} of the blocks' weights removed (requested: "
            f"{plan.requested_ratio:.2%}), {plan.share_of_model:.2%} of all weights{removed}"
        )
        return html_table(("", "dense", "pruned"), rows, caption)


@dataclass(frozen=True)
class EvaluationResult:
    """Benchmark results of one model, one measurement per figure."""

    measurements: Sequence[Measurement]

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements)

    def __getitem__(self, benchmark: str) -> float:
        """The primary figure of a benchmark."""
        primary = {m.benchmark: m.value for m in self.measurements if m.primary}
        if benchmark not in primary:
            raise UnknownName("benchmark measured here", benchmark, primary)
        return primary[benchmark]

    @cached_property
    def table(self) -> pd.DataFrame:
        """Every figure, one per row."""
        return to_frame(self.measurements)

    def __repr__(self) -> str:
        figures = ", ".join(f"{m.benchmark} {m.metric} {m.value:.6g}" for m in self.measurements if m.primary)
        return f"EvaluationResult({figures})"

    def _repr_html_(self) -> str:
        rows = [
            (m.benchmark, m.metric, m.value, "" if m.standard_error is None else m.standard_error, m.n)
            for m in self.measurements
            if "/" not in m.group
        ]
        return html_table(("benchmark", "metric", "value", "standard error", "n"), rows, self.measurements[0].model)


@dataclass(frozen=True)
class ReportResult:
    """The report of a run."""

    run: Run

    @property
    def path(self) -> Path:
        """The report page, a self-contained HTML file."""
        return self.run.folder / "report" / "index.html"

    def __repr__(self) -> str:
        return f"ReportResult({str(self.path)!r})"

    def _repr_html_(self) -> str:
        place = escape(str(self.path))
        return f"{self.run._repr_html_()}<p>Full report: <a href='{place}'>{place}</a></p>"


def settings_of(given: Mapping[str, Any], datasets_root: Path | None) -> EvaluationSettings:
    """Build evaluation settings from keyword arguments.

    Raises:
        UnknownName: a setting does not exist.
    """
    known = [field.name for field in fields(EvaluationSettings)]
    for name in given:
        if name not in known:
            raise UnknownName("evaluation setting", name, known)
    return EvaluationSettings(**given, datasets_root=datasets_root)
