"""`bandit-router explain EVENT_ID`: why was this model chosen, and is that what really happened?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bandit_router.cli.output import ConfigOption, JsonOption, emit

if TYPE_CHECKING:
    from rich.console import Console

    from bandit_router.store_ops import Explanation


def command(
    event_id: Annotated[str, typer.Argument(help="The decision's event_id.")],
    db: Annotated[
        Path | None, typer.Option(help="The event log. Default: store.path of the configuration.")
    ] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Recompute a stored decision from its snapshot and compare.

    The policy is brought to the very state that decided, by relearning the rows between the
    snapshot and the decision. Exit code 0 when pmf and draw are the logged ones in every bit, 1
    when not.
    """
    import msgspec

    from bandit_router.adapters.sqlite import SqliteStore
    from bandit_router.config import load_settings
    from bandit_router.store_ops import explain

    settings = load_settings(config)
    with SqliteStore.open(db or settings.store.path, read_only=True) as store:
        found = explain(store, event_id, key=settings.snapshot_key)
    decision = found.decision
    emit(
        {
            "schema": "bandit_router.explain/1",
            "event_id": decision.event_id,
            "app": decision.app,
            "ts": decision.ts,
            "action": decision.action,
            "slice": decision.slice,
            "propensity": decision.propensity,
            "epsilon": decision.epsilon,
            "learn": decision.learn,
            "rules": list(decision.rules),
            "quality_value_usd": decision.quality_value_usd,
            "learn_seq": decision.learn_seq,
            "decided_with_snapshot": decision.snapshot_id,
            "explained_from_snapshot": found.snapshot_id,
            "relearned_rows": found.relearned_rows,
            "models": msgspec.to_builtins(found.models),
            "drawn_by": found.drawn_by,
            "pmf_identical": found.pmf_identical,
            "predictions_identical": found.predictions_identical,
            "draw_identical": found.draw_identical,
            "identical": found.identical,
        },
        json_output,
        human=lambda console: _draw(console, found),
    )
    if not found.identical:
        raise typer.Exit(1)


def _draw(console: Console, found: Explanation) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    decision = found.decision
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model", no_wrap=True)
    for title in ("score", "cost USD", "utility", "probability", "logged"):
        table.add_column(title, justify="right", no_wrap=True)
    for view in found.models:
        chosen = view.model == decision.action
        table.add_row(
            Text(view.model + (" <" if chosen else "")),
            f"{view.score:.4f}",
            f"{view.cost_usd:.3g}",
            f"{view.utility:+.4f}",
            f"{view.probability:.4f}",
            f"{view.logged_probability:.4f}",
        )
    console.print(
        Text(f"decision {decision.event_id} at quality value {decision.quality_value_usd:.4g} USD")
    )
    console.print(table)
    console.print(Text(found.drawn_by + "."))
    if decision.rules:
        console.print(Text("rules that fired: " + ", ".join(decision.rules)))
    console.print(
        f"recomputed from snapshot {found.snapshot_id} and {found.relearned_rows} rows after it: "
        f"pmf {_verdict(found.pmf_identical)}, scores and costs "
        f"{_verdict(found.predictions_identical)}, draw {_verdict(found.draw_identical)}"
    )


def _verdict(same: bool) -> str:
    return "identical" if same else "DIFFERENT"
