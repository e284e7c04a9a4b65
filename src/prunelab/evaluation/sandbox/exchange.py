"""A test and the program under test in two processes: the protocol of calls and results.

The serving process runs the program and answers calls of its entry point. The checking process runs the test, whose
entry point forwards each call. Only `values` pass between them, so the test never sees what the program puts in place
of a built-in function, a helper, a comparison or a frame; the verdict is that of the checking process.

A message is its length (8 bytes) and its bytes. Both modules run in a sealed process, so they import nothing else.
"""

from __future__ import annotations

import builtins
import os
import sys
import types

from prunelab.evaluation.sandbox.values import NotPlainError, Reader, Writer

TYPE_CHECKING = False  # as in `typing`, whose import would take longer than everything else
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from prunelab.evaluation.sandbox.inside import Job

_START = b"start"
_RETURNED, _RAISED = b"=", b"!"
_MESSAGE_BYTES = 64 * 1024 * 1024
_READ_BYTES = 64 * 1024


class UnsupportedTest(BaseException):
    """The test cannot be run apart from the program: an error of the data set, not of the program."""


def serve(job: Job) -> None:
    """Run the program after the checking process is sealed, and answer calls until the channel closes."""
    if _receive(job.requests) is None:
        return
    module = types.ModuleType("completion")
    sys.modules["completion"] = module
    try:
        exec(compile(job.program, "<completion>", "exec", dont_inherit=True), module.__dict__)
        function = module.__dict__[job.entry_point]
    except BaseException as error:  # noqa: BLE001 - reported to the test, which it ends
        _send(job.replies, _raised(error, Writer([])))
        return
    _send(job.replies, _RETURNED + Writer([]).value(None))
    while (request := _receive(job.requests)) is not None:
        _send(job.replies, _answer(function, request))


def _answer(function: Callable[..., object], request: bytes) -> bytes:
    """Call the function; returns the new states of the argument containers, and the result or exception."""
    objects: list[object] = []
    call: Any = Reader(request, objects).value()
    arguments, named = call
    before = [Writer(objects).content(each) for each in objects]
    arguments_before = list(objects)
    try:
        result, error = function(*arguments, **named), None
    except BaseException as raised:  # noqa: BLE001 - reported to the test
        result, error = None, raised
    writer = Writer(objects)
    states = []
    for known, earlier in zip(arguments_before, before, strict=True):
        state = writer.content(known)
        states.append(b"u" if state == earlier else state)
    ending = _RETURNED + writer.value(result) if error is None else _raised(error, writer)
    return b"".join(states) + ending


def _raised(error: BaseException, writer: Writer) -> bytes:
    builtin = next(each for each in type(error).__mro__ if each.__module__ == "builtins")
    only = error.args[0] if len(error.args) == 1 and isinstance(error.args[0], str) else str(error)
    return _RAISED + writer.value((type(error).__name__, builtin.__name__, only))


def check(job: Job) -> None:
    """Run the test on the program of the serving process; returns if it passes, otherwise raises its exception."""
    module = types.ModuleType("completion")
    sys.modules["completion"] = module
    _send(job.requests, _START)
    _ended(_reply(job.replies), [])
    exec(_definitions(job.program), module.__dict__)
    module.__dict__[job.entry_point] = _entry_point(job)
    exec(compile(f"{job.test}\ncheck({job.entry_point})", "<test>", "exec", dont_inherit=True), module.__dict__)


def _definitions(prompt: str) -> types.CodeType:
    """A prompt's imports and helpers; it ends within the function to be completed, often after its docstring."""
    for source in (prompt, f"{prompt}\n    pass\n"):
        try:
            return compile(source, "<prompt>", "exec", dont_inherit=True)
        except SyntaxError as error:
            fault = error
    raise UnsupportedTest(f"the prompt is not valid Python ({fault})")


def _entry_point(job: Job) -> Callable[..., object]:
    """The function that the test calls; it forwards calls to the program."""

    def candidate(*arguments: object, **named: object) -> object:
        objects: list[object] = []
        try:
            request = Writer(objects, plain_only=True).value((arguments, named))
        except NotPlainError as error:
            raise UnsupportedTest(f"the test passes an argument that cannot be sent to the program: {error}") from None
        _send(job.requests, request)
        return _ended(_reply(job.replies), objects)

    candidate.__name__ = candidate.__qualname__ = job.entry_point
    return candidate


def _reply(channel: int) -> bytes:
    reply = _receive(channel)
    if reply is None:
        raise EOFError("the program ended its process")
    return reply


def _ended(reply: bytes, objects: list[object]) -> object:
    """Update the arguments; return the program's result or raise its exception."""
    reader = Reader(reply, objects)
    for known in list(objects):
        reader.update(known)
    ending = reader.tag()
    value: Any = reader.value()
    if ending == _RETURNED:
        return value
    name, builtin, text = value
    raise _exception(str(name), str(builtin), str(text))


def _exception(name: str, builtin: str, text: str) -> BaseException:
    known = getattr(builtins, builtin, None)
    kind: type[BaseException] = known if isinstance(known, type) and issubclass(known, BaseException) else Exception
    if name != builtin and name.isidentifier():
        kind = type(name, (kind,), {})
    try:
        return kind(text)
    except TypeError:  # such as UnicodeDecodeError, which requires more arguments
        return RuntimeError(f"{name}: {text}")


def _send(channel: int, message: bytes) -> None:
    data = memoryview(len(message).to_bytes(8, "big") + message)
    while data:
        data = data[os.write(channel, data) :]


def _receive(channel: int) -> bytes | None:
    """The next message; None if the other side has closed. Raises ValueError for a message that is too long."""
    head = _read(channel, 8)
    if head is None:
        return None
    length = int.from_bytes(head, "big")
    if length > _MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes was sent; at most {_MESSAGE_BYTES} are allowed")
    return _read(channel, length)


def _read(channel: int, length: int) -> bytes | None:
    parts = []
    while length:
        part = os.read(channel, min(length, _READ_BYTES))
        if not part:
            return None
        parts.append(part)
        length -= len(part)
    return b"".join(parts)
