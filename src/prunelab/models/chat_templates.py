"""Chat templates come with a checkpoint and are programs: tried once within limits, before anything is computed."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from prunelab.errors import InvalidRequest, first_line
from prunelab.io.lazy import psutil

SECONDS = 3.0
"""Within which a template must render a short conversation; real ones take milliseconds."""
MEMORY = 1 << 30
"""Bytes that rendering may take."""
CHARACTERS = 1 << 20
"""Of a rendered short conversation at most."""

WORD = "prunelab-tries-this-template"
Messages = Sequence[dict[str, Any]]


def render(template_owner: Any, messages: Messages, **options: Any) -> str:
    """Messages as one prompt.

    Args:
        template_owner: a tokenizer or a processor of transformers.
        messages: with `role` and `content`.
        options: of `apply_chat_template`, besides `tokenize`.

    Raises:
        InvalidRequest: the template fails; says in what.
    """
    try:
        text = template_owner.apply_chat_template(list(messages), tokenize=False, **options)
    except Exception as error:
        raise InvalidRequest(f"the chat template fails ({_reason(error)}): {REMEDY}") from error
    if not isinstance(text, str):
        raise InvalidRequest(f"the chat template gives no text: {REMEDY}")
    return text


REMEDY = "mend chat_template in the tokenizer's files, or give --chat-template never where that is possible"


def check_template(name: str, template_owner: Any, content: Any = WORD) -> None:
    """Render short conversations once, within limits on time, memory and output.

    Args:
        name: what messages call the model.
        template_owner: a tokenizer or a processor of transformers that has a chat template.
        content: of the user's message; must contain `WORD`.

    Raises:
        InvalidRequest: the template fails, does not end, or leaves out what the user says.
    """

    def attempt() -> str:
        return render(template_owner, [{"role": "user", "content": content}], add_generation_prompt=True)

    status, text = _within_limits(attempt)
    if status == "error":
        raise InvalidRequest(f"{name}: {text}")
    if status == "late":
        raise InvalidRequest(
            f"{name}: the chat template does not render one short message within {SECONDS:g} seconds, "
            f"{MEMORY >> 20} MiB and {CHARACTERS:,} characters: {REMEDY}"
        )
    if WORD not in text:
        raise InvalidRequest(f"{name}: the chat template leaves out what the user says: {REMEDY}")


def _reason(error: BaseException) -> str:
    text = " ".join(first_line(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _within_limits(attempt: Callable[[], str]) -> tuple[str, str]:
    """What a function gives in a process of its own: ("text" or "error", what it says), or ("late", "")."""
    if "fork" not in multiprocessing.get_all_start_methods():
        return _in_thread(attempt)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_limited, args=(attempt, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        answer: tuple[str, str] = ours.recv() if ours.poll(SECONDS) else ("late", "")
    except EOFError:  # killed by a limit
        answer = ("late", "")
    finally:
        child.kill()
        child.join()
        ours.close()
    return answer


def _limited(attempt: Callable[[], str], answer: Connection) -> None:
    """In the child: limits, then the attempt."""
    import resource  # where processes are forked there is one

    used, seconds = psutil.Process().memory_info().vms, int(SECONDS) + 1
    for kind, most in ((resource.RLIMIT_AS, used + MEMORY), (resource.RLIMIT_CPU, seconds)):
        with suppress(ValueError, OSError):  # macOS limits no address space: the time is limited all the same
            resource.setrlimit(kind, (most, most))
    answer.send(_attempted(attempt))


def _attempted(attempt: Callable[[], str]) -> tuple[str, str]:
    try:
        text = attempt()
    except InvalidRequest as error:
        return "error", str(error)
    except MemoryError:
        return "late", ""
    return ("text", text) if len(text) <= CHARACTERS else ("late", "")


def _in_thread(attempt: Callable[[], str]) -> tuple[str, str]:
    """The same where processes cannot be forked: the time is limited, and the thread is left behind."""
    found: list[tuple[str, str]] = []
    thread = threading.Thread(target=lambda: found.append(_attempted(attempt)), daemon=True)
    thread.start()
    thread.join(SECONDS)
    return found[0] if found else ("late", "")
