"""Chat templates are programs that come with a checkpoint: tried before computing, and rendered within limits."""

from __future__ import annotations

from typing import Any

from prunelab.errors import InvalidRequest
from prunelab.models import template_process
from prunelab.models.template_process import CHARACTERS, MEMORY, Messages, render_within_limits

WORD = "prunelab-tries-this-template"
REMEDY = "fix chat_template in the tokenizer's files, or give --chat-template never if the command has this option"


def render(template_owner: Any, messages: Messages, **options: Any) -> str:
    """Render messages as one prompt, within limits on time, memory and output.

    Args:
        template_owner: a tokenizer or a processor of transformers.
        messages: with `role` and `content`.
        options: of `apply_chat_template`, besides `tokenize`.

    Raises:
        InvalidRequest: the template fails or does not end; names the reason.
    """
    status, answer = render_within_limits(template_owner, messages, options)
    if status == "late":
        raise InvalidRequest(
            f"the chat template does not render a conversation within "
            f"{template_process.SECONDS:g} seconds, {MEMORY >> 20} MiB and {CHARACTERS:,} characters: {REMEDY}"
        )
    if status == "error" and answer is not None:
        raise InvalidRequest(f"the chat template fails ({answer}): {REMEDY}")
    if not isinstance(answer, str):
        raise InvalidRequest(f"the chat template renders no text: {REMEDY}")
    return answer


def check_template(name: str, template_owner: Any, content: Any = WORD) -> None:
    """Render a short conversation once.

    Args:
        name: what messages call the model.
        template_owner: a tokenizer or a processor of transformers that has a chat template.
        content: of the user's message; must contain `WORD`.

    Raises:
        InvalidRequest: the template fails, does not end, or leaves out the user's message.
    """
    try:
        text = render(template_owner, [{"role": "user", "content": content}], add_generation_prompt=True)
    except InvalidRequest as error:
        raise InvalidRequest(f"{name}: {error}") from error
    if WORD not in text.lower():
        raise InvalidRequest(f"{name}: the chat template leaves out the user's message: {REMEDY}")
