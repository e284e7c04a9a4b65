"""Axis ticks of a matplotlib panel, drawn as one marker line per axis and one text per tick.

matplotlib's ticks are five artists each, most of them invisible, and took half of the drawing time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from matplotlib.markers import TICKDOWN, TICKLEFT
from matplotlib.transforms import ScaledTranslation

from prunelab.reports.figures.labels import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Marks: TypeAlias = tuple[Sequence[float], Sequence[str], str]
"""The ticks of an axis: positions, texts and the axis label."""
GAP = 4.5
"""Distance between an axis and its tick labels, in points."""


def mark_axes(axes: Axes, across: Marks, up: Marks, fontsize: float = 7) -> None:
    """Draw the ticks of the bottom and the left axis; the limits must be set before."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right"]].set_visible(False)
    figure = axes.figure
    assert figure is not None, "the axes belong to a figure"
    below = axes.get_xaxis_transform()
    under = below + ScaledTranslation(0, -GAP / 72, figure.dpi_scale_trans)
    left_offset = axes.get_yaxis_transform()
    left = left_offset + ScaledTranslation(-GAP / 72, 0, figure.dpi_scale_trans)
    style: dict[str, Any] = {"ls": "", "color": "black", "ms": 3, "mew": 0.7, "clip_on": False, "label": "_marks"}
    axes.plot(across[0], [0.0] * len(across[0]), marker=TICKDOWN, transform=below, **style)
    axes.plot([0.0] * len(up[0]), up[0], marker=TICKLEFT, transform=left_offset, **style)
    for x, text in zip(*across[:2], strict=True):
        axes.text(x, 0, label(text), transform=under, ha="center", va="top", fontsize=fontsize)
    for y, text in zip(*up[:2], strict=True):
        axes.text(0, y, label(text), transform=left, ha="right", va="center", fontsize=fontsize)
    axes.set_xlabel(label(across[2]), fontsize=7, labelpad=GAP + fontsize + 2)
    if up[2]:
        axes.set_ylabel(
            label(up[2]),
            fontsize=7,
            labelpad=GAP + 0.6 * fontsize * max((len(label(text)) for text in up[1]), default=1) + 2,
        )
