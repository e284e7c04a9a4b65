"""Line numbers of keys in a YAML text, for messages."""

from __future__ import annotations

from collections.abc import Sequence

import yaml


def line_of(text: str, place: Sequence[int | str]) -> int | None:
    """Line of a key in a YAML text, from 1; that of its nearest existing ancestor if the key is missing.

    Args:
        text: YAML.
        place: keys and positions from the top, such as `("models", 0, "ratios")`.
    """
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    line: int | None = None
    for part in place:
        entry = _below(node, part)
        if entry is None:
            break
        line, node = entry[0].start_mark.line + 1, entry[1]
    return line


def _below(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    """The nodes of a key and of its value."""
    if isinstance(node, yaml.MappingNode):
        return next(((name, value) for name, value in node.value if name.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None
