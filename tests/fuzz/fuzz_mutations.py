"""Inputs made worse: bytes, texts and JSON-like values, each from a generator of random numbers with a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

HUGE = "<huge>"
"""Stands in a value for a number of many digits, which Python's own writer of JSON refuses."""
NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -(10**30), 0.0, -0.5, 1e-310, 1e308, float("nan"), float("inf"),
    HUGE, "", " ", "x" * 5000, "0", "-1", "nan", "true", "null", "../../victim", "/etc/passwd", "/dev/zero", "a\nb",
    "\x1b[31m", "[red]", "$x$", "\\", "\ud800", "\x00", "日本語", "1-99999999999", "0-99999999999", "cuda:99", "auto",
    [], {}, [[]], [None], {"a": None}, ["x", 1], [0] * 200, {"": ""}, [{"a": [{"b": {}}]}],
)  # fmt: skip
TOKENS = (
    "{", "}", "[", "]", ",", ":", '"', "'", "\\", "\n", "\n\n", "\t", "- ", "? ", "&a ", "*a ", "!!python/name:os ",
    "!t ", "<<: ", "|", ">", "%", "@", "#", "~", "null", "true", "NaN", "Infinity", "1e999", "9" * 400, "-", "0x",
    "\ufeff", "\u2028", "\x00", "\x1b[2J", "é", "🙂", "{{", "}}", "{%", "%}", "{% for i in range(999999999) %}",
    "{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}", "{{ messages[99] }}",
    "{{ x.y }}", "{{ raise_exception('no') }}", "{{ 'x' * 999999999 }}", "{% include 'x' %}", "{{ ''.__class__ }}",
    "2024-13-45", "1:30:99",
)  # fmt: skip


def worse_bytes(given: bytes, chance: random.Random) -> bytes:
    """One to three changes anywhere in the bytes."""
    data = bytearray(given)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((1, 1, 4, 16, 200)))
        kind = chance.randrange(7)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = chance.randbytes(chance.choice((1, 2, 8, 100)))
        elif kind == 3:
            data[at:at] = data[at:end] * chance.choice((1, 2, 50))
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            data[at:end] = b"\xff" * (end - at)
        else:
            data[at:at] = chance.choice(TOKENS).encode("utf-8", "surrogatepass")
    return bytes(data)


def worse_text(given: str, chance: random.Random) -> str:
    """One to three tokens put in, taken out or repeated."""
    text = given
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(text) + 1)
        end = min(len(text), at + chance.choice((1, 3, 20)))
        kind = chance.randrange(4)
        if kind == 0:
            text = text[:at] + chance.choice(TOKENS) + text[at:]
        elif kind == 1:
            text = text[:at] + text[end:]
        elif kind == 2:
            text = text[:at] + text[at:end] * chance.choice((2, 30)) + text[end:]
        else:
            lines = text.split("\n")
            line = chance.choice(lines)
            text = "\n".join([*lines, line])  # in YAML a key that is repeated
    return text


def worse_value(given: Any, chance: random.Random) -> Any:
    """A JSON-like value with one to two of its parts replaced, removed, renamed, wrapped or exchanged."""
    value = json.loads(json.dumps(given))
    for _ in range(chance.choice((1, 1, 2))):
        places = list(_places(value))
        if not places:
            return chance.choice(NASTY)
        above, key = chance.choice(places)
        kind = chance.randrange(10)
        if kind < 6:
            above[key] = chance.choice(NASTY)
        elif kind == 6:
            del above[key]
        elif kind == 7:
            above[key] = _deep(above[key], chance.choice((1, 2, 70, 400)))
        elif kind == 8 and isinstance(above, dict):
            above[chance.choice(("", "extra", "__class__", "a" * 300, f"{key} "))] = above.pop(key)
        else:
            other, place = chance.choice(places)
            if other is above or place not in (key,):
                try:
                    above[key] = json.loads(json.dumps(other[place]))
                except (KeyError, IndexError, ValueError):
                    above[key] = None
    return value


def as_json(value: Any, chance: random.Random) -> str:
    """Written as JSON, now and then with a key repeated or with a number of many digits."""
    text = json.dumps(value).replace(f'"{HUGE}"', "9" * 5000)
    if chance.random() < 0.05 and isinstance(value, dict) and value:
        key = chance.choice(list(value))
        text = f"{{{json.dumps(key)}: 0, {text[1:]}"
    return text


def _deep(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every part of a value: what holds it, and its key or position."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(parts):
        yield value, key
        yield from _places(part)
