"""Dry run of a study: its cells, what is already measured, and the cost of the rest; nothing is computed or written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunelab.errors import PlanError, PrunelabError
from prunelab.models.metadata import ModelMetadata, load_outline
from prunelab.pruning.apply import needs_calibration
from prunelab.pruning.plan import PruningPlan
from prunelab.studies.grid import CutRequest, GridCell, cells_of, identity_of
from prunelab.studies.progress import title
from prunelab.studies.runner import with_data
from prunelab.studies.store import ResultsStore, StoredResult, read_stored

if TYPE_CHECKING:
    from prunelab.evaluation.runner import BenchmarkTask as BenchmarkRun
    from prunelab.studies.config import StudyConfig
    from prunelab.studies.model_entry import ModelEntry


@dataclass(frozen=True)
class CellCost:
    """The finished and missing benchmarks of a cell, and their cost.

    Attributes:
        cell: the cell.
        done: benchmarks that are already measured.
        missing: benchmarks that are not.
        tokens: known number of tokens of the missing benchmarks.
        unknown: missing benchmarks whose number of tokens is unknown.
        weight_bytes: size of the pruned model's weights; None if unknown.
    """

    cell: GridCell
    done: Sequence[str]
    missing: Sequence[str]
    tokens: int
    unknown: Sequence[str]
    weight_bytes: int | None


@dataclass(frozen=True)
class DryRun:
    """Costs of the complete grid.

    Attributes:
        cells: in the order in which they are measured.
        calibration_tokens: calibration tokens of each model that is not calibrated yet.
        notes: why something is unknown.
    """

    cells: Sequence[CellCost]
    calibration_tokens: Mapping[str, int]
    notes: Sequence[str]


def dry_run(config: StudyConfig) -> DryRun:
    """Estimate the cost of a study without loading weights, computing or writing anything.

    Finished work is recognized by the names of models, methods, ratios and seeds, by the benchmarks' data and settings,
    and by the options of the plans. Changed weights are only detected when they are loaded.
    """
    resolved = with_data(config)
    cells: list[CellCost] = []
    calibration: dict[str, int] = {}
    notes: dict[str, None] = {}
    for entry in resolved.models:
        estimator = _CostEstimator(resolved, entry, notes)
        model_cells = [estimator.cost(cell) for cell in cells_of(resolved, entry)]
        cells += model_cells
        if any(cost.missing and cost.cell.cut is not None for cost in model_cells) and not estimator.is_calibrated:
            calibration[entry.title] = estimator.calibration_tokens
    return DryRun(cells, calibration, list(notes))


@dataclass
class _CostEstimator:
    """Estimates the costs of one model of the study."""

    config: StudyConfig
    entry: ModelEntry
    notes: dict[str, None]

    @cached_property
    def outline(self) -> ModelMetadata | None:
        try:
            return load_outline(self.entry.path)
        except PrunelabError as error:
            self.notes[f"{self.entry.title}: tokens and bytes are unknown: {error}"] = None
            return None

    @cached_property
    def kept(self) -> list[tuple[Path, StoredResult]]:
        """Every valid measurement file of this model in the run's folder."""
        paths = sorted((self.config.out / "cells").glob("*/*.json"))
        results = [(path, stored) for path in paths if isinstance(stored := read_stored(path), StoredResult)]
        return [(path, stored) for path, stored in results if stored.cell.model == self.entry.title]

    @cached_property
    def plans(self) -> dict[str, PruningPlan]:
        plans = {}
        for path in sorted((self.config.out / "plans").glob("*.json")):
            try:
                plan = PruningPlan.load(path)
            except PlanError:
                continue  # the study recomputes it
            plans[plan.fingerprint] = plan
        return plans

    @property
    def is_calibrated(self) -> bool:
        """Whether the model is calibrated, or no method of the study needs calibration."""
        seed = self.config.seeds[0]
        needed = any(needs_calibration(name, self.config.pruning.options(seed)) for name in self.config.methods)
        model_plans = [plan for plan in self.plans.values() if plan.base.name == self.entry.title]
        return not needed or any(
            plan.provenance.get("calibration") and self._as_asked(plan, CutRequest(plan.method, 0.0, seed))
            for plan in model_plans
        )

    @property
    def calibration_tokens(self) -> int:
        requested = self.config.calibration
        length = requested.sequence_length
        if self.outline is not None:
            length = min(length, self.outline.context_length)
        return requested.samples * length

    def cost(self, cell: GridCell) -> CellCost:
        """The finished and missing benchmarks of a cell, and their cost."""
        done = [run for run in cell.runs if self._is_done(cell, run)]
        missing = [run for run in cell.runs if run not in done]
        tokens = {title(run): self._tokens(run) for run in missing}
        weights = None
        if self.outline is not None:
            dtype = self.entry.dtype or self.config.dtype
            weights = self.outline.weight_bytes(0.0 if cell.cut is None else cell.cut.ratio, dtype)
        return CellCost(
            cell,
            [title(run) for run in done],
            list(tokens),
            sum(count for count in tokens.values() if count is not None),
            [name for name, count in tokens.items() if count is None],
            weights,
        )

    def _is_done(self, cell: GridCell, run: BenchmarkRun) -> bool:
        identity = self._identity(run)
        store = ResultsStore(self.config.out)
        return identity is not None and any(
            self._is_cell(stored, cell) and path == store.path(stored.cell, run[0].name, identity)
            for path, stored in self.kept
        )

    def _is_cell(self, stored: StoredResult, cell: GridCell) -> bool:
        stored_cell = stored.cell
        dtype = self.entry.dtype or self.config.dtype
        if dtype not in (None, "auto", stored_cell.dtype):
            return False
        if cell.cut is None:
            return stored_cell.method == "dense"
        plan = self.plans.get(stored_cell.plan or "")
        same = (stored_cell.method, stored_cell.ratio, stored_cell.seed) == (
            cell.cut.method,
            cell.cut.ratio,
            cell.cut.seed,
        )
        return same and plan is not None and self._as_asked(plan, cell.cut)

    def _as_asked(self, plan: PruningPlan, cut: CutRequest) -> bool:
        """Whether a plan was computed with the options and calibration of the study."""
        options = self.config.pruning.model_dump(exclude={"compensation"})
        recorded = plan.provenance.get("calibration")
        if plan.provenance.get("options") != options:
            return False
        if recorded is None:
            return True
        requested = self.config.calibration
        seed = cut.seed if self.config.vary_calibration else self.config.seeds[0]
        corpus = Path(requested.corpus).name
        actual = (
            recorded.get("corpus"),
            recorded.get("samples"),
            recorded.get("sequence_length"),
            recorded.get("seed"),
        )
        return actual == (corpus, requested.samples, self.calibration_tokens // requested.samples, seed)

    def _identity(self, run: BenchmarkRun) -> dict[str, Any] | None:
        identity: dict[str, Any] | None = self._once(run, "identity", lambda: identity_of(run))
        return identity

    def _tokens(self, run: BenchmarkRun) -> int | None:
        outline = self.outline
        if outline is None:
            return None
        count: int | None = self._once(run, "tokens", lambda: run[0].expected_tokens(outline, run[1]))
        return count

    def _once(self, run: BenchmarkRun, what: str, find: Callable[[], Any]) -> Any:
        """Evaluate `find` once per model and benchmark; None, with a note, if the data are missing."""
        key = (title(run), what)
        if key not in self._found:
            try:
                self._found[key] = find()
            except PrunelabError as error:
                self.notes[f"{title(run)}: {error}"] = None
                self._found[key] = None
        return self._found[key]

    @cached_property
    def _found(self) -> dict[tuple[str, str], Any]:
        return {}
