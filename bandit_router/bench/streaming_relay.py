"""The way out of a router: putting events into the outbox, and relaying them to Kafka."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from bandit_router.adapters.kafka.relay import Relay, RelayLimits
from bandit_router.adapters.outbox import Outbox, Outgoing
from bandit_router.bench.brokers.processes import wait_until
from bandit_router.bench.chaos.site import Site
from bandit_router.bench.chaos.stream import drain, fill, interactions, outgoing
from bandit_router.bench.figures import Figure, median_figure
from bandit_router.bench.streaming_bare import produce
from bandit_router.bootstrap import make_connection
from bandit_router.config import Settings

RELAY_AT_LEAST = 5000.0
PUT_P99_AT_MOST_MS = 1.0
PUTS_PER_S = 300.0
"""100 requests a second: a decision and two outcomes each."""


def events_of(settings: Settings, count: int, *, seed: int) -> list[Outgoing]:
    """So many events of whole interactions, encoded, in the order of their making."""
    whole = interactions(settings, -(-count // 3), seed=seed, first_ts=time.time())
    return [outgoing(event) for events in whole for event in events][:count]


def relay_figures(site: Site, *, events: int, rounds: int) -> list[Figure]:
    """Events per second from an outbox to Kafka, and of kafka-python alone, in turn."""
    settings = site.settings
    ours, bare = [], []
    for i in range(rounds):
        sent = events_of(settings, events, seed=i)
        bare.append(events / produce(make_connection(settings.events), sent, RelayLimits()))
        outbox = site.folder / f"relay-{i}.db"
        fill(outbox, sent)
        ours.append(events / drain(settings, outbox, timeout_s=120))
    size = sum(len(record.value or b"") for record in sent) / len(sent)
    note = f"{events:,} events of {size:,.0f} bytes from a full outbox, acks=all, {rounds} times"
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    return [
        median_figure("relay", ours, "events/s", at_least=RELAY_AT_LEAST, note=note),
        median_figure(
            "kafka-python producing them", bare, "events/s", note="the same records from a list"
        ),
        median_figure("relay over kafka-python", ratios, "", note="of the same round"),
    ]


def put_figures(site: Site, *, puts: int, rounds: int) -> list[Figure]:
    """Time of ``Outbox.put`` of one event while the relay of the same process drains."""
    connection = make_connection(site.settings.events)
    records = events_of(site.settings, min(puts, 3000), seed=99)
    taken = np.empty((rounds, puts))
    for i in range(rounds):
        path = site.folder / f"put-{i}.db"
        with Outbox.open(path) as box, Relay(path, connection) as relay:
            wait_until(lambda r=relay: r.status()["producers"] > 0, 20, "the relay is connected")
            taken[i] = _puts(box, records, puts)
    note = f"one event of a request at a time, {PUTS_PER_S:g}/s, {rounds} x {puts:,}, relay at work"
    return [
        median_figure(
            f"outbox put, p{q}",
            np.percentile(taken, q, axis=1).tolist(),
            "ms",
            note=note,
            **({"at_most": PUT_P99_AT_MOST_MS} if q == 99 else {}),
        )
        for q in (50, 99)
    ]


def _puts(box: Outbox, records: Sequence[Outgoing], puts: int) -> np.ndarray:
    """Milliseconds of each put, at a steady rate."""
    taken = np.empty(puts)
    due = time.perf_counter()
    for n in range(puts):
        record = records[n % len(records)]
        start = time.perf_counter()
        box.put([record])
        taken[n] = (time.perf_counter() - start) * 1e3
        due += 1.0 / PUTS_PER_S
        time.sleep(max(due - time.perf_counter(), 0.0))
    return taken
