"""What a study would do: its cells, what of them is done, and what the rest costs; nothing is computed or written."""

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
    """A cell, what is done of it and what is missing.

    Attributes:
        cell: which.
        done: benchmarks that are measured.
        missing: benchmarks that are not.
        tokens: of the missing ones, as far as known.
        unknown: missing ones whose tokens are not known.
        weight_bytes: the model's when it is cut; None where not known.
    """

    cell: GridCell
    done: Sequence[str]
    missing: Sequence[str]
    tokens: int
    unknown: Sequence[str]
    weight_bytes: int | None


@dataclass(frozen=True)
class DryRun:
    """The whole grid.

    Attributes:
        cells: in the order in which they are measured.
        calibration_tokens: by model that is still to be calibrated, the tokens of it.
        notes: why something is not known.
    """

    cells: Sequence[CellCost]
    calibration_tokens: Mapping[str, int]
    notes: Sequence[str]


def dry_run(config: StudyConfig) -> DryRun:
    """Look at a study without loading weights, computing or writing anything.

    What is done is told by the names of models, methods, ratios and seeds, by the benchmarks' data and settings, and by
    how plans were made; whether the weights are still the same is only seen when they are loaded.
    """
    resolved = with_data(config)
    cells: list[CellCost] = []
    calibration: dict[str, int] = {}
    notes: dict[str, None] = {}
    for entry in resolved.models:
        look = _CostEstimator(resolved, entry, notes)
        own = [look.cost(cell) for cell in cells_of(resolved, entry)]
        cells += own
        if any(one.missing and one.cell.cut is not None for one in own) and not look.is_calibrated:
            calibration[entry.title] = look.calibration_tokens
    return DryRun(cells, calibration, list(notes))


@dataclass
class _CostEstimator:
    """One model of the study, looked at."""

    config: StudyConfig
    entry: ModelEntry
    notes: dict[str, None]

    @cached_property
    def outline(self) -> ModelMetadata | None:
        try:
            return load_outline(self.entry.path)
        except PrunelabError as error:
            self.notes[f"{self.entry.title}: tokens and bytes are not known: {error}"] = None
            return None

    @cached_property
    def kept(self) -> list[tuple[Path, StoredResult]]:
        """Every whole measurement file of this model in the run's folder."""
        paths = sorted((self.config.out / "cells").glob("*/*.json"))
        found = [(path, kept) for path in paths if isinstance(kept := read_stored(path), StoredResult)]
        return [(path, kept) for path, kept in found if kept.cell.model == self.entry.title]

    @cached_property
    def plans(self) -> dict[str, PruningPlan]:
        found = {}
        for path in sorted((self.config.out / "plans").glob("*.json")):
            try:
                plan = PruningPlan.load(path)
            except PlanError:
                continue  # the study makes it anew
            found[plan.fingerprint] = plan
        return found

    @property
    def is_calibrated(self) -> bool:
        """Whether there are statistics of this model, or no method of the study needs any."""
        seed = self.config.seeds[0]
        needed = any(needs_calibration(name, self.config.pruning.options(seed)) for name in self.config.methods)
        own = [plan for plan in self.plans.values() if plan.base.name == self.entry.title]
        return not needed or any(
            plan.provenance.get("calibration") and self._as_asked(plan, CutRequest(plan.method, 0.0, seed))
            for plan in own
        )

    @property
    def calibration_tokens(self) -> int:
        asked = self.config.calibration
        length = asked.sequence_length
        if self.outline is not None:
            length = min(length, self.outline.context_length)
        return asked.samples * length

    def cost(self, cell: GridCell) -> CellCost:
        """What is done of a cell, and what the rest costs."""
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
            self._is_cell(kept, cell) and path == store.path(kept.cell, run[0].name, identity)
            for path, kept in self.kept
        )

    def _is_cell(self, kept: StoredResult, cell: GridCell) -> bool:
        found = kept.cell
        dtype = self.entry.dtype or self.config.dtype
        if dtype not in (None, "auto", found.dtype):
            return False
        if cell.cut is None:
            return found.method == "dense"
        plan = self.plans.get(found.plan or "")
        same = (found.method, found.ratio, found.seed) == (cell.cut.method, cell.cut.ratio, cell.cut.seed)
        return same and plan is not None and self._as_asked(plan, cell.cut)

    def _as_asked(self, plan: PruningPlan, cut: CutRequest) -> bool:
        """Whether a plan was made with the study's options and calibration."""
        options = self.config.pruning.model_dump(exclude={"compensation"})
        made = plan.provenance.get("calibration")
        if plan.provenance.get("options") != options:
            return False
        if made is None:
            return True
        asked = self.config.calibration
        seed = cut.seed if self.config.vary_calibration else self.config.seeds[0]
        corpus = Path(asked.corpus).name
        found = (made.get("corpus"), made.get("samples"), made.get("sequence_length"), made.get("seed"))
        return found == (corpus, asked.samples, self.calibration_tokens // asked.samples, seed)

    def _identity(self, run: BenchmarkRun) -> dict[str, Any] | None:
        found: dict[str, Any] | None = self._once(run, "identity", lambda: identity_of(run))
        return found

    def _tokens(self, run: BenchmarkRun) -> int | None:
        outline = self.outline
        if outline is None:
            return None
        found: int | None = self._once(run, "tokens", lambda: run[0].expected_tokens(outline, run[1]))
        return found

    def _once(self, run: BenchmarkRun, what: str, find: Callable[[], Any]) -> Any:
        """What is found of a benchmark, once for the whole model; None, with a note, where its data are missing."""
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
