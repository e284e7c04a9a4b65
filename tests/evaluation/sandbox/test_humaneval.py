"""HumanEval's own solutions all pass, beside their tests and apart from them: nothing that they need is taken away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from prunelab.evaluation.sandbox import Exercise, Sandbox

SHARED = Path(os.environ.get("PRUNELAB_SHARED", Path(__file__).parents[4] / "shared"))
HUMANEVAL = SHARED / "hub/openai/openai_humaneval/openai_humaneval/test-00000-of-00001.parquet"


@pytest.mark.skipif(not HUMANEVAL.exists(), reason="no HumanEval below PRUNELAB_SHARED")
def test_every_canonical_solution_passes(sandbox: Sandbox) -> None:
    from pyarrow import parquet

    rows = parquet.read_table(HUMANEVAL).to_pylist()
    executions = sandbox.examine_all(
        [Exercise(row["prompt"], row["canonical_solution"], row["test"], row["entry_point"]) for row in rows]
    )
    assert len(executions) == 164
    assert {row["task_id"]: one for row, one in zip(rows, executions, strict=True) if not one.passed} == {}
