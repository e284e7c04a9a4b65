"""The filter on system calls, run by a small BPF machine of our own: both architectures on either."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import pytest

from prunelab.evaluation.sandbox.seccomp import ALLOW, ARCHITECTURES, KILL, REFUSE, build_filter
from prunelab.evaluation.sandbox.syscalls import (
    CHANGING_FILES,
    CONDITIONAL,
    DEADLY,
    HARMLESS,
    MACHINES,
    Numbers,
    number,
)

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
F_SETOWN, TIOCSTI = 8, 0x5412
MOUNT = {"x86_64": 165, "aarch64": 40}


def answer(program: bytes, architecture: int, call: int, *arguments: int) -> int:
    """What the kernel would answer: classic BPF over `struct seccomp_data`."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", call, architecture, 0, *padded)
    accumulator = at = 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x15:
            at += if_true if accumulator == value else if_false
        elif code == 0x35:
            at += if_true if accumulator >= value else if_false
        elif code == 0x06:
            return int(value)
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


def ask(machine: str, calls: dict[str, Numbers], name: str, *arguments: int, writing: bool = True) -> int:
    call = number(calls[name], machine)
    assert call is not None
    return answer(build_filter(machine, writing), ARCHITECTURES[machine], call, *arguments)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("writing", [True, False])
def test_every_call_gets_its_answer(machine: str, writing: bool) -> None:
    program, architecture = build_filter(machine, writing), ARCHITECTURES[machine]
    expected = {
        **{call: ALLOW for numbers in HARMLESS.values() if (call := number(numbers, machine)) is not None},
        **{call: KILL for numbers in DEADLY.values() if (call := number(numbers, machine)) is not None},
    }
    for numbers in CHANGING_FILES.values():
        if (call := number(numbers, machine)) is not None:
            expected[call] = ALLOW if writing else REFUSE
    conditional = {number(numbers, machine) for numbers in CONDITIONAL.values()}
    for call in set(range(600)) - conditional:
        assert answer(program, architecture, call) == expected.get(call, REFUSE), call


@pytest.mark.parametrize("machine", MACHINES)
def test_another_architecture_is_killed(machine: str) -> None:
    program = build_filter(machine, writing=True)
    i386, arm = 0x40000003, 0x40000028
    assert answer(program, i386, 1) == answer(program, arm, 1) == KILL
    assert answer(program, ARCHITECTURES[machine], 0x40000000 + 1) == KILL


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("flags", "with_landlock", "without"),
    [
        (os.O_RDONLY | os.O_CLOEXEC, ALLOW, ALLOW),
        (os.O_RDONLY | os.O_DIRECTORY, ALLOW, ALLOW),
        (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, ALLOW, REFUSE),
        (os.O_RDWR, ALLOW, REFUSE),
        (os.O_WRONLY | os.O_APPEND, ALLOW, REFUSE),
        (os.O_CREAT, ALLOW, REFUSE),
        (os.O_TRUNC, REFUSE, REFUSE),
        (os.O_TRUNC | os.O_ACCMODE, REFUSE, REFUSE),
        (os.O_ACCMODE, REFUSE, REFUSE),
        (os.O_TMPFILE | os.O_RDWR, ALLOW, REFUSE),
    ],
)
def test_opening(machine: str, flags: int, with_landlock: int, without: int) -> None:
    assert ask(machine, CONDITIONAL, "openat", 0, 0, flags, writing=True) == with_landlock
    assert ask(machine, CONDITIONAL, "openat", 0, 0, flags, writing=False) == without


@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_that_reach_others_are_refused(machine: str) -> None:
    assert ask(machine, CONDITIONAL, "prlimit64", 0, 7) == ALLOW
    assert ask(machine, CONDITIONAL, "prlimit64", 1, 7) == REFUSE
    assert ask(machine, CONDITIONAL, "fcntl", 1, 1) == ALLOW
    assert ask(machine, CONDITIONAL, "fcntl", 1, F_SETOWN) == REFUSE
    assert ask(machine, CONDITIONAL, "fcntl", 1, (1 << 32) + F_SETOWN) == REFUSE
    assert ask(machine, CONDITIONAL, "ioctl", 0, 0x5401) == ALLOW
    assert ask(machine, CONDITIONAL, "ioctl", 0, TIOCSTI) == REFUSE
    assert answer(build_filter(machine, True), ARCHITECTURES[machine], MOUNT[machine]) == REFUSE


@pytest.mark.parametrize("machine", MACHINES)
def test_the_filter_fits_the_kernel(machine: str) -> None:
    assert len(build_filter(machine, writing=True)) < 8 * 4096


@pytest.mark.parametrize("machine", MACHINES)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip("the kernel's headers are not installed")
    header = HEADERS[machine].read_text()
    known = {name: int(value) for name, value in re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", header)}
    known.setdefault("newfstatat", known.get("fstatat", -1))
    for calls in (HARMLESS, CHANGING_FILES, CONDITIONAL, DEADLY):
        for name, numbers in calls.items():
            assert number(numbers, machine) == known.get(name), name
