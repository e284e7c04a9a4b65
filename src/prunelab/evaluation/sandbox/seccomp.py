"""The system call filter, as a program for the kernel's classic BPF machine.

The kernel runs it at every system call of the sandboxed process, and the process cannot remove it. The layout is linear
(compare, return, compare, return, ...): about 200 instructions without computed jumps. It needs no privilege except
`PR_SET_NO_NEW_PRIVS`.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from prunelab.evaluation.sandbox.syscalls import CHANGING_FILES, CONDITIONAL, DEADLY, HARMLESS, Numbers, number

# include/uapi/linux/bpf_common.h and seccomp.h
_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000
REFUSE: Final = 0x00050000 | errno.EPERM

# struct seccomp_data: number at 0, architecture at 4, instruction pointer at 8, six 64-bit arguments from 16
_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_ARGUMENTS_AT: Final = 16
ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_FIRST_X32_NUMBER: Final = 0x40000000

# include/uapi/asm-generic/ioctls.h: requests that Python makes when it opens a descriptor
_TCGETS, _TIOCGWINSZ, _FIONCLEX, _FIOCLEX = 0x5401, 0x5413, 0x5450, 0x5451
# include/uapi/linux/fcntl.h. F_SETOWN is excluded: with F_SETSIG it sends any signal to any process.
_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC = 0, 1, 2, 3, 1030


class _Condition(NamedTuple):
    """Allows a call if its argument (the low 32 bits, the only ones that the kernel reads) & mask is in `values`."""

    argument: int
    mask: int
    values: tuple[int, ...]


def _conditions(writing: bool) -> dict[str, _Condition]:
    """The allowed argument values of the calls in `CONDITIONAL`."""
    if writing:
        # Landlock decides by the access mode, but ignores truncation before its third version: allow O_TRUNC only
        # with an access mode that Landlock treats as writing.
        mask = os.O_ACCMODE | os.O_TRUNC
        flags: tuple[int, ...] = (
            os.O_RDONLY,
            os.O_WRONLY,
            os.O_RDWR,
            os.O_WRONLY | os.O_TRUNC,
            os.O_RDWR | os.O_TRUNC,
        )
    else:
        mask, flags = os.O_ACCMODE | os.O_TRUNC | os.O_CREAT, (os.O_RDONLY,)
    every_bit = 0xFFFFFFFF
    return {
        "open": _Condition(1, mask, flags),
        "openat": _Condition(2, mask, flags),
        "ioctl": _Condition(1, every_bit, (_TCGETS, _TIOCGWINSZ, _FIONCLEX, _FIOCLEX)),
        "fcntl": _Condition(1, every_bit, (_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_DUPFD_CLOEXEC)),
        "prlimit64": _Condition(0, every_bit, (0,)),  # process 0 is the caller; limits of other processes are excluded
    }


def build_filter(machine: str, writing: bool) -> bytes:
    """The filter for `machine` ("x86_64" or "aarch64"), an array of `struct sock_filter`, 8 bytes each.

    With `writing`, files may be opened for writing, subject to Landlock; without it, none may.
    """
    program = [
        _instruction(_LOAD, _ARCHITECTURE_AT),
        _instruction(_IF_EQUAL, ARCHITECTURES[machine], if_true=1),
        _instruction(_RETURN, KILL),  # a 32-bit system call, which has different numbers
        _instruction(_LOAD, _NUMBER_AT),
        _instruction(_IF_AT_LEAST, _FIRST_X32_NUMBER, if_false=1),
        _instruction(_RETURN, KILL),
        *_answers(HARMLESS.values(), machine, ALLOW),
        *_answers(DEADLY.values(), machine, KILL),
    ]
    if writing:
        program += _answers(CHANGING_FILES.values(), machine, ALLOW)
    for name, condition in _conditions(writing).items():
        call = number(CONDITIONAL[name], machine)
        if call is not None:
            program += _conditional_answer(call, condition)
    program.append(_instruction(_RETURN, REFUSE))
    return b"".join(program)


def _answers(calls: Iterable[Numbers], machine: str, answer: int) -> list[bytes]:
    program = []
    for numbers in calls:
        call = number(numbers, machine)
        if call is not None:
            program += [_instruction(_IF_EQUAL, call, if_false=1), _instruction(_RETURN, answer)]
    return program


def _conditional_answer(call: int, condition: _Condition) -> list[bytes]:
    body = [
        _instruction(_LOAD, _ARGUMENTS_AT + 8 * condition.argument),  # both machines are little-endian
        _instruction(_AND, condition.mask),
    ]
    for value in condition.values:
        body += [_instruction(_IF_EQUAL, value, if_false=1), _instruction(_RETURN, ALLOW)]
    body.append(_instruction(_RETURN, REFUSE))
    return [_instruction(_IF_EQUAL, call, if_false=len(body)), *body]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
