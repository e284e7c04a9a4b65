"""Render chat templates. A template is a program from the checkpoint, so it is first tested within limits."""

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
"""Time limit for rendering a short conversation; real templates take milliseconds."""
MEMORY = 1 << 30
"""Memory limit for rendering, in bytes."""
CHARACTERS = 1 << 20
"""The most characters of a rendered short conversation."""

WORD = "prunelab-tries-this-template"
Messages = Sequence[dict[str, Any]]


def render(template_owner: Any, messages: Messages, **options: Any) -> str:
    """Render messages as a prompt.

    Args:
        template_owner: a tokenizer or a processor of transformers.
        messages: each with `role` and `content`.
        options: options of `apply_chat_template`, besides `tokenize`.

    Raises:
        InvalidRequest: the template fails; names the reason.
    """
    try:
        text = template_owner.apply_chat_template(list(messages), tokenize=False, **options)
    except Exception as error:
        raise InvalidRequest(f"the chat template fails ({_reason(error)}): {REMEDY}") from error
    if not isinstance(text, str):
        raise InvalidRequest(f"the chat template renders no text: {REMEDY}")
    return text


REMEDY = "fix chat_template in the tokenizer's files, or give --chat-template never if the command has this option"


def check_template(name: str, template_owner: Any, content: Any = WORD) -> None:
    """Render a short conversation once, within limits on time, memory and output.

    Args:
        name: the model's name in error messages.
        template_owner: a tokenizer or a processor of transformers that has a chat template.
        content: content of the user's message; must contain `WORD`.

    Raises:
        InvalidRequest: the template fails, exceeds a limit, or leaves out the user's message.
    """

    def attempt() -> str:
        return render(template_owner, [{"role": "user", "content": content}], add_generation_prompt=True)

    status, text = _within_limits(attempt)
    if status == "error":
        raise InvalidRequest(f"{name}: {text}")
    if status == "late":
        raise InvalidRequest(
            f"{name}: the chat template does not render a short message within {SECONDS:g} seconds, "
            f"{MEMORY >> 20} MiB and {CHARACTERS:,} characters: {REMEDY}"
        )
    if WORD not in text:
        raise InvalidRequest(f"{name}: the chat template leaves out the user's message: {REMEDY}")


def _reason(error: BaseException) -> str:
    text = " ".join(first_line(error).split())
    return text if len(text) <= 200 else f"{text[:197]}..."


def _within_limits(attempt: Callable[[], str]) -> tuple[str, str]:
    """Run a function in a separate process: ("text", result), ("error", message), or ("late", "") at a limit."""
    if "fork" not in multiprocessing.get_all_start_methods():
        return _in_thread(attempt)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_limited, args=(attempt, sender), daemon=True)
    child.start()
    sender.close()
    try:
        answer: tuple[str, str] = receiver.recv() if receiver.poll(SECONDS) else ("late", "")
    except EOFError:  # killed by a limit
        answer = ("late", "")
    finally:
        child.kill()
        child.join()
        receiver.close()
    return answer


def _limited(attempt: Callable[[], str], answer: Connection) -> None:
    """In the child process: set the limits, then run the function."""
    import resource  # exists on every system that forks

    used, seconds = psutil.Process().memory_info().vms, int(SECONDS) + 1
    for kind, most in ((resource.RLIMIT_AS, used + MEMORY), (resource.RLIMIT_CPU, seconds)):
        with suppress(ValueError, OSError):  # macOS cannot limit the address space; the time limit still holds
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
    """The same for systems without fork: only the time is limited, and a late thread keeps running."""
    results: list[tuple[str, str]] = []
    thread = threading.Thread(target=lambda: results.append(_attempted(attempt)), daemon=True)
    thread.start()
    thread.join(SECONDS)
    return results[0] if results else ("late", "")
