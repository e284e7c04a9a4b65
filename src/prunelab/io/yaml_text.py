"""YAML parsing within limits: PyYAML's safe loader with the core schema of YAML 1.2 only."""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar

import yaml
from yaml.composer import Composer
from yaml.constructor import ConstructorError

from prunelab.io.limits import Limits, Malformed

_TAG = "tag:yaml.org,2002:"
_KNOWN = {f"{_TAG}{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class _Loader(yaml.SafeLoader):
    """A loader that counts values and stops at the first violation of a limit."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}  # type: ignore[misc]

    def __init__(self, text: str, limits: Limits, nonfinite: bool) -> None:
        super().__init__(text)
        self.limits, self.nonfinite = limits, nonfinite
        self.depth = self.values = 0
        self.sizes: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node and count it; the target of an alias counts each time it is used."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            name = str(event.anchor)
            if name in self.anchors and name not in self.sizes:
                raise Malformed(f"the alias *{name} refers to a value that contains it", line)
            self._count(self.sizes.get(name, 0), line)
            return Composer.compose_node(self, parent, index)
        before = self.values
        self._count(1, line)
        self.depth += 1
        if self.depth > self.limits.depth:
            raise Malformed(f"lists and mappings nested deeper than {self.limits.depth}", line)
        node = Composer.compose_node(self, parent, index)
        self.depth -= 1
        if node is not None:
            self._check(node, line)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self.sizes[anchor] = self.values - before
        return node

    def _count(self, values: int, line: int) -> None:
        self.values += values
        if self.values > self.limits.values:
            raise Malformed(
                f"more than {self.limits.values:,} values, counting the target of an alias each time it is used", line
            )

    def _check(self, node: yaml.Node, line: int) -> None:
        if node.tag not in _KNOWN:
            raise Malformed(f"the tag {node.tag.replace(_TAG, '!!')} is not allowed", line)
        if isinstance(node, yaml.ScalarNode) and _SURROGATE.search(node.value):
            raise Malformed("a string contains a lone surrogate, which is not a character", line)
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """Parse an integer: decimal, `0o` or `0x`."""
        text = str(self.construct_scalar(node))
        self._check_length(text, node)
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)

    def construct_real(self, node: yaml.ScalarNode) -> float:
        """Parse a floating-point number."""
        text = str(self.construct_scalar(node)).lower()
        self._check_length(text, node)
        value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
        line = node.start_mark.line + 1
        if math.isinf(value) and "inf" not in text:
            raise Malformed(f"{text} is larger than any floating-point number", line)
        if not (math.isfinite(value) or self.nonfinite):
            raise Malformed(f"{text} is not a finite number", line)
        return value

    def _check_length(self, text: str, node: yaml.Node) -> None:
        if len(text) > self.limits.digits:
            raise Malformed(
                f"a number of {len(text):,} characters, more than {self.limits.digits}", node.start_mark.line + 1
            )


class _Dumper(yaml.SafeDumper):
    """Quotes strings that `_Loader` would not read as strings."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        first: list(resolvers) for first, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }


# The core schema's resolution of plain scalars: https://yaml.org/spec/1.2.2/#1032-tag-resolution
for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", list("-+.")),
    ("merge", r"<<", ["<"]),
):
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"^(?:{_pattern})\Z"), _first)
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_integer)
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_real)


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if key.tag == f"{_TAG}merge":
            continue
        if key.tag != f"{_TAG}str":
            shown = f" {key.value!r}" if isinstance(key, yaml.ScalarNode) else ""
            raise Malformed(f"the key{shown} is not a string (put it in quotes)", line)
        if key.value in lines:
            raise Malformed(f"key {key.value!r} is repeated (first on line {lines[key.value]})", line)
        lines[key.value] = line


def load(text: str, limits: Limits, nonfinite: bool) -> Any:
    """Parse a YAML text of one document.

    Raises:
        Malformed: with the line if it is known.
    """
    try:
        loader = _Loader(text, limits, nonfinite)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        line = None if mark is None else mark.line + 1
        what = "" if isinstance(problem, ConstructorError) else "not YAML: "
        raise Malformed(f"{what}{problem.problem or problem.context}", line) from None
    except yaml.reader.ReaderError as problem:
        line = text.count("\n", 0, problem.position) + 1
        raise Malformed(f"not YAML: character U+{_code(problem.character):04X} is not allowed", line) from None
    except Malformed:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as problem:
        raise Malformed(f"not YAML: {problem}") from None


def dump(value: Any) -> str:
    """Write YAML that `load` reads back as the same value, with keys in the given order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _code(character: Any) -> int:
    return character if isinstance(character, int) else ord(character)
