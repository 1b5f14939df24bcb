"""`bandit-router rebuild`: does the stored log still give the stored model?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bandit_router.cli.output import ConfigOption, JsonOption, emit

if TYPE_CHECKING:
    from rich.console import Console

    from bandit_router.store_ops import Rebuilt


def command(
    db: Annotated[
        Path | None, typer.Option(help="The event log. Default: store.path of the configuration.")
    ] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Relearn from the stored log and compare with the snapshot.

    From an empty policy, twice: from the stored training rows, and from the raw events, which are
    joined again. Exit code 0 when every byte is the same, 1 when not. Nothing is changed.
    """
    from bandit_router.adapters.sqlite import SqliteStore
    from bandit_router.config import load_settings
    from bandit_router.store_ops import rebuild

    settings = load_settings(config)
    path = db or settings.store.path
    with SqliteStore.open(path, read_only=True) as store:
        found = rebuild(store, key=settings.snapshot_key)
    emit(
        {
            "schema": "bandit_router.rebuild/1",
            "db": str(path),
            "identical": found.identical,
            "snapshot_id": found.snapshot_id,
            "learn_seq": found.learn_seq,
            "offset": found.offset,
            "events": found.events,
            "rows": found.rows,
            "policy_identical": found.policy_identical,
            "rows_identical": found.rows_identical,
            "first_different_row": found.first_different_row,
            "changes": found.changes,
            "changes_identical": found.changes_identical,
            "snapshot_identical": found.snapshot_identical,
        },
        json_output,
        human=lambda console: _draw(console, found),
    )
    if not found.identical:
        raise typer.Exit(1)


def _draw(console: Console, found: Rebuilt) -> None:
    def verdict(same: bool) -> str:
        return "identical" if same else "DIFFERENT"

    console.print(
        f"snapshot {found.snapshot_id}, of training row {found.learn_seq} and event {found.offset}"
    )
    console.print(f"policy relearned from the training log: {verdict(found.policy_identical)}")
    rows = verdict(found.rows_identical)
    if found.first_different_row is not None:
        rows += f", first at row {found.first_different_row}"
    console.print(f"{found.rows} training rows joined from {found.events} events again: {rows}")
    console.print(f"{found.changes} drift alarms raised again: {verdict(found.changes_identical)}")
    console.print(f"snapshot made from them: {verdict(found.snapshot_identical)}")
