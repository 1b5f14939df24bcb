"""Charts without a numeric axis: horizontal bars by name, and a matrix of shares."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

import numpy as np

from bandit_router.report.markup import add, el, number
from bandit_router.report.plot import WIDTH

Bar = tuple[str, float, str]
"""(CSS class, value >= 0, tip)."""

_ROW, _BAR = 46.0, 12.0
_NAMES = 150.0


def bars(title: str, groups: Sequence[tuple[str, Sequence[Bar]]], longest: float) -> Element:
    """Bars in groups, each group under its name; a bar beyond ``longest`` ends at the edge."""
    height = _ROW * len(groups) + 8
    svg = _svg(title, height)
    room = WIDTH - 90.0
    for place, (name, some) in enumerate(groups):
        top = place * _ROW + 14
        add(svg, el("text", _cut(name, 60), x=4, y=top))
        for line, (cls, value, tip) in enumerate(some):
            y = top + 5 + line * (_BAR + 1)
            length = max(min(value / longest, 1.0) * room, 1.0)
            mark = el("rect", x=4, y=y, width=length, height=_BAR, rx=2, cls=f"bar {cls}")
            mark.set("data-tip", tip)
            add(svg, mark)
            text = f"{value:.4f}" + (" →" if value > longest * 1.0001 else "")
            add(svg, el("text", text, x=length + 9, y=y + _BAR - 2, cls="tick"))
    return svg


def heat_map(title: str, names: Sequence[str], share: np.ndarray) -> Element:
    """A square matrix of shares in 0..1, rows labelled, columns numbered in the same order."""
    k = len(names)
    cell = min((WIDTH - _NAMES - 6) / k, 44.0)
    svg = _svg(title, 20 + cell * k + 6)
    peak = float(share.max()) or 1.0
    add(svg, el("rect", x=_NAMES, y=20, width=cell * k, height=cell * k, cls="empty"))
    for i, name in enumerate(names):
        y = 20 + i * cell
        add(svg, el("text", str(i + 1), x=_NAMES + (i + 0.5) * cell, y=14, cls="tick middle"))
        label = f"{i + 1}  {_cut(name, 22)}"
        add(svg, el("text", label, x=2, y=y + cell / 2 + 4, cls="tick"))
        for j, chosen in enumerate(names):
            value = float(share[i, j])
            if value == 0.0:
                continue  # with 20 models most cells are; they would make half of the file
            mark = el(
                "rect",
                x=_NAMES + j * cell,
                y=y,
                width=cell,
                height=cell,
                cls="cell",
                fill_opacity=number(0.1 + 0.9 * value / peak),
            )
            mark.set("data-tip", f"best: {name}\nchosen: {chosen}\n{value:.1%} of queries")
            add(svg, mark)
    return svg


def _svg(title: str, height: float) -> Element:
    return el(
        "svg",
        el("title", title),
        viewBox=f"0 0 {number(WIDTH)} {number(height)}",
        role="img",
        aria_label=title,
    )


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
