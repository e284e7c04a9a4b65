"""`lm_eval:TASK` and `lm_eval:FILE.yaml`: any task that lm-eval defines, or a definition of the user's own."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from prunelab.errors import InvalidRequest, first_line
from prunelab.evaluation.benchmarks import register_with_argument
from prunelab.evaluation.benchmarks.lm_eval.benchmark import LmEvalBenchmark
from prunelab.evaluation.benchmarks.lm_eval.definition import Definition, tasks_folder
from prunelab.evaluation.benchmarks.lm_eval.scores import Metric
from prunelab.io.data_rows import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OUTPUT_TYPES = ("multiple_choice", "generate_until")
SHARES = ("acc", "acc_norm", "exact_match")
"""lm-eval's metrics of which every document's value is right or wrong, so that paired tests apply."""


class AnyRow(Row):
    """The columns of a task are not known beforehand."""


@register_with_argument("lm_eval:TASK")
class LmEvalTask(LmEvalBenchmark):
    """One task of lm-eval, run by prunelab's scorer and sampler and judged by lm-eval's metrics.

    Tasks of output type `multiple_choice` and `generate_until` are supported, and of their metrics `acc`, `acc_norm`
    and `exact_match`. A definition may name Python functions (`!function`); they run in this process, so that a file
    from somebody else is code from somebody else.

    Args:
        path: of the YAML file; relative to lm-eval's folder of tasks, or absolute.
        fields: what the file defines, functions unresolved.
    """

    title: ClassVar[str] = "any single task of lm-eval, by its name or by a YAML file"
    primary: ClassVar[str] = "acc"
    row = AnyRow

    def __init__(self, path: Path, fields: Mapping[str, Any]) -> None:
        self.definition = str(path)  # type: ignore[misc]
        self.name = f"lm_eval:{fields['task']}"
        self.title = f"{fields['task']}, as lm-eval or a file defines it"  # type: ignore[misc]
        self.metrics = tuple(_metrics(fields))  # type: ignore[misc]
        self.primary = self.metrics[0].name  # type: ignore[misc]
        self.shots = int(fields.get("num_fewshot") or 0)  # type: ignore[misc]
        self.scores_likelihoods = fields["output_type"] == "multiple_choice"  # type: ignore[misc]

    @classmethod
    def from_argument(cls, argument: str) -> LmEvalTask:
        """The task of that name, or the one that a YAML file defines.

        Raises:
            InvalidRequest: no such file, no such task, or a definition that is not supported.
        """
        path = Path(argument).absolute() if argument.endswith((".yaml", ".yml")) else _defined(argument)
        try:
            fields = Definition(str(path), AnyRow, "").fields(resolve=False)
        except Exception as error:
            raise InvalidRequest(
                f"lm_eval:{argument} cannot be read ({first_line(error)}): correct the file"
            ) from error
        if not isinstance(fields.get("task"), str) or fields.get("output_type") not in OUTPUT_TYPES:
            raise InvalidRequest(
                f"lm_eval:{argument} is a task of output type {fields.get('output_type')!r}: give a single task (no "
                f"group) of type {' or '.join(OUTPUT_TYPES)}"
            )
        if not list(_metrics(fields)):
            raise InvalidRequest(f"lm_eval:{argument} has none of the metrics {', '.join(SHARES)}: give another task")
        return cls(path, fields)


def _metrics(fields: Mapping[str, Any]) -> Iterator[Metric]:
    """The task's metrics that are shares of right documents, each with each of the task's filters."""
    default = [{"metric": name} for name in ("acc", "acc_norm")] if fields["output_type"] == "multiple_choice" else []
    filters = [str(entry["name"]) for entry in fields.get("filter_list") or ()] or ["none"]
    for index, name in enumerate(filters):
        for entry in fields.get("metric_list") or default:
            metric = entry.get("metric")
            if metric in SHARES:
                yield Metric(metric if index == 0 else f"{metric} ({name})", f"{metric},{name}")


def _defined(task: str) -> Path:
    """The file in lm-eval's folder that defines a task, relative to that folder."""
    folder, wanted = tasks_folder(), re.compile(rf"^task:\s*['\"]?{re.escape(task)}['\"]?\s*$", re.MULTILINE)
    known = []
    for path in sorted(folder.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if wanted.search(text):
            return path.relative_to(folder)
        known += re.findall(r"^task:\s*['\"]?([\w.-]+)['\"]?\s*$", text, re.MULTILINE)
    near = difflib.get_close_matches(task, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InvalidRequest(f"lm-eval defines no task {task!r}: {hint}give one of its names, or a YAML file")
