"""What hostile, broken and good programs get, really run in a sandbox on this machine."""

from __future__ import annotations

import ast
import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from prunelab.errors import InvalidRequest
from prunelab.evaluation.sandbox import Isolation, Limits, ProgramVerdict, Sandbox
from prunelab.evaluation.sandbox.process import execute

from .conftest import caged_children

T = TypeVar("T")

GOOD = "def add(a, b):\n    return a + b\n\n\nassert add(1, 2) == 3\n"


HOSTILE = {
    "opens a socket": ("import socket\nsocket.create_connection(('127.0.0.1', 9), 1)", ProgramVerdict.KILLED),
    "opens a socket and hides it": (
        "import socket\ntry:\n    socket.socket()\nexcept BaseException:\n    pass",
        ProgramVerdict.KILLED,
    ),
    "asks for a name": ("import socket\nsocket.getaddrinfo('example.com', 80)", ProgramVerdict.KILLED),
    "writes to the home folder": (
        "import pwd, os\nopen(os.path.join({home!r}, 'prunelab-was-here'), 'w').write('x')",
        ProgramVerdict.FAILED,
    ),
    "writes to the shared temporary folder": ("open('../prunelab-was-here', 'w').write('x')", ProgramVerdict.FAILED),
    "forks without end": ("import os\nwhile True:\n    os.fork()", ProgramVerdict.KILLED),
    "starts threads without end": (
        "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(9,)).start()",
        ProgramVerdict.KILLED,
    ),
    "starts a shell": ("import os\nos.system('true')", ProgramVerdict.KILLED),
    "starts a program": ("import subprocess\nsubprocess.run(['true'])", ProgramVerdict.FAILED),
    "takes all memory": ("hoard = []\nwhile True:\n    hoard.append(bytearray(10**7))", ProgramVerdict.FAILED),
    "takes all memory at once": ("x = 'x' * 10**12", ProgramVerdict.FAILED),
    "sleeps for ever": ("import time\nwhile True:\n    time.sleep(1000)", ProgramVerdict.TIMED_OUT),
    "sleeps with its pipes closed": (
        "import os, time\nos.closerange(0, 64)\ntime.sleep(1000)",
        ProgramVerdict.TIMED_OUT,
    ),
    "loops for ever": ("while True:\n    pass", ProgramVerdict.TIMED_OUT),
    "waits for input": ("input()", ProgramVerdict.FAILED),
    "prints a gigabyte": ("for _ in range(1024):\n    print('x' * 2**20)", ProgramVerdict.KILLED),
    "prints a gigabyte of errors": (
        "import sys\nfor _ in range(1024):\n    sys.stderr.write('x' * 2**20)",
        ProgramVerdict.KILLED,
    ),
    "kills its parent": ("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)", ProgramVerdict.KILLED),
    "kills everything": ("import os, signal\nos.kill(-1, signal.SIGKILL)", ProgramVerdict.KILLED),
    "has the kernel signal its parent": (
        "import fcntl, os\nfcntl.fcntl(1, fcntl.F_SETOWN, os.getppid())",
        ProgramVerdict.FAILED,
    ),
    "lowers its parent's limits": (
        "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))",
        ProgramVerdict.FAILED,
    ),
    "raises its own limits": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        ProgramVerdict.FAILED,
    ),
    "becomes root": ("import os\nos.setuid(0)\nos.setgid(0)", ProgramVerdict.FAILED),
    "writes one large file": ("open('large', 'wb').write(bytes(2**21))", ProgramVerdict.FAILED),
    "writes many files": (
        "import itertools\nfor i in itertools.count():\n    open(str(i), 'wb').write(bytes(2**19))",
        ProgramVerdict.FAILED,
    ),
    "writes countless empty files": (
        "import itertools\nfor i in itertools.count():\n    open(str(i), 'wb').close()",
        ProgramVerdict.FAILED,
    ),
    "crashes the interpreter": ("import ctypes\nctypes.string_at(0)", ProgramVerdict.KILLED),
    "overflows the stack": (
        "import sys\nsys.setrecursionlimit(10**9)\nclass A:\n    def __repr__(self):\n        return repr([self])\n"
        "repr(A())",
        ProgramVerdict.KILLED,
    ),
    "stops itself": ("import signal\nsignal.raise_signal(signal.SIGSTOP)", ProgramVerdict.KILLED),
    "leaves as if all were well": ("import sys\nsys.exit(0)", ProgramVerdict.FAILED),
    "leaves without a word": ("import os\nos._exit(0)", ProgramVerdict.FAILED),
    "leaves by interrupt": ("raise KeyboardInterrupt", ProgramVerdict.FAILED),
    "writes verdicts to every descriptor": (
        "import os\nfor fd in range(64):\n    try:\n        os.write(fd, b'\\npassed\\n' * 9)\n"
        "    except OSError:\n        pass\nos._exit(0)",
        ProgramVerdict.FAILED,
    ),
    "floods every descriptor": (
        "import os\nwhile True:\n    for fd in range(64):\n        try:\n"
        "            os.write(fd, b'x' * 4096)\n        except OSError:\n            pass",
        ProgramVerdict.KILLED,
    ),
    "raises what cannot be printed": (
        "class E(Exception):\n    def __str__(self):\n        raise SystemExit(0)\nraise E",
        ProgramVerdict.FAILED,
    ),
    "puts its own in place of the exits": (
        "import os, builtins\nos._exit = os.write = builtins.compile = None\nassert False",
        ProgramVerdict.FAILED,
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_program_is_stopped_and_never_passes(sandbox: Sandbox, what: str) -> None:
    home = Path.home()
    program, verdict = HOSTILE[what]
    limits = replace(sandbox.limits, wall_seconds=0.5) if "sleeps" in what else sandbox.limits
    sandbox.check()
    execution = execute(program.replace("{home!r}", repr(str(home))), limits, sandbox.isolation)
    assert not execution.passed
    assert execution.verdict is verdict, execution
    assert execution.detail.isprintable()
    assert 0 < len(execution.detail) <= 200
    assert not (home / "prunelab-was-here").exists()


def test_the_run_goes_on_after_every_hostile_program_and_keeps_the_order(sandbox: Sandbox) -> None:
    kinds = [
        "opens a socket",
        "forks without end",
        "kills its parent",
        "takes all memory",
        "prints a gigabyte",
    ]
    programs = [program for kind in kinds for program in (HOSTILE[kind][0], GOOD)]
    executions = sandbox.run_all(programs, workers=3)
    assert [execution.passed for execution in executions] == [False, True] * len(kinds)


def test_no_process_no_folder_and_no_descriptor_is_left_behind(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sandbox.check()
    before = set(os.listdir("/proc/self/fd"))
    sandbox.run_all(["print('x' * 2**21)", "open('left', 'w').write('x')", GOOD], workers=3)
    assert caged_children() == []
    assert set(os.listdir("/proc/self/fd")) == before
    assert list(tmp_path.iterdir()) == []


SLEEPS_FOR_A_MINUTE = """
from prunelab.evaluation.sandbox import Isolation, Limits
from prunelab.evaluation.sandbox.process import execute
execute("import time; time.sleep(60)", Limits(wall_seconds=60), Isolation.of_this_machine())
"""


def test_a_caged_program_dies_with_the_run(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.check()
    run = subprocess.Popen([sys.executable, "-c", SLEEPS_FOR_A_MINUTE], env={**os.environ, "TMPDIR": str(tmp_path)})
    caged = _until(lambda: _sealed_child(run.pid))
    run.kill()
    run.wait()
    assert caged is not None
    _until(lambda: _is_dead(caged))


def _sealed_child(parent: int) -> int | None:
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            if "Seccomp:\t2" in Path(f"/proc/{child}/status").read_text():
                return int(child)
    return None


def _is_dead(process: int) -> bool:
    status = Path(f"/proc/{process}/status")
    return not status.exists() or "State:\tZ" in status.read_text()  # in some containers nobody reaps


def _until(happens: Callable[[], T]) -> T:
    deadline = time.monotonic() + 20
    while not (result := happens()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return result


def test_a_good_program_passes(sandbox: Sandbox) -> None:
    execution = sandbox.run(GOOD)
    assert execution.verdict is ProgramVerdict.PASSED
    assert execution.passed
    assert execution.detail == ""
    assert execution.seconds > 0


@pytest.mark.parametrize(
    ("program", "verdict", "detail"),
    [
        ("assert 1 == 2", ProgramVerdict.FAILED, "AssertionError"),
        ("assert 1 == 2, 'one\\n  \\x1b[31mtwo'", ProgramVerdict.FAILED, "AssertionError: one  [31mtwo"),
        ("raise ValueError('für ' + chr(0xD800))", ProgramVerdict.FAILED, "ValueError: für \\ud800"),
        ("{}['k']", ProgramVerdict.FAILED, "KeyError: 'k'"),
        ("import numpy", ProgramVerdict.FAILED, "ModuleNotFoundError: No module named 'numpy'"),
        ("def f(:\n", ProgramVerdict.SYNTAX_ERROR, "SyntaxError: invalid syntax (<completion>, line 1)"),
        ("x = 1\n  y = 2", ProgramVerdict.SYNTAX_ERROR, "IndentationError: unexpected indent (<completion>, line 2)"),
        ("eval('1 +')", ProgramVerdict.FAILED, "SyntaxError: invalid syntax (<string>, line 1)"),
        ("import os; os._exit(0)", ProgramVerdict.FAILED, "exited before its last line (exit code 0)"),
        ("while True: pass", ProgramVerdict.TIMED_OUT, "CPU time limit of 1 s"),
    ],
)
def test_the_detail_says_how_it_ended(sandbox: Sandbox, program: str, verdict: ProgramVerdict, detail: str) -> None:
    execution = sandbox.run(program)
    assert (execution.verdict, execution.detail) == (verdict, detail)


def test_the_wall_time_limit_is_told_from_the_processors(sandbox: Sandbox) -> None:
    sandbox.check()
    execution = execute("import time; time.sleep(60)", Limits(wall_seconds=0.5), sandbox.isolation)
    assert execution.verdict is ProgramVerdict.TIMED_OUT
    assert execution.detail == "wall time limit of 0.5 s"
    assert 0.5 <= execution.seconds < 20


@pytest.mark.parametrize(
    "program",
    [
        "'\ud800'",
        "x = '\0'",
        "(" * 10_000,
        "-" * 200_000 + "1",
        "x = " + "1 if 1 else " * 50_000 + "1",
        "\x00\xff",
    ],
)
def test_what_the_compiler_chokes_on_is_broken_syntax_or_a_crash_but_no_error_of_ours(
    sandbox: Sandbox, program: str
) -> None:
    assert sandbox.run(program).verdict in (
        ProgramVerdict.SYNTAX_ERROR,
        ProgramVerdict.KILLED,
        ProgramVerdict.TIMED_OUT,
        ProgramVerdict.FAILED,
    )


def test_runs_repeat(sandbox: Sandbox) -> None:
    program = "raise ValueError(hash('prunelab'), sorted({'a', 'b', 'c'}, key=hash), __name__)"
    assert sandbox.run(program).detail == sandbox.run(program).detail
    assert "'completion'" in sandbox.run(program).detail


def test_nothing_of_the_user_is_visible(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert sandbox.run("import os\nassert 'HF_TOKEN' not in os.environ").passed
    assert sandbox.run("import sys\nsys.stdin.seek(0)\nassert not sys.stdin.read()").passed
    assert sandbox.run("import os\nassert os.listdir() == []").passed


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/{parent}/environ", "/proc/self/mem", __file__, "~"])
def test_files_of_the_user_and_the_system_cannot_be_read(sandbox: Sandbox, path: str) -> None:
    path = os.path.expanduser(path.replace("{parent}", str(os.getpid())))
    execution = sandbox.run(f"import os\nos.open({path!r}, os.O_RDONLY)")
    assert execution.detail.startswith("PermissionError")


def test_privileges_are_gone_as_seen_from_outside(sandbox: Sandbox) -> None:
    sandbox.check()
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(sandbox.run, "import time; time.sleep(0.7)")
        (caged,) = _until(caged_children)
        _until(lambda: "Seccomp:\t2" in Path(f"/proc/{caged}/status").read_text())
        status = dict(line.split(":\t") for line in Path(f"/proc/{caged}/status").read_text().splitlines())
        assert ending.result().passed
    assert {int(status[each], 16) for each in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"
    users = {int(user) for user in status["Uid"].split() + status["Gid"].split()}
    if os.geteuid() == 0:
        assert users == {sandbox.isolation.unprivileged_user}
        assert status["Groups"].split() == []
    assert 0 not in users


def test_two_cages_run_at_the_same_time_each_in_its_own_folder(sandbox: Sandbox) -> None:
    program = """
    import os, time
    began = time.monotonic()
    assert os.listdir() == []
    if WRITES:
        open("mine", "w").close()
    time.sleep(1)
    raise ValueError(began, time.monotonic())
    """
    program = textwrap.dedent(program).replace("WRITES", str(sandbox.isolation.own_files))
    details = [execution.detail for execution in sandbox.run_all([program, program], workers=2)]
    (began, ended), (other_began, other_ended) = (ast.literal_eval(each.split(": ")[1]) for each in details)
    assert began < other_ended
    assert other_began < ended


X86_ONLY = pytest.mark.skipif(platform.machine() != "x86_64", reason="x86_64 machine code")


@X86_ONLY
@pytest.mark.parametrize(
    "code",
    [
        "b8 14 00 00 00 cd 80 c3",  # mov eax, 20; int 0x80; ret: a 32-bit system call
        "b8 39 00 00 40 0f 05 c3",  # mov eax, 0x40000039; syscall; ret: fork in the x32 numbering
        "b8 a9 01 00 00 0f 05 c3",  # mov eax, 425; syscall; ret: io_uring_setup
    ],
)
def test_machine_code_is_held_as_well(sandbox: Sandbox, code: str) -> None:
    program = f"""
    import ctypes, mmap
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes.fromhex({code!r}))
    ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    """
    execution = sandbox.run(textwrap.dedent(program))
    assert execution.verdict is ProgramVerdict.KILLED
    assert execution.detail.startswith("SIGSYS")


def test_interrupting_a_run_kills_it(sandbox: Sandbox) -> None:
    """As Ctrl-C does: the exception passes through, the caged process is dead."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.4)
    try:
        with pytest.raises(KeyboardInterrupt):
            sandbox.run("import time\ntime.sleep(1000)")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caged_children() == []


@pytest.mark.parametrize(
    "limits",
    [
        {"cpu_seconds": 0},
        {"cpu_seconds": 1.5},
        {"wall_seconds": 0.0},
        {"wall_seconds": float("nan")},
        {"memory_bytes": 1},
        {"file_bytes": -1},
        {"output_bytes": -1},
    ],
)
def test_limits_nobody_could_live_with_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest):
        Limits(**limits)  # type: ignore[arg-type]


def test_no_worker_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(InvalidRequest, match="workers is 0"):
        sandbox.run_all([GOOD], workers=0)


def test_no_program_is_no_work(sandbox: Sandbox) -> None:
    assert sandbox.run_all([]) == []


def test_every_guarantee_is_described(sandbox: Sandbox) -> None:
    lines = sandbox.describe().splitlines()
    assert [line.split(":")[0] for line in lines][:4] == ["network", "processes", "signals", "writing"]
    assert Isolation.of_this_machine() == sandbox.isolation
