"""`bandit-router feedback EVENT_ID`: what came of a decision that `route --log` has logged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit_router.cli.output import ConfigOption, JsonOption, emit
from bandit_router.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from bandit_router.events import Outcome
    from bandit_router.live import Receipt
    from bandit_router.types import Decision

MISSING = {
    "answer": "the answer: give --cost-usd, or --model where the cost is unknown",
    "score": "a score: give --score",
    "escalation": "an escalation, which led from the drawn model to the one that served",
    "window": "the end of its attribution window",
}
REASONS = {
    "duplicate": "it was told before",
    "late": "the decision is closed already, or its attribution window has ended",
    "too_many": "the decision has as many outcomes as are kept",
    "poison": "a number of the decision is out of range",
    "unknown_action": "its model is not in the catalog any more",
}


def command(
    event_id: Annotated[str, typer.Argument(help="The decision's event_id.")],
    score: Annotated[
        float | None,
        typer.Option(help="How good the answer was: 0 to 1, or what --metric takes."),
    ] = None,
    cost_usd: Annotated[
        float | None, typer.Option(help="What the answer cost, USD; it counts as delivered then.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model that served. Default: the one that was drawn.")
    ] = None,
    latency_s: Annotated[
        float | None, typer.Option(help="Wall time of the answer, seconds.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="What --score is a value of. Default: joiner.score_metric."),
    ] = None,
    source: Annotated[
        str, typer.Option(help="Who judges; one source judges a decision once per metric.")
    ] = "user",
    db: Annotated[
        Path | None, typer.Option(help="The event log. Default: store.path of the configuration.")
    ] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Tell what came of a logged decision, and learn from it.

    A decision is learned from once its answer (any of --cost-usd, --model, --latency-s) and its
    score are known; they may come in one call or in two. What comes twice or too late is kept, but
    not learned from. Exit code 1 when something was refused that was not told before.
    """
    import time

    from bandit_router.config import load_settings
    from bandit_router.live import open_live

    answered = any(given is not None for given in (cost_usd, model, latency_s))
    if score is None and metric is not None:
        raise InputError(f"--metric {metric!r:.80} needs a --score")
    if score is None and not answered:
        raise InputError("nothing to tell: give --score, --cost-usd, --model or --latency-s")
    settings = load_settings(config).with_store(db)
    with open_live(settings, embed=False, create=False, deciding=False) as live:
        decision = live.decision(event_id)
        now = time.time()
        outcomes: list[Outcome] = []
        if answered:
            outcomes.append(_completion(decision, now, model, cost_usd, latency_s))
        if score is not None:
            name = settings.join_rules.score_metric if metric is None else metric
            outcomes.append(_feedback(decision, now, name, score, source))
        receipt = live.report(decision.event_id, outcomes)
        value_usd, learned_rows = live.quality_value_usd, live.loop.learner.learn_seq
    emit(
        _result(decision, receipt, value_usd, learned_rows),
        json_output,
        human=lambda console: _draw(console, decision, receipt),
    )
    if set(receipt.refused) - {"duplicate"}:
        raise typer.Exit(1)


def _completion(
    decision: Decision,
    now: float,
    model: str | None,
    cost_usd: float | None,
    latency_s: float | None,
) -> Outcome:
    from bandit_router.events import Completion

    return Completion(
        event_id=decision.event_id,
        ts=now,
        app=decision.app,
        model=decision.action if model is None else model,
        cost_usd=cost_usd,
        latency_s=latency_s,
        attempt=1,
    )


def _feedback(decision: Decision, now: float, metric: str, value: float, source: str) -> Outcome:
    from bandit_router.events import Feedback

    return Feedback(
        event_id=decision.event_id,
        ts=now,
        app=decision.app,
        metric=metric,
        value=value,
        source=source,
        feedback_id=f"{source}/{metric}",
    )


def _result(
    decision: Decision, receipt: Receipt, value_usd: float, learned_rows: int
) -> dict[str, Any]:
    row = receipt.interaction
    return {
        "schema": "bandit_router.feedback/1",
        "event_id": decision.event_id,
        "app": decision.app,
        "action": decision.action,
        "status": receipt.status,
        "waits_for": list(receipt.waits_for),
        "refused": list(receipt.refused),
        "learn_seq": receipt.learn_seq if row else None,
        "score": row.score if row else None,
        "cost_usd": row.cost_usd if row else None,
        "latency_s": row.latency_s if row else None,
        "learned_rows": learned_rows,
        "quality_value_usd": value_usd,
    }


def _draw(console: Console, decision: Decision, receipt: Receipt) -> None:
    from rich.text import Text

    for line in _lines(decision, receipt):
        console.print(Text(line), soft_wrap=True)


def _lines(decision: Decision, receipt: Receipt) -> list[str]:
    """What happened, in words."""
    lines = [
        f"refused: {reason}{f', {REASONS[reason]}' if reason in REASONS else ''}"
        for reason in receipt.refused
    ]
    row = receipt.interaction
    if row is not None:
        score = "without a score" if row.score is None else f"score {row.score:.4g}"
        cost = "at unknown cost" if row.cost_usd is None else f"${row.cost_usd:.4g}"
        joined = f"{decision.action}, {score}, {cost}: joined as row {receipt.learn_seq}"
        if receipt.status == "learned":
            lines.append(f"{joined} and learned")
        else:
            why = "its choice was forced" if not decision.learn else "another model served"
            lines.append(f"{joined}, but not learned from: {why}")
    elif receipt.status == "waiting":
        lines += [f"logged; waiting for {MISSING[what]}" for what in receipt.waits_for]
    return lines
