"""`bandit-router route TEXT`: which model should answer this, and why?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit_router.cli.output import ConfigOption, JsonOption, emit
from bandit_router.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from bandit_router.advice import Advice
    from bandit_router.config import Settings
    from bandit_router.types import Context


def command(
    text: Annotated[str, typer.Argument(help="The query; - reads it from standard input.")],
    config: ConfigOption = None,
    db: Annotated[
        Path | None,
        typer.Option(
            help="An event log: decide with its newest snapshot, which is only read. With --log "
            "the log to decide on, instead of store.path."
        ),
    ] = None,
    log: Annotated[
        bool, typer.Option("--log", help="Decide on the store and log the decision there.")
    ] = False,
    quality_value: Annotated[
        float | None, typer.Option(help="What one fully good answer is worth here, USD.")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Context known beside the text, as NAME=VALUE, repeatable."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Decide which model should answer a text, and say why.

    Without --db by the policy and the catalog of the configuration, which has learned nothing yet;
    nothing is logged or learned then. With --log the policy is what the configured store has
    learned, and the decision is logged there: tell what came of it with `feedback EVENT_ID`. No
    model is called. Each call is a new draw from the probabilities shown.
    """
    import os
    import time

    from bandit_router.config import load_settings
    from bandit_router.events.ids import uuid7
    from bandit_router.types import Context

    columns = _columns(column or [])
    settings = load_settings(config)
    now = time.time()
    context = Context(
        event_id=uuid7(now, os.urandom(10)),
        ts=now,
        prompt=_text(text),
        columns=columns,
    )
    decide = _logged if log else _advised
    advice, learned_rows = decide(settings, db, context, quality_value)
    emit(
        _result(advice, learned_rows, logged=log),
        json_output,
        human=lambda console: _draw(console, advice, learned_rows, logged=log),
    )


def _columns(pairs: list[str]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise InputError(f"--column {pair!r:.80}: write NAME=VALUE, as in task=code")
        if name in columns:
            raise InputError(f"--column {name!r:.80}: given twice")
        columns[name] = value
    return columns


def _text(text: str) -> str:
    """The argument, or standard input; bytes that are no UTF-8 become U+FFFD."""
    if text != "-":
        return text
    return typer.get_binary_stream("stdin").read().decode("utf-8", "replace")


def _advised(
    settings: Settings, db: Path | None, context: Context, quality_value_usd: float | None
) -> tuple[Advice, int]:
    """(advice, rows learned) without touching a log."""
    from bandit_router.advice import fresh_advisor, stored_advisor

    if db is None:
        advisor = fresh_advisor(settings)
    else:
        from bandit_router.adapters.sqlite import SqliteStore

        with SqliteStore.open(db, create=False) as store:
            advisor = stored_advisor(store, settings, key=settings.snapshot_key)
    return advisor.advise(context, quality_value_usd=quality_value_usd), advisor.learned_rows


def _logged(
    settings: Settings, db: Path | None, context: Context, quality_value_usd: float | None
) -> tuple[Advice, int]:
    """(advice, rows learned) on a decision that is now in the log."""
    from bandit_router.advice import advice_on, check_quality_value
    from bandit_router.live import open_live

    check_quality_value(quality_value_usd)
    with open_live(settings.with_store(db)) as live:
        decision = live.decide(context, quality_value_usd=quality_value_usd)
    return advice_on(decision, live.router.salt), decision.learn_seq


def _result(advice: Advice, learned_rows: int, *, logged: bool) -> dict[str, Any]:
    import msgspec

    decision = advice.decision
    return {
        "schema": "bandit_router.route/1",
        "event_id": decision.event_id,
        "app": decision.app,
        "action": decision.action,
        "slice": decision.slice,
        "propensity": decision.propensity,
        "epsilon": decision.epsilon,
        "quality_value_usd": decision.quality_value_usd,
        "snapshot_id": decision.snapshot_id,
        "learned_rows": learned_rows,
        "logged": logged,
        "models": msgspec.to_builtins(advice.offers),
        "rules": list(decision.rules),
        "drawn_by": advice.drawn_by,
        "why": advice.why,
    }


def _draw(console: Console, advice: Advice, learned_rows: int, *, logged: bool) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    decision = advice.decision
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("model", overflow="fold")
    for title in ("score", "cost USD", "utility", "probability"):
        table.add_column(title, justify="right", no_wrap=True)
    for offer in advice.offers:
        chosen = offer.model == decision.action
        table.add_row(
            Text(("> " if chosen else "  ") + offer.model),
            f"{offer.score:.4f}",
            f"{offer.cost_usd:.3g}",
            f"{offer.utility:+.4f}",
            f"{offer.probability:.4f}",
        )
    state = (
        f"snapshot {decision.snapshot_id}, {learned_rows:,} rows learned"
        if learned_rows
        else "a policy that has learned nothing yet"
    )
    console.print(Text(f"{decision.action}, decided by {state}"))
    console.print(table)
    console.print(Text(advice.why + "."))
    console.print(Text(advice.drawn_by + "."))
    console.print(Text(f"One fully good answer counts as ${decision.quality_value_usd:.4g}."))
    if decision.rules:
        console.print(Text("rules that fired: " + ", ".join(decision.rules)))
    if logged:
        console.print(Text(f"logged as {decision.event_id}"), soft_wrap=True)
