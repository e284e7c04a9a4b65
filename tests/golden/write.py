"""Regenerate the golden files after an intended change of a format."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from conftest import make_tiny
from made_up_study import golden_study, golden_tables

from prunelab.pruning.apply import make_pruning_plan

if __name__ == "__main__":
    here = Path(__file__).parent
    t = make_tiny("llama")
    plan = make_pruning_plan(t.model, "flap", 0.25, statistics=t.statistics, calibration=t.calibration)
    record = json.loads(plan.to_json())
    record["provenance"]["versions"] = {}
    (here / "plan.json").write_text(json.dumps(record, indent=1) + "\n")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in golden_tables(golden_study(Path(folder))).items():
            (here / "tables" / name).write_text(text)
