"""Every rendering of a chat template is within limits, the first and those that follow."""

from __future__ import annotations

import os
import time

import pytest
from conftest import byte_tokenizer
from transformers import PreTrainedTokenizerFast

from prunelab.errors import InvalidRequest
from prunelab.models import template_process
from prunelab.models.chat_templates import check_template, render

LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}"
GOOD = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
LATER = {
    "at a long conversation": "{% if messages | length > 1 %}" + LOOP + "{% endif %}" + GOOD,
    "at a word": "{% if 'stop' in messages[0].content %}" + LOOP + "{% endif %}" + GOOD,
    "at a long message": "{% if messages[0].content | length > 100 %}{{ 'a' * 10 ** 11 }}{% endif %}" + GOOD,
    "in what is written": "{% for a in messages[0].content %}{{ 'b' * 9 ** 6 }}{% endfor %}" + GOOD,
}


def tokenizer_with(template: str) -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("kind", ["at a long conversation", "at a word", "at a long message"])
def test_a_template_that_fails_later_is_refused_in_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "SECONDS", 1.0)
    tokenizer = tokenizer_with(LATER[kind])
    check_template("model", tokenizer)
    start = time.monotonic()
    with pytest.raises(InvalidRequest, match=r"does not render a conversation within 1 seconds"):
        render(tokenizer, [{"role": "user", "content": "stop " * 40}, {"role": "assistant", "content": "x"}])
    assert time.monotonic() - start < 5
    # What was killed is started anew.
    assert render(tokenizer, [{"role": "user", "content": "hello"}]) == "user: hello\n"


def test_what_is_written_is_bounded_by_what_was_said() -> None:
    tokenizer = tokenizer_with(LATER["in what is written"])
    assert len(render(tokenizer, [{"role": "user", "content": "a"}])) > 9**6
    with pytest.raises(InvalidRequest, match="characters"):
        render(tokenizer, [{"role": "user", "content": "a" * 30}])
    long = "word " * 500_000
    assert render(tokenizer_with(GOOD), [{"role": "user", "content": long}]) == f"user: {long}\n"


def test_one_process_renders_all_and_follows_a_changed_template() -> None:
    tokenizer = tokenizer_with(GOOD)
    start = time.monotonic()
    for number in range(1000):
        assert render(tokenizer, [{"role": "user", "content": str(number)}]) == f"user: {number}\n"
    assert time.monotonic() - start < 10
    tokenizer.chat_template = "{{ messages[0].content }}!"
    assert render(tokenizer, [{"role": "user", "content": "hello"}]) == "hello!"


def test_the_process_ends_with_the_tokenizer() -> None:
    tokenizer = tokenizer_with(GOOD)
    render(tokenizer, [{"role": "user", "content": "a"}])
    child = template_process._processes[tokenizer]._child.pid
    assert child is not None
    del tokenizer
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
