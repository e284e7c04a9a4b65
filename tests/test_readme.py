"""The README names everything that is registered, and nothing speaks of paths that others do not have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prunelab.evaluation.benchmarks import benchmarks
from prunelab.models.families import families
from prunelab.pruning.methods import methods

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", [*methods, *families, *benchmarks])
def test_the_readme_lists_all_that_is_registered(name: str) -> None:
    assert f"`{name}`" in (ROOT / "README.md").read_text()


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("https://") or (ROOT / link).exists(), link
