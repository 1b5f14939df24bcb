"""`bandit-router demo`: the whole product at work, in a minute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit_router.cli.output import JsonOption, emit, stderr_console
from bandit_router.progress import progress_bar

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from bandit_router.demo.live import Record
    from bandit_router.demo.run import Finished
    from bandit_router.demo.world import World
    from bandit_router.events import Change

_RECENT = 200
_REDRAW = 25


def command(
    out: Annotated[
        Path, typer.Option(help="Folder for the event log, the embeddings and the reports.")
    ] = Path("bandit-router-demo"),
    seed: Annotated[int, typer.Option(help="Of everything random.", min=0)] = 0,
    quality_value: Annotated[
        float | None,
        typer.Option(help="What one fully good answer is worth, USD.  [default: 0.1]"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Route the first N prompts only.", min=20)
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget an earlier demo in the folder and begin anew.")
    ] = False,
    kafka: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Decide here and learn in another process, through this Kafka broker.",
        ),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Route real prompts live, let one model fail half-way, and report.

    3,609 prompts of package paretobandit, three models, the full loop: featurize, decide, log,
    outcomes that come later, join, learn, snapshot. Interrupted, even by kill -9, the same command
    goes on where it stopped and ends with the same model, byte for byte. With --kafka, queries
    arrive at 120 per second of wall time while the learner follows, and a run that was interrupted
    begins anew.
    """
    import msgspec

    from bandit_router.demo.run import QUALITY_VALUE_USD, run_demo
    from bandit_router.demo.world import demo_log

    finished = run_demo(
        out,
        demo_log(limit),
        Screen(stderr_console()),
        seed=seed,
        quality_value_usd=QUALITY_VALUE_USD if quality_value is None else quality_value,
        fresh=fresh,
        kafka=kafka,
    )
    emit(
        {**msgspec.to_builtins(finished.report), "demo": msgspec.to_builtins(finished.story)},
        json_output,
        human=lambda console: _show(console, finished),
    )


class Screen:
    """Shows a running demo on stderr: live on a terminal, in a few lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._query = 0

    @contextmanager
    def embedding(self, prompts: int) -> Iterator[Callable[[int], None]]:
        """See :class:`~bandit_router.demo.run.Watcher`."""
        self._say(f"embedding {prompts:,} prompts")
        with progress_bar(self._console) as bar:
            task = bar.add_task("embedding prompts", total=prompts)
            yield lambda done: bar.update(task, advance=done)

    @contextmanager
    def routing(self, world: World, done: int) -> Iterator[Callable[[Record], None]]:
        """See :class:`~bandit_router.demo.run.Watcher`."""
        from rich.console import Group
        from rich.live import Live

        self._query = done
        went_on = f", going on after query {done:,}" if done else ""
        self._say(f"routing {len(world):,} queries{went_on}")
        bar = progress_bar(self._console)
        task = bar.add_task("routing queries", total=len(world), completed=done)
        with Live(
            console=self._console, auto_refresh=False, transient=True, vertical_overflow="crop"
        ) as live:

            def tick(record: Record) -> None:
                self._query = record.done
                if world.drop is not None and record.done == world.drop.query:
                    self._say(
                        f"query {record.done:,}: from here on {world.drop.model} answers worse; "
                        "the router is not told"
                    )
                if self._console.is_terminal and record.done % _REDRAW == 0:
                    bar.update(task, completed=record.done)
                    live.update(Group(bar, _recent(world, record)), refresh=True)

            yield tick

    def change(self, change: Change) -> None:
        """See :class:`~bandit_router.demo.run.Watcher`."""
        self._say(
            f"query {self._query + 1:,}: drift alarm, {change.data['model']} scores "
            f"{change.data['shortfall']:.2f} below what was expected of it"
        )

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def _recent(world: World, record: Record) -> RenderableType:
    """What was chosen lately, and how it went."""
    import numpy as np
    from rich.table import Table
    from rich.text import Text

    span = slice(max(record.done - _RECENT, 0), record.done)
    chosen = record.chosen[span]
    rows = np.arange(len(chosen))
    score = world.table.scores[span][rows, chosen].mean()
    cost = world.table.costs_usd[span][rows, chosen].mean()
    grid = Table.grid(padding=(0, 1))
    for column, model in enumerate(world.table.models):
        share = float((chosen == column).mean())
        grid.add_row(Text(model), Text("█" * round(30 * share)), f"{share:.0%}")
    grid.add_row(f"last {len(chosen)}: score {score:.3f}, ${1000 * cost:.3f} per 1,000 queries")
    return grid


def _show(console: Console, finished: Finished) -> None:
    from rich.text import Text

    from bandit_router.demo.page import regret_sentences, sentences

    story = finished.story
    if finished.resumed_at == story.queries:
        console.print("This demo was finished before; --fresh begins anew.")
    for sentence in (*sentences(story), *regret_sentences(finished.regret)):
        console.print(Text(sentence))
    for part in story.parts:
        console.print(_table(part))
    for file in finished.files:
        console.print(str(file), markup=False, soft_wrap=True)


def _table(part: Any) -> RenderableType:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from bandit_router.demo.page import HEADERS, part_cells

    grid = Table(
        title=f"{part.name}, {part.queries:,} queries",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for header in HEADERS:
        first = header == HEADERS[0]
        grid.add_column(header, justify="left" if first else "right", no_wrap=not first)
    for row in part_cells(part):
        grid.add_row(*map(Text, row))
    return grid
