"""Progress bars, drawn on a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Tick = Callable[[int], None]


def progress_bar(console: Console) -> Progress:
    """A bar with a count and the time left, which vanishes when it is done."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )


@contextmanager
def progress(console: Console, what: str, total: int) -> Iterator[Tick]:
    """Yield a function that advances the bar by a number of things done."""
    with progress_bar(console) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, advance=done)
