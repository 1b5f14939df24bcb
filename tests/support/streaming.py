"""Streams for learners on a broker: events of some apps, and learners that follow them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
from support.session import recipe
from support.streams import MODELS, SALT, catalog, decision, features, outcomes

from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.sender import Sender
from bandit_router.adapters.outbox import Outgoing
from bandit_router.events import Change, Event, encode
from bandit_router.joiner import JoinRules
from bandit_router.streaming.applearner import AppPlan
from bandit_router.types import Decision

EVERY = 50


def plan(app: str, folder: Path, **fields) -> AppPlan:
    """An app of the test catalog."""
    policy = fields.pop("policy", "linucb")
    rules = fields.pop("rules", JoinRules())
    defaults = {
        "recipe": recipe(policy, app=app, rules=rules),
        "catalog": catalog(),
        "salt": SALT,
        "folder": folder,
        "snapshot_every": EVERY,
        "publish_every_s": 1.0,
    }
    return AppPlan(**(defaults | fields))


def interactions(app: str, count: int, *, first: int = 0, seed: int = 0) -> list[Event]:
    """Decisions with what came of them, in an order in which they could be made."""
    rng = random.Random(f"{app}{seed}{first}")
    events: list[tuple[float, Event]] = []
    for n in range(first, first + count):
        action = rng.choice(MODELS)
        chosen = decision(
            f"{app}:{n}",
            float(n),
            app=app,
            features=features(n),
            action=action,
            pmf=(1 / 3, 1 / 3, 1 / 3),
            propensity=1 / 3,
            unit_id=f"u{n % 7}",
        )
        events.append((float(n), chosen))
        came = (msgspec.structs.replace(o, app=app) for o in outcomes(chosen, seed=n))
        events += [(outcome.ts, outcome) for outcome in came]
    events.sort(key=lambda pair: pair[0])
    return [event for _, event in events]


def topic(event: Event) -> str:
    if isinstance(event, Decision):
        return "decisions"
    return "changes" if isinstance(event, Change) else "outcomes"


def outgoing(events: Sequence[Event]) -> list[Outgoing]:
    return [Outgoing(topic(event), event.app, encode(event)) for event in events]


def send(connection: Connection, events: Sequence[Event | Outgoing]) -> None:
    """Send events, and wait until the broker has them."""
    records = [e if isinstance(e, Outgoing) else outgoing([e])[0] for e in events]
    with Sender(connection) as sender:
        for start in range(0, len(records), 2000):
            sender.send(records[start : start + 2000])


def send_stamped(connection: Connection, events: Sequence[Event], times_ms: Sequence[int]) -> None:
    """Send events that claim to be made at these times: clocks need not agree."""
    from kafka import KafkaProducer

    producer = KafkaProducer(**connection.options(acks="all"))
    sent = [
        producer.send(
            connection.topic(topic(event)),
            key=event.app.encode(),
            value=encode(event),
            partition=connection.partition_of(event.app),
            timestamp_ms=at,
        )
        for event, at in zip(events, times_ms, strict=True)
    ]
    for future in sent:
        future.get(10)
    producer.close()
