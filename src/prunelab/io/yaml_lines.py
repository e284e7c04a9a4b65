"""Where in a YAML file a key stands, so that messages about it can say so."""

from __future__ import annotations

from collections.abc import Sequence

import yaml


def line_of(text: str, place: Sequence[int | str]) -> int | None:
    """The line of a key in a YAML text, counted from 1; that of the nearest key above it where it is not there.

    Args:
        text: YAML.
        place: keys and positions from the top, such as `("models", 0, "ratios")`.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line: int | None = None
    for part in place:
        found = _below(node, part)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _below(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    """A key's own node and its value's."""
    if isinstance(node, yaml.MappingNode):
        return next(((name, value) for name, value in node.value if name.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None
