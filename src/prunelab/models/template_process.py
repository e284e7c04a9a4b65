"""Chat templates are rendered in a process of their own, within limits on time, memory and output.

A template is a program that came with a checkpoint, and each of its renderings may be the one that does not end. The
process is forked once for a template and serves every rendering; where it exceeds a limit it is killed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Literal

import psutil

from prunelab.errors import first_line

SECONDS = 3.0
"""Of processor time within which a template must render; real ones take milliseconds."""
WALL = 2.5
"""So many times the processor time may pass on a busy machine."""
MEMORY = 1 << 30
"""Bytes that rendering may take."""
CHARACTERS = 1 << 20
"""Of a rendered conversation at most, besides `EACH` for every character of the messages."""
EACH = 16

Messages = Sequence[dict[str, Any]]
Answer = tuple[Literal["text", "error", "late"], Any]
"""What was rendered, an error's message, or nothing where a limit was exceeded."""

_processes: weakref.WeakKeyDictionary[Any, _Process] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def render_within_limits(template_owner: Any, messages: Messages, options: dict[str, Any]) -> Answer:
    """Render a conversation.

    Args:
        template_owner: a tokenizer or a processor of transformers.
        messages: with `role` and `content`.
        options: of `apply_chat_template`, besides `tokenize`.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return _in_thread(template_owner, messages, options)
    with _lock:
        process = _processes.get(template_owner)
        if process is None or not process.serves(template_owner):
            if process is not None:
                process.kill()
            process = _processes[template_owner] = _Process(template_owner)
        return process.render(messages, options)


class _Process:
    """A forked process that renders the template of one tokenizer."""

    def __init__(self, template_owner: Any) -> None:
        self._template = getattr(template_owner, "chat_template", None)
        self._parent = os.getpid()
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self._child = context.Process(target=_serve, args=(template_owner, theirs, self._connection), daemon=True)
        self._child.start()
        theirs.close()
        weakref.finalize(template_owner, _end, self._child, self._connection, self._parent)

    def serves(self, template_owner: Any) -> bool:
        """Whether the process lives, was started by this one, and has the template as it is now."""
        same = self._template == getattr(template_owner, "chat_template", None)
        return same and self._parent == os.getpid() and self._child.is_alive()

    def render(self, messages: Messages, options: dict[str, Any]) -> Answer:
        """Render a conversation; the process is killed where a limit is exceeded."""
        try:
            self._connection.send((list(messages), options, SECONDS))
            if self._connection.poll(SECONDS * WALL):
                answer: Answer = self._connection.recv()
                return answer
        except (EOFError, OSError):  # killed by a limit
            pass
        self.kill()
        return "late", None

    def kill(self) -> None:
        """End the process."""
        _end(self._child, self._connection, self._parent)


def _end(child: Any, connection: Connection, parent: int) -> None:
    if parent == os.getpid():  # a fork of the parent has the object, and not the child
        child.kill()
        child.join()
    connection.close()


def _serve(template_owner: Any, connection: Connection, of_parent: Connection) -> None:
    """In the child: render what is asked for until the parent is gone."""
    import resource  # where processes are forked there is one

    of_parent.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    parent, process = os.getppid(), psutil.Process()
    with suppress(ValueError, OSError):  # macOS limits no address space: the time is limited all the same
        most = process.memory_info().vms + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    while True:
        while not connection.poll(5):
            if os.getppid() != parent:
                return
        try:
            messages, options, seconds = connection.recv()
        except (EOFError, OSError):
            return
        used = process.cpu_times()
        limit = int(used.user + used.system + seconds) + 1
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))
        connection.send(_attempted(template_owner, messages, options))


def _attempted(template_owner: Any, messages: Messages, options: dict[str, Any]) -> Answer:
    try:
        text = template_owner.apply_chat_template(list(messages), tokenize=False, **options)
    except MemoryError:
        return "late", None
    except Exception as error:  # noqa: BLE001 - whatever a template raises is the answer
        return "error", _reason(error)
    if not isinstance(text, str):
        return "error", None
    return ("text", text) if len(text) <= CHARACTERS + EACH * len(str(messages)) else ("late", None)


def _reason(error: BaseException) -> str:
    text = " ".join(first_line(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _in_thread(template_owner: Any, messages: Messages, options: dict[str, Any]) -> Answer:
    """The same where processes cannot be forked: the time is limited, and the thread is left behind."""
    found: list[Answer] = []
    thread = threading.Thread(target=lambda: found.append(_attempted(template_owner, messages, options)), daemon=True)
    thread.start()
    thread.join(SECONDS * WALL)
    return found[0] if found else ("late", None)
