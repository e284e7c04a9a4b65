"""Ctrl-C at any moment of the start: exit code 130 and one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import prunelab
from prunelab import cli

AT_IMPORT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            os.environ["INTERRUPT_AT"] = ""
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize(
    "module", ["typer", "rich.console", "prunelab.cli.prune", "datasets", "torch._C", "transformers"]
)
@pytest.mark.parametrize(
    "start", [["-m", "prunelab"], ["-c", "from prunelab.cli import main; main()"]], ids=["m", "script"]
)
def test_ctrl_c_while_libraries_are_imported(module: str, start: list[str], tmp_path: Path) -> None:
    if start[0] == "-c" and module not in ("typer", "transformers"):
        pytest.skip("one way to start is enough for these")
    (tmp_path / "sitecustomize.py").write_text(AT_IMPORT)
    ran = subprocess.run(
        [
            sys.executable,
            *start,
            "prune",
            "pocket-llama",
            "--method",
            "magnitude_width",
            "--ratio",
            "0.2",
            "--out",
            "cut",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "INTERRUPT_AT": module},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (130, "interrupted: completed work is kept\n"), ran


def test_ctrl_c_that_a_library_turns_into_another_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def application(**options: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("cannot import name 'x'") from None

    monkeypatch.setattr(cli, "load_commands", lambda: application)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "interrupted: completed work is kept\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_nothing_heavy_is_imported_before_the_handler_is_set() -> None:
    code = "import sys, prunelab.cli; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"torch", "transformers", "datasets", "rich", "typer", "pydantic", "numpy"} & set(ran.stdout.split())
    assert prunelab.__version__


def test_a_reader_that_leaves_is_no_error() -> None:
    ran = subprocess.run(
        f"{sys.executable} -m prunelab list benchmarks | true; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in ran.stderr
    assert not ran.stderr
