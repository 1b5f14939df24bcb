"""Whole interactions made by the thousand, and sent the way a router sends them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from bandit_router.adapters.kafka.relay import Relay
from bandit_router.adapters.outbox import Outbox, Outgoing
from bandit_router.adapters.records import topic_of
from bandit_router.bench.brokers.processes import wait_until
from bandit_router.bench.chaos.traffic import Traffic
from bandit_router.bootstrap import make_connection, make_featurizer, make_policy
from bandit_router.config import Settings
from bandit_router.events import Completion, Event, Feedback, encode
from bandit_router.events.ids import uuid7
from bandit_router.router import Router
from bandit_router.types import Decision

TEMPLATES = 500
STEP_S = 0.01
"""Event time between two decisions, seconds: 100 a second."""

Whole = tuple[Decision, Completion, Feedback]


def interactions(
    settings: Settings, count: int, *, seed: int, first_ts: float, app: str | None = None
) -> Iterator[Whole]:
    """So many decisions of an untrained policy, each with its answer and its score.

    Contexts repeat after :data:`TEMPLATES`; ids, times, costs and scores do not.
    """
    app = app or settings.app.name
    traffic = Traffic(seed, settings.catalog.names)
    rng = np.random.default_rng([seed, 0x5EED])
    templates = _templates(settings, app, traffic, min(count, TEMPLATES))
    for i in range(count):
        ts = first_ts + i * STEP_S
        decision = msgspec.structs.replace(
            templates[i % len(templates)], event_id=uuid7(ts, rng.bytes(10)), ts=ts
        )
        completion = msgspec.structs.replace(traffic.completion(decision), ts=ts + 0.5)
        feedback = msgspec.structs.replace(traffic.feedback(decision), ts=ts + 1.0)
        yield decision, completion, feedback


def _templates(settings: Settings, app: str, traffic: Traffic, count: int) -> list[Decision]:
    featurizer = make_featurizer(settings.features, embed=False)
    catalog = settings.catalog
    policy = make_policy(settings.policy.name, catalog, dimension=featurizer.dimension)
    value_usd = settings.policy.quality_value_usd
    router = Router(
        policy,
        featurizer,
        catalog,
        salt=settings.app.salt,
        quality_value_usd=lambda: value_usd,
        app=app,
    )
    return [router.decide(traffic.context()) for _ in range(count)]


def outgoing(event: Event) -> Outgoing:
    """An event as the outbox takes it."""
    return Outgoing(topic=topic_of(event), key=event.app, value=encode(event))


def fill(outbox: Path, records: Iterable[Outgoing], *, batch: int = 500) -> int:
    """Put records into an outbox, in order; returns how many. Raises StorageError."""
    count = 0
    with Outbox.open(outbox) as box:
        waiting: list[Outgoing] = []
        for record in records:
            waiting.append(record)
            count += 1
            if len(waiting) == batch:
                box.put(waiting)
                waiting = []
        if waiting:
            box.put(waiting)
    return count


def drain(settings: Settings, outbox: Path, *, timeout_s: float) -> float:
    """Relay everything in an outbox; returns the seconds that took.

    Raises:
        TimeoutError: something is still waiting after ``timeout_s``.
    """
    with Outbox.open(outbox, check=False) as box:
        start = time.perf_counter()
        with Relay(outbox, make_connection(settings.events)):
            wait_until(lambda: box.backlog().events == 0, timeout_s, "the outbox is empty")
            return time.perf_counter() - start
