"""Commands that only print, list or read results import no library of models or data sets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from scipy.special import ndtri
from typer.main import get_command

from prunelab import cli
from prunelab.io import lazy
from prunelab.stats import paired_tests
from prunelab.stats.paired_tests import LEVEL, Z

HEAVY = ("torch", "transformers", "datasets", "lm_eval")
EARLIER = Path(__file__).parents[1] / "earlier" / "run"
COMMANDS = sorted(get_command(cli.load_commands()).commands)  # type: ignore[attr-defined]
RUNS = [
    ["--help"], ["--version"], *([name, "--help"] for name in COMMANDS),
    *(["list", what] for what in ("methods", "benchmarks", "suites", "families")),
    ["results", "RUN"], ["results", "RUN", "--csv"], ["results", "RUN", "--benchmark", "boolq"],
    ["compare", "RUN", "RUN"], ["recommend", "--keep", "90%"], ["report", "RUN"],
]  # fmt: skip
PROGRAM = f"""
import json, sys
from prunelab.cli import main
seen = {{}}
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["prunelab", *arguments]
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code
    seen[" ".join(arguments)] = [code, [name for name in {HEAVY} if name in sys.modules]]
print("SEEN", json.dumps(seen))
"""


def imported(commands: list[list[str]], before: str = "") -> dict[str, tuple[int, list[str]]]:
    """Of commands run one after the other in one new process: exit codes, and heavy libraries imported so far."""
    done = subprocess.run(
        [sys.executable, "-c", before + PROGRAM, json.dumps(commands)], check=True, capture_output=True, text=True
    )
    return {name: (code, heavy) for name, (code, heavy) in json.loads(done.stdout.split("SEEN ")[-1]).items()}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, tuple[int, list[str]]]:
    run = tmp_path_factory.mktemp("quick") / "run"
    shutil.copytree(EARLIER, run)
    commands = [[str(run) if word == "RUN" else word for word in words] for words in RUNS]
    return {name.replace(str(run), "RUN"): result for name, result in imported(commands).items()}


@pytest.mark.parametrize("command", [" ".join(words) for words in RUNS])
def test_imports_no_library_of_models_or_data_sets(seen: Mapping[str, tuple[int, list[str]]], command: str) -> None:
    assert seen[command] == (0, [])


def test_a_recommendation_from_a_run_imports_none_either(tmp_path: Path) -> None:
    shutil.copytree(EARLIER, tmp_path / "run")
    # No benchmark of this run is above chance, which is found only after its figures have been read.
    ((code, heavy),) = imported([["recommend", str(tmp_path / "run")]]).values()
    assert (code, heavy) == (2, [])


def test_a_library_that_is_imported_is_seen() -> None:
    ((code, heavy),) = imported([["--version"]], before="import torch").values()
    assert (code, heavy) == (0, ["torch"])


@pytest.mark.parametrize("name", ["xml.dom.minidom", "wave", "plistlib"])
def test_a_lazy_module_is_the_module_itself_once_it_is_used(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, name, raising=False)
    stand_in = vars(lazy)["_LazyModule"](name)
    monkeypatch.setattr(lazy, "nn", stand_in)
    monkeypatch.setattr("prunelab.stats.paired_tests.special", stand_in)
    assert name not in sys.modules
    assert stand_in.__file__.endswith(".py")
    module = sys.modules[name]
    assert vars(lazy)["nn"] is vars(paired_tests)["special"] is module
    assert dir(stand_in) == dir(module)
    stand_in.answer = 42
    assert vars(module)["answer"] == 42
    del stand_in.answer
    with pytest.raises(AttributeError, match="answer"):
        _ = stand_in.answer


@pytest.mark.parametrize("package", ["prunelab.inference", "prunelab.calibration", "prunelab.reports"])
def test_every_public_name_of_a_lazy_package_can_be_imported(package: str) -> None:
    code = f"from {package} import *; import {package} as p; assert all(n in globals() for n in p.__all__), p.__all__"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_lazy_package_names_what_it_lacks() -> None:
    with pytest.raises(ImportError, match="nothing_such"):
        exec("from prunelab.inference import nothing_such")


@pytest.mark.parametrize("generator", [False, True])
def test_inference_mode_covers_functions_and_generators(generator: bool) -> None:
    import torch

    @lazy.inference_mode
    def function() -> bool:
        """Asks torch."""
        return torch.is_inference_mode_enabled()

    @lazy.inference_mode
    def steps():  # type: ignore[no-untyped-def]
        yield torch.is_inference_mode_enabled()
        yield torch.is_inference_mode_enabled()

    assert not torch.is_inference_mode_enabled()
    if generator:
        for inside in steps():
            assert inside
            assert not torch.is_inference_mode_enabled()
    else:
        assert function()
        assert (function.__name__, function.__doc__) == ("function", "Asks torch.")
    assert not torch.is_inference_mode_enabled()


def test_the_normal_quantile_that_is_written_down_is_scipys() -> None:
    assert float(ndtri(1 - LEVEL / 2)) == Z


SILENT = """
import logging
from prunelab.cli.terminal import quieten
quieten()
import datasets, huggingface_hub, transformers
from datasets.utils import are_progress_bars_disabled as data
from huggingface_hub.utils import are_progress_bars_disabled as hub
assert hub() and data() and not transformers.logging.is_progress_bar_enabled()
levels = [logging.getLogger(name).getEffectiveLevel() for name in ("datasets", "huggingface_hub", "transformers")]
assert levels == [logging.CRITICAL, logging.CRITICAL, logging.ERROR], levels
"""


@pytest.mark.parametrize("before", ["", "import datasets, transformers"])
def test_libraries_are_quiet_whether_they_are_imported_before_or_after(before: str) -> None:
    subprocess.run([sys.executable, "-c", before + SILENT], check=True)
