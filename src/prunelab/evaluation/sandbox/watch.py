"""Watch one sandboxed process: count its output, kill it at its limits, judge its end."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time

from prunelab.errors import MissingRequirement
from prunelab.evaluation.sandbox.execution import DETAIL_CHARACTERS, Execution, Limits, ProgramVerdict
from prunelab.evaluation.sandbox.isolation import REMEDY

# A cold interpreter on a network drive starts slowly; this time does not count for the program.
_START_SECONDS = 120.0
_TICK_SECONDS = 0.05
_READ_BYTES = 64 * 1024
_MESSAGE_BYTES = 16 * 1024
_FORBIDDEN_CALL = "a system call that the sandbox forbids (network, processes, signals)"


class Watch:
    """One run, seen from the parent. It ends only with the process, which may close its pipes earlier."""

    def __init__(self, process: subprocess.Popen[bytes], channel: int, limits: Limits, token: str) -> None:
        self._process = process
        self._channel = channel
        self._limits = limits
        self._token = token.encode()
        self._said = b""
        self._printed = 0
        self._first_output = b""
        self._began = time.monotonic()
        self._sealed = False
        self._seconds = 0.0
        self._stopped: tuple[ProgramVerdict, str] | None = None

    def follow(self) -> None:
        """Return when the process has ended or was killed at a limit."""
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            for descriptor in (output, self._channel):
                os.set_blocking(descriptor, False)
                selector.register(descriptor, selectors.EVENT_READ)
            while self._process.poll() is None:
                self._wait(selector)
                self._check_time()
                self._check_amounts()
                if self._stopped is not None:
                    self._process.kill()
                    self._process.wait()
        self._seconds = time.monotonic() - self._began
        for descriptor in (output, self._channel):
            with contextlib.suppress(BlockingIOError):  # another forked process may hold the other end open
                while self._read(descriptor):
                    pass
        self._check_amounts()  # count all output, independent of when it was read

    def _wait(self, selector: selectors.BaseSelector) -> None:
        if not selector.get_map():  # the process closed its pipes, usually by ending
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_TICK_SECONDS)
            return
        for key, _ in selector.select(_TICK_SECONDS):
            if not self._read(key.fd):
                selector.unregister(key.fd)

    def _read(self, descriptor: int) -> bool:
        """Read the available data; False at the end of the pipe."""
        data = os.read(descriptor, _READ_BYTES)
        if descriptor == self._channel:
            self._said = (self._said + data)[: 2 * _MESSAGE_BYTES]
            if not self._sealed and "sealed" in self._messages():
                self._sealed, self._began = True, time.monotonic()
        else:
            self._printed += len(data)
            self._first_output = (self._first_output + data)[:DETAIL_CHARACTERS]
        return bool(data)

    def _check_time(self) -> None:
        seconds = time.monotonic() - self._began
        if self._sealed and seconds > self._limits.wall_seconds:
            self._stopped = ProgramVerdict.TIMED_OUT, f"wall time limit of {self._limits.wall_seconds:g} s"
        elif not self._sealed and seconds > _START_SECONDS:
            raise MissingRequirement(f"a Python interpreter did not start within {_START_SECONDS:.0f} s: {REMEDY}")

    def _check_amounts(self) -> None:
        limits = self._limits
        if self._stopped is not None:
            return
        if self._printed > limits.output_bytes or len(self._said) > _MESSAGE_BYTES:
            self._stopped = ProgramVerdict.KILLED, f"output limit of {limits.output_bytes} bytes"

    def _messages(self) -> dict[str, str]:
        """Messages of the process, {kind: detail}; lines without the token are output of the program."""
        messages: dict[str, str] = {}
        for line in self._said.split(b"\n"):
            token, _, message = line.partition(b" ")
            if token == self._token:
                kind, _, detail = message.decode(errors="replace").partition(" ")
                messages.setdefault(kind, _printable(detail))
        return messages

    def kill(self) -> None:
        """Kill the process; its earlier messages still count."""
        self._process.kill()

    def told(self, kind: str) -> str | None:
        """The detail of a message; trustworthy only from a process that runs no generated code."""
        return self._messages().get(kind)

    def judge(self) -> Execution:
        """The verdict, after the process has ended.

        Raises:
            MissingRequirement: the process was never sealed.
        """
        messages = self._messages()
        code = self._process.returncode
        if "sealed" not in messages:
            reason = messages.get("unsealed") or _printable(self._first_output.decode(errors="replace"))
            raise MissingRequirement(
                f"generated code cannot be isolated on this machine ({reason or f'exit code {code}'}): {REMEDY}"
            )
        if self._stopped is not None:
            return self._execution(*self._stopped)
        if code < 0:
            return self._ended_by_signal(-code)
        for verdict in (ProgramVerdict.PASSED, ProgramVerdict.FAILED, ProgramVerdict.SYNTAX_ERROR):
            if verdict in messages and code == 0:
                return self._execution(verdict, messages[verdict])
        return self._execution(ProgramVerdict.FAILED, f"exited before its last line (exit code {code})")

    def _ended_by_signal(self, number: int) -> Execution:
        if number == signal.SIGXCPU:
            return self._execution(ProgramVerdict.TIMED_OUT, f"CPU time limit of {self._limits.cpu_seconds} s")
        if number == signal.SIGSYS:
            return self._execution(ProgramVerdict.KILLED, f"SIGSYS: {_FORBIDDEN_CALL}")
        if number == signal.SIGKILL:
            return self._execution(ProgramVerdict.KILLED, "SIGKILL: CPU time limit, or the machine is out of memory")
        return self._execution(ProgramVerdict.KILLED, signal.strsignal(number) or f"signal {number}")

    def _execution(self, verdict: ProgramVerdict, detail: str) -> Execution:
        return Execution(verdict, self._seconds, detail)


def _printable(text: str) -> str:
    """One line without control characters, which a program could use to control the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)[:DETAIL_CHARACTERS].strip()
