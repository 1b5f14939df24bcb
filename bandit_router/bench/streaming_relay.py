"""The way out of a router: putting events into the outbox, and relaying them to Kafka."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from bandit_router.adapters.kafka.relay import RelayLimits
from bandit_router.adapters.kafka.relay_process import RelayProcess
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

_INSERT = "INSERT INTO events (value) VALUES (?)"


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
    """Time of ``Outbox.put`` of one event while a router's relay sends what is put, and of a bare
    INSERT of the same bytes into a file of its own, in turn.
    """
    connection = make_connection(site.settings.events)
    records = events_of(site.settings, min(puts, 3000), seed=99)
    taken, bare = np.empty((rounds, puts)), np.empty((rounds, puts))
    for i in range(rounds):
        path = site.folder / f"put-{i}.db"
        with Outbox.open(path) as box, RelayProcess(path, connection) as relay:
            wait_until(
                lambda r=relay: r.status().get("producers", 0) > 0, 30, "the relay is connected"
            )
            taken[i] = _paced(lambda record, box=box: box.put([record]), records, puts)
            with closing(_plain(site.folder / f"plain-{i}.db")) as file:
                bare[i] = _paced(lambda r, f=file: f.execute(_INSERT, (r.value,)), records, puts)
    note = f"one event of a request at a time, {PUTS_PER_S:g}/s, {rounds} x {puts:,}, relay at work"
    return [
        *(_percentile("outbox put", taken, q, note) for q in (50, 99)),
        *(_percentile("bare SQLite INSERT", bare, q, "of the same bytes") for q in (50, 99)),
    ]


def _percentile(name: str, taken: np.ndarray, q: int, note: str) -> Figure:
    limit = {"at_most": PUT_P99_AT_MOST_MS} if q == 99 and name.startswith("outbox") else {}
    values = np.percentile(taken, q, axis=1).tolist()
    return median_figure(f"{name}, p{q}", values, "ms", note=note, **limit)


def _plain(path: Path) -> sqlite3.Connection:
    """A file as the outbox is set up, with nothing around it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, value BLOB)")
    return connection


def _paced(put: Callable[[Outgoing], object], records: Sequence[Outgoing], puts: int) -> np.ndarray:
    """Milliseconds of each call, at a steady rate."""
    taken = np.empty(puts)
    due = time.perf_counter()
    for n in range(puts):
        record = records[n % len(records)]
        start = time.perf_counter()
        put(record)
        taken[n] = (time.perf_counter() - start) * 1e3
        due += 1.0 / PUTS_PER_S
        time.sleep(max(due - time.perf_counter(), 0.0))
    return taken
