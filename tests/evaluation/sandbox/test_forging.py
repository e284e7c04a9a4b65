"""No program passes by anything but its function's results: what passes beside its test alone is tampered with."""

from __future__ import annotations

from typing import Any

import pytest

from prunelab.errors import DataError
from prunelab.evaluation.benchmarks.humaneval import execute
from prunelab.evaluation.sandbox import Exercise, Limits, ProgramVerdict, Sandbox
from prunelab.evaluation.sandbox.examining import execute_apart

from .conftest import AsOrdinaryUser

PROMPT = '''import math


def scale(x: float) -> float:
    """Three times x."""
    return 3 * x


def half(x: float) -> float:
    """Half of x, as a list that holds nothing else.
    """
'''
TEST = """
METADATA = {"author": "nobody"}


def check(candidate):
    import random
    assert candidate(4) == [2.0]
    assert abs(scale(candidate(6)[0]) - 9.0) < 1e-6
    assert math.fabs(candidate(1)[0] - 0.5) < 1e-6
    for _ in range(3):
        x = random.randint(1, 100)
        assert len(candidate(x)) == 1 and candidate(x)[0] * 2 == x
"""
RIGHT = "    return [x / 2]\n"
ALWAYS_EQUAL = """
    class Equal(list):
        def __eq__(self, other): return True
        def __getitem__(self, at): return self
        def __len__(self): return 1
        def __mul__(self, other): return self
        __rmul__ = __sub__ = __rsub__ = __mul__
        def __abs__(self): return 0.0
        def __float__(self): return 0.0
    return Equal()
"""
# Passes beside its test: in the reference harness as in the sandbox's shared process.
REDEFINES = {
    "a result equal to everything": ALWAYS_EQUAL,
    "abs, fabs, len and the comparison": """
    return Everything()
import builtins
class Everything(float):
    def __eq__(self, other): return True
    def __getitem__(self, at): return self
    def __mul__(self, other): return self
builtins.abs = math.fabs = lambda x: 0.0
builtins.len = lambda x: 1
""",
    "the prompt's helper": """
    return [2.0] if x == 4 else [0.5] if x == 1 else Half(x)
def scale(x): return 9.0
class Half:
    def __init__(self, x): self.x = x
    def __len__(self): return 1
    def __getitem__(self, at): return self
    def __mul__(self, other): return self.x
""",
    "the random numbers": """
    return {4: [2.0], 6: [3.0], 1: [0.5]}[x]
import random
random.randint = lambda low, high: 4
""",
}
LOOK = """
    frame = sys._getframe()
    while frame:
        tell = frame.f_locals.get("tell")
        if tell:
            tell("passed", "")
            os._exit(0)
        frame = frame.f_back
import os, sys
"""
FORGES = {
    "by frames": LOOK,
    "by frames, when it is loaded": f"    pass\ndef forge():{LOOK}\nforge()\n",
    "by frames of an exception": """
    try:
        raise ValueError
    except ValueError as error:
        frame = error.__traceback__.tb_frame
        while frame and "tell" not in frame.f_locals:
            frame = frame.f_back
        if frame:
            frame.f_locals["tell"]("passed", "")
    import os
    os._exit(0)
""",
    "by the garbage collector": """
    for each in gc.get_objects():
        if type(each).__name__ == "Job":
            os.write(each.channel, f"\\n{each.token} passed \\n".encode())
            os._exit(0)
import gc, os
""",
    "by the runner's module": """
    main = sys.modules["__main__"]
    for each in gc.get_referrers(main.Job):
        if isinstance(each, main.Job):
            os.write(each.channel, f"\\n{each.token} passed \\n".encode())
            os._exit(0)
import gc, os, sys
""",
    "by an exit handler": f"    return x\nimport atexit\ndef forge():{LOOK}\natexit.register(forge)\nforge()\n",
    "by a signal handler": f"""
    signal.raise_signal(signal.SIGALRM)
import signal
def forge():{LOOK}
signal.signal(signal.SIGALRM, lambda *_: forge())
""",
    "by a destructor": f"    return Dies()\nclass Dies:\n    def __del__(self): forge()\ndef forge():{LOOK}\n",
    "by a trace function": f"""
    return x
import sys
def forge(*_):{LOOK}
sys.settrace(forge)
sys.setprofile(forge)
abs(1)
""",
    "by every descriptor": """
    for descriptor in range(64):
        for word in (b"passed", b"\\npassed\\n", b"=N", (2).to_bytes(8, "big") + b"=T"):
            try:
                os.write(descriptor, word)
            except OSError:
                pass
    os._exit(0)
import os
""",
    "by leaving": "    import os\n    os._exit(0)\n",
    "by sys.exit": "    import sys\n    sys.exit(0)\n",
    "by printing": "    print('passed')\n    print('\\n' + '0' * 32 + ' passed \\n')\n    raise SystemExit(0)\n",
    "by a thread": "    import threading\n    threading.Thread(target=print).start()\n",
    "by json and marshal": """
    return x
import json, marshal, struct, os
json.loads = json.dumps = marshal.loads = marshal.load = struct.unpack = lambda *_, **__: {"verdict": "passed"}
os.write = os.read = None
""",
    "by the modules of the exchange": """
    for name, module in list(sys.modules.items()):
        for each in list(vars(module or object())):
            if each in ("Writer", "Reader", "_answer", "_raised", "_send", "_receive"):
                setattr(module, each, lambda *_: b"=T")
    return x
import sys
""",
    "by __import__ and exec": """
    return x
import builtins
builtins.exec = builtins.compile = lambda *_, **__: None
builtins.__import__ = lambda *_: None
""",
}


def record(completion: str) -> dict[str, Any]:
    return {"prompt": PROMPT, "text": completion, "test": TEST, "entry_point": "half"}


def exercise(completion: str, test: str = TEST) -> Exercise:
    return Exercise(PROMPT, completion, test, "half")


@pytest.mark.parametrize("how", FORGES)
def test_no_verdict_is_forged(sandbox: Sandbox, how: str) -> None:
    (judged,) = execute([record(FORGES[how])], sandbox)
    assert judged["correct"] is False
    assert judged["verdict"] != "passed"


@pytest.mark.parametrize("how", ["by frames", "by frames of an exception", "by frames, when it is loaded"])
def test_what_is_told_in_the_programs_own_process_is_told_apart(sandbox: Sandbox, how: str) -> None:
    (judged,) = execute([record(FORGES[how])], sandbox)
    assert judged["verdict"] == "tampered"
    assert judged["detail"].startswith("apart from its test: ")


@pytest.mark.parametrize("how", REDEFINES)
def test_what_redefines_what_the_test_relies_on_is_tampered_with(sandbox: Sandbox, how: str) -> None:
    assert sandbox.run(exercise(REDEFINES[how]).program).passed, "as in the reference harness"
    (judged,) = execute([record(REDEFINES[how])], sandbox)
    assert (judged["verdict"], judged["correct"]) == ("tampered", False)


@pytest.mark.parametrize("completion", [*FORGES.values(), *REDEFINES.values()])
def test_the_process_of_the_test_alone_decides(sandbox: Sandbox, completion: str) -> None:
    """Whatever the shared process tells, a program that is asked from outside never passes."""
    assert not execute_apart(exercise(completion), sandbox.limits, sandbox.isolation).passed


BY_ORDINARY_USER = """
from prunelab.evaluation.sandbox import Exercise, Isolation, Limits
from prunelab.evaluation.sandbox.examining import examine
isolation = Isolation.of_this_machine()
for completion in {completions!r}:
    print(examine(Exercise({prompt!r}, completion, {test!r}, "half"), Limits(), isolation).verdict)
"""


@pytest.mark.usefixtures("sandbox")
def test_no_verdict_is_forged_by_an_ordinary_users_program(as_ordinary_user: AsOrdinaryUser) -> None:
    completions = [RIGHT, ALWAYS_EQUAL, LOOK, FORGES["by the garbage collector"], FORGES["by every descriptor"]]
    script = BY_ORDINARY_USER.format(completions=completions, prompt=PROMPT, test=TEST)
    verdicts = as_ordinary_user(script).split()
    assert verdicts[0] == "passed"
    assert verdicts[1:3] == ["tampered", "tampered"]
    assert "passed" not in verdicts[1:]


HONEST = {
    "as expected": RIGHT,
    "with a function of its own": "    return own(x)\ndef own(x):\n    return [x * 0.5]\n",
    "with an import of its own": "    from fractions import Fraction\n    return [Fraction(x) / 2]\n",
    "with decimals": "    import decimal\n    return [decimal.Decimal(x) / 2 if x != 6 and x != 1 else x / 2]\n",
    "with a list of another class": "    class Mine(list):\n        pass\n    return Mine([x / 2])\n",
    "printing": "    print('half of', x)\n    return [x / 2]\n",
    "catching": "    try:\n        return [x / 0]\n    except ZeroDivisionError:\n        return [x / 2]\n",
    "with names of the test": "    check = abs = len = scale = 0\n    return [x / 2]\n",
    "with a main block": "    return [x / 2]\nif __name__ == '__main__':\n    raise SystemExit(1)\n",
}


@pytest.mark.parametrize("how", HONEST)
def test_honest_programs_pass(sandbox: Sandbox, how: str) -> None:
    assert sandbox.examine(exercise(HONEST[how])).verdict is ProgramVerdict.PASSED


@pytest.mark.parametrize(
    ("completion", "test"),
    [
        ("    x.append(1)\n    return x\n", "x = [0]\n    y = candidate(x)\n    assert x == [0, 1] and y is x"),
        ("    x[0].append(x)\n", "x = [[]]\n    candidate(x)\n    assert x[0][0] is x"),
        ("    x.clear()\n    x[1] = {2}\n", "x = {0: 0}\n    candidate(x)\n    assert x == {1: {2}}"),
        ("    x ^= {1, 2}\n", "x = {1}\n    candidate(x=x)\n    assert x == {2}"),
        ("    x[:] = b'ab'\n", "x = bytearray(b'c')\n    candidate(x)\n    assert x == b'ab'"),
        ("    yield from range(x)\n", "assert list(candidate(3)) == [0, 1, 2] and next(candidate(1)) == 0"),
        ("    return range(x)\n", "assert tuple(candidate(2)) == (0, 1) and len(candidate(5)) == 5"),
        ("    return {x: 1}.keys()\n", "assert candidate(3) == {3}"),
        ("    return float('nan')\n", "assert candidate(3) != candidate(3)"),
        ("    return (x, [None, True, 2 ** 70, 'ä\\ud800'])\n", "assert candidate(3)[1][2:] == [2**70, 'ä\\ud800']"),
        (
            "    class Own(KeyError):\n        pass\n    raise Own(x)\n",
            "try:\n        candidate('k')\n    except KeyError as error:\n        assert 'k' in str(error)\n"
            "    else:\n        assert False",
        ),
        (
            "    count.append(x)\n    return len(count)\ncount = []\n",
            "assert [candidate(9), candidate(9)] == [1, 2]",
        ),
        ("    'not called'\n", "pass"),
        ("    return x\n", "assert candidate(list(range(100000))) == list(range(100000))"),
    ],
)
def test_calls_are_as_in_one_process(sandbox: Sandbox, completion: str, test: str) -> None:
    asked = exercise(completion, f"def check(candidate):\n    {test}\n")
    assert sandbox.run(asked.program).passed
    assert sandbox.examine(asked).verdict is ProgramVerdict.PASSED


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("    return [x]\n", ProgramVerdict.FAILED),
        ("    return (\n", ProgramVerdict.SYNTAX_ERROR),
        ("    while True:\n        pass\n", ProgramVerdict.TIMED_OUT),
        ("    raise ValueError(x)\n", ProgramVerdict.FAILED),
        ("    import socket\n    socket.socket()\n", ProgramVerdict.KILLED),
        ("    return [bytearray(10**12)]\n", ProgramVerdict.FAILED),
    ],
)
def test_other_programs_end_as_before(sandbox: Sandbox, completion: str, verdict: ProgramVerdict) -> None:
    ended = sandbox.examine(exercise(completion))
    assert ended.verdict is verdict
    assert ended.detail == sandbox.run(exercise(completion).program).detail


@pytest.mark.parametrize(
    ("completion", "verdict"),
    [
        ("    while True:\n        pass\n", ProgramVerdict.TIMED_OUT),
        ("    return bytearray(10**8)\n", ProgramVerdict.FAILED),
    ],
)
def test_limits_hold_apart(sandbox: Sandbox, completion: str, verdict: ProgramVerdict) -> None:
    ended = execute_apart(exercise(completion), sandbox.limits, sandbox.isolation)
    assert ended.verdict is verdict


def test_a_program_that_works_beside_its_test_alone_is_tampered_with(sandbox: Sandbox) -> None:
    endless = exercise("    while 'check' not in globals():\n        pass\n    return [x / 2]\n")
    ended = sandbox.examine(endless)
    assert ended.verdict is ProgramVerdict.TAMPERED
    assert ended.detail == "apart from its test: CPU time limit of 2 s"


def test_a_program_that_never_answers_ends_with_the_wall_clock(sandbox: Sandbox) -> None:
    ended = execute_apart(
        exercise("    import time\n    time.sleep(99)\n"), Limits(wall_seconds=0.5), sandbox.isolation
    )
    assert ended.verdict is ProgramVerdict.TIMED_OUT


def test_a_test_that_cannot_be_run_apart_is_the_data_sets_fault(sandbox: Sandbox) -> None:
    passes_function = exercise("    return [x(4)]\n", "def check(candidate):\n    assert candidate(abs) == [4]\n")
    with pytest.raises(
        DataError, match=r"cannot be run in a process separate.*builtin_function_or_method is not a plain value"
    ):
        sandbox.examine(passes_function)
    ends_elsewhere = Exercise("def half(x):\n    return (", "x / 2)\n", "def check(candidate):\n    pass\n", "half")
    with pytest.raises(DataError, match=r"cannot be run in a process separate.*the prompt is not valid Python"):
        sandbox.examine(ends_elsewhere)
    no_docstring = Exercise("def half(x):\n", "    return x\n", "def check(candidate):\n    candidate(1)\n", "half")
    assert sandbox.examine(no_docstring).passed


@pytest.mark.parametrize("word", ["unsupported", "unsealed", "sealed", "passed"])
@pytest.mark.parametrize("ending", ["return x", "os._exit(0)"])
def test_no_program_ends_the_evaluation_of_others(sandbox: Sandbox, word: str, ending: str) -> None:
    told = LOOK.replace('tell("passed", "")', f'tell("{word}", "")').replace("os._exit(0)", ending)
    assert sandbox.examine(exercise(told)).verdict in (ProgramVerdict.FAILED, ProgramVerdict.TAMPERED)


@pytest.mark.parametrize("returned", ["object()", "iter([x])", "(i for i in [x])", "range(3)", "abs", "Exception"])
def test_what_a_program_returns_can_be_passed_to_it_again(sandbox: Sandbox, returned: str) -> None:
    again = exercise(f"    return {returned}\n", "def check(candidate):\n    candidate(candidate([1]))\n")
    assert sandbox.examine(again).verdict in (ProgramVerdict.PASSED, ProgramVerdict.FAILED)
