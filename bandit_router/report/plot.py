"""A chart as inline SVG: two axes and marks on them, in colours that the page's style decides.

Why not a plotting library: the report must open without a request to another host, follow the
reader's light or dark scheme, be readable by a screen reader and weigh little. Measured: plotly
inlines 4.8 MB of script (69 MB installed) and draws without it nothing; pygal 3.1 (1.3 MB, LGPL)
fetches its tooltips from another host, bakes one colour scheme into every chart and has neither
bands nor a heat map; canvas libraries (uPlot, Chart.js) draw nothing that a screen reader or a
printer sees. The charts here need five kinds of mark, and come to some 10 KB each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from bandit_router.report.markup import el, number

WIDTH, HEIGHT = 480.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 12.0, 12.0, 46.0
_LETTER, _LINE = 6.2, 13.0
"""Size of a letter of a note, for telling whether two notes would overlap."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] onto [start, end] in pixels, linearly or by the logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value; values beyond the ends are drawn at the ends."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values to label, ascending."""
        return _log_ticks(self.low, self.high) if self.log else _ticks(self.low, self.high)


def linear(values: Sequence[float], start: float, end: float) -> Scale:
    """A linear scale over the values with a little room."""
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low - room, high + room, start, end)


def logarithmic(values: Sequence[float], start: float, end: float) -> Scale:
    """A logarithmic scale over the positive values with a little room."""
    positive = [value for value in values if value > 0.0] or [1.0]
    low, high = min(positive), max(positive)
    return Scale(low / 1.4, high * 1.4, start, end, log=True)


def _ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= raw)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + i) * step for i in range(count)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for mantissas in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        found = [m * 10.0**d for d in decades for m in mantissas if low <= m * 10.0**d <= high]
        if len(found) >= 3:
            return found
    return found


def short(value: float) -> str:
    """A number for people: 0.0012, 1.2e-05, 12,000."""
    if value == 0.0 or 1e-4 <= abs(value) < 1e4:
        return f"{value:.4g}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.2g}"


class Plot:
    """Collects marks between two axes and gives the SVG element.

    Args:
        title, description: read out by screen readers.
        x, y: scales; make them with :func:`linear` or :func:`logarithmic` over
            :data:`X_RANGE` and :data:`Y_RANGE`.
        x_label, y_label: axis names with units.
    """

    def __init__(
        self, title: str, description: str, x: Scale, y: Scale, x_label: str, y_label: str
    ) -> None:
        self.x, self.y = x, y
        self._notes: list[tuple[float, float, float]] = []  # left, right, height
        self._svg = el(
            "svg",
            el("title", title),
            el("desc", description),
            viewBox=f"0 0 {number(WIDTH)} {number(HEIGHT)}",
            role="img",
            aria_label=f"{title}. {description}",
        )
        self._axes(x_label, y_label)

    def _axes(self, x_label: str, y_label: str) -> None:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        for value in self.x.ticks():
            at = self.x(value)
            self._put(el("line", x1=at, x2=at, y1=TOP, y2=bottom, cls="grid"))
            self._put(el("text", short(value), x=at, y=bottom + 16, cls="tick middle"))
        for value in self.y.ticks():
            at = self.y(value)
            self._put(el("line", x1=LEFT, x2=right, y1=at, y2=at, cls="grid"))
            self._put(el("text", short(value), x=LEFT - 6, y=at + 4, cls="tick end"))
        self._put(el("text", x_label, x=(LEFT + right) / 2, y=HEIGHT - 8, cls="label middle"))
        middle = (TOP + bottom) / 2
        turn = f"rotate(-90 12 {number(middle)})"
        self._put(el("text", y_label, x=12, y=middle, transform=turn, cls="label middle"))

    def _put(self, mark: Element) -> None:
        self._svg.append(mark)

    def line(self, points: Points, cls: str, tip: str = "") -> None:
        """A line through the points."""
        pairs = " ".join(f"{number(self.x(a))},{number(self.y(b))}" for a, b in points)
        mark = el("polyline", points=pairs, cls=f"line {cls}")
        self._put(_tipped(mark, tip))

    def band(self, lower: Points, upper: Points, cls: str) -> None:
        """The area between two lines."""
        outline = [*lower, *reversed(upper)]
        pairs = " ".join(f"{number(self.x(a))},{number(self.y(b))}" for a, b in outline)
        self._put(el("polygon", points=pairs, cls=f"band {cls}"))

    def area(self, lower: Points, upper: Points, cls: str, tip: str) -> None:
        """A filled area between two lines, with a tip."""
        outline = [*lower, *reversed(upper)]
        pairs = " ".join(f"{number(self.x(a))},{number(self.y(b))}" for a, b in outline)
        self._put(_tipped(el("polygon", points=pairs, cls=f"area {cls}"), tip))

    def dot(self, at: tuple[float, float], cls: str, tip: str, shape: str = "circle") -> None:
        """A point: ``circle``, ``square``, ``triangle`` or ``star``."""
        self._put(_tipped(_shape(self.x(at[0]), self.y(at[1]), shape, cls), tip))

    def note(self, at: tuple[float, float], text: str) -> None:
        """Small text beside a point, to the side that has room; left out where it would cover
        an earlier one (the point's tip and the table name it all the same).
        """
        x, y = self.x(at[0]), self.y(at[1])
        left = x > (LEFT + WIDTH) / 2
        length = _LETTER * len(text) + 7
        start = x - length if left else x
        for other, end, height in self._notes:
            if start < end and other < start + length and abs(height - y) < _LINE:
                return
        self._notes.append((start, start + length, y))
        side = "end" if left else "start"
        self._put(el("text", text, x=x - 7 if left else x + 7, y=y + 4, cls=f"note {side}"))

    def marks_x(self, marks: Sequence[tuple[float, str]]) -> None:
        """Vertical lines at which something happened, their texts one below the other."""
        for place, (value, text) in enumerate(marks):
            at = self.x(value)
            self._put(el("line", x1=at, x2=at, y1=TOP, y2=HEIGHT - BOTTOM, cls="event"))
            side = "end" if at > LEFT + 0.65 * (WIDTH - LEFT) else "start"
            shift = -5 if side == "end" else 5
            height = TOP + 12 + 15 * place
            self._put(el("text", text, x=at + shift, y=height, cls=f"note event-note {side}"))

    def strips(self, at: Sequence[float], tips: Sequence[str]) -> None:
        """Invisible columns over the chart that carry the values at ``at``, for hovering."""
        edges = [self.x(value) for value in at]
        for place, (middle, tip) in enumerate(zip(edges, tips, strict=True)):
            left = (edges[place - 1] + middle) / 2 if place else self.x.start
            right = (edges[place + 1] + middle) / 2 if place + 1 < len(edges) else self.x.end
            strip = el(
                "rect",
                x=left,
                y=TOP,
                width=max(right - left, 0.1),
                height=HEIGHT - BOTTOM - TOP,
                cls="strip",
            )
            self._put(_tipped(strip, tip))

    def svg(self) -> Element:
        """The finished chart."""
        return self._svg


X_RANGE = (LEFT, WIDTH - RIGHT)
Y_RANGE = (HEIGHT - BOTTOM, TOP)


def _tipped(mark: Element, tip: str) -> Element:
    if tip:
        mark.set("data-tip", tip)
    return mark


def _shape(x: float, y: float, shape: str, cls: str) -> Element:
    if shape == "circle":
        return el("circle", cx=x, cy=y, r=5, cls=f"dot {cls}")
    if shape == "square":
        return el("rect", x=x - 4.5, y=y - 4.5, width=9, height=9, cls=f"dot {cls}")
    corners = 3 if shape == "triangle" else 10
    ring = []
    for corner in range(corners):
        radius = 6.0 if corners == 3 else (7.5 if corner % 2 == 0 else 3.2)
        angle = -math.pi / 2 + 2 * math.pi * corner / corners
        ring.append(
            f"{number(x + radius * math.cos(angle))},{number(y + radius * math.sin(angle))}"
        )
    return el("polygon", points=" ".join(ring), cls=f"dot {cls}")
