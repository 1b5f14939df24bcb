"""A table that is drawn on a terminal or written as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bandit_router.bench.figures import Figure

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Grid:
    """Rows of text under headers; the first column is text, the others are numbers.

    Attributes:
        title: says what the numbers are.
        headers, rows: of equal width.
        texts: indices of further columns that hold text.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: tuple[int, ...] = ()

    def is_text(self, column: int) -> bool:
        """Whether a column holds text, not numbers."""
        return column == 0 or column in self.texts


_FILE_WIDTH = 140
FIGURE_HEADERS = ("figure", "value", "min to max", "target", "verdict", "how")


def figure_grid(title: str, figures: Sequence[Figure]) -> Grid:
    """Figures, one per row, each with its target beside it."""
    return Grid(title, FIGURE_HEADERS, tuple(map(_figure_row, figures)), texts=(4, 5))


def _figure_row(figure: Figure) -> tuple[str, ...]:
    unit = f" {figure.unit}" if figure.unit else ""
    value = "-" if figure.value is None else number(figure.value) + unit
    spread = ""
    if figure.low is not None and figure.high is not None:
        spread = f"{number(figure.low)} to {number(figure.high)}"
    bounds = (("<=", figure.at_most), (">=", figure.at_least))
    target = ", ".join(f"{sign} {number(bound)}" for sign, bound in bounds if bound is not None)
    return (figure.name, value, spread, target, figure.verdict, figure.note)


def number(value: float) -> str:
    """Three significant digits, whole numbers above 100 in full."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def print_grid(console: Console, grid: Grid) -> None:
    """Draw the grid on a rich console."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(grid.title),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for column, header in enumerate(grid.headers):
        text = grid.is_text(column)
        justify = "left" if text else "right"
        table.add_column(Text(header), justify=justify, no_wrap=not text, overflow="fold")
    for row in grid.rows:
        table.add_row(*map(Text, row))
    if not console.is_terminal:  # a file or a pipe has no width of its own
        console = Console(file=console.file, width=_FILE_WIDTH, highlight=False)
    console.print(table)


def markdown(grid: Grid) -> str:
    """The grid as a Markdown table under its title."""
    rule = ["---" if grid.is_text(column) else "---:" for column in range(len(grid.headers))]
    lines = [f"**{grid.title}**", "", _line(grid.headers), _line(rule), *map(_line, grid.rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", r"\|").replace("\n", " ") for cell in cells)
    return f"| {' | '.join(escaped)} |"
