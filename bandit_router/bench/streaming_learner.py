"""The learner: interactions per second from Kafka, and how soon a restarted one is back."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from bandit_router.adapters.kafka.relay import RelayLimits
from bandit_router.bench.brokers.processes import wait_until
from bandit_router.bench.chaos.site import LearnerProcess, Site
from bandit_router.bench.chaos.verify import progress
from bandit_router.bench.figures import Figure, median_figure
from bandit_router.bench.streaming_bare import consume, produce
from bandit_router.bench.streaming_relay import events_of
from bandit_router.bootstrap import make_connection

LEARNER_AT_LEAST = 1500.0
RESTART_AT_MOST_S = 5.0
LIMIT_S = 120.0

MakeSite = Callable[..., AbstractContextManager[Site]]


def learner_figures(make_site: MakeSite, *, interactions: int, rounds: int) -> list[Figure]:
    """Joined and learned interactions per second, and kafka-python reading the same records."""
    ours, bare, ratios = [], [], []
    for i in range(rounds):
        with make_site() as site:
            records = 3 * interactions
            connection = make_connection(site.settings.events)
            produce(connection, events_of(site.settings, records, seed=i), RelayLimits())
            read = records / consume(connection, site.settings.app.name, records)
            learner = site.learner()
            learner.start()
            rate, events_rate = _rates(learner, interactions)
            ours.append(rate)
            bare.append(read)
            ratios.append(events_rate / read)
    note = (
        f"{interactions:,} interactions of 3 events with {len(site.settings.models)} models: read, "
        f"ordered, stored, joined, learned, stored again; {rounds} times"
    )
    return [
        median_figure("learner", ours, "interactions/s", at_least=LEARNER_AT_LEAST, note=note),
        median_figure(
            "kafka-python consuming them", bare, "records/s", note="read and counted, undecoded"
        ),
        median_figure("learner over kafka-python", ratios, "", note="records/s of the same round"),
    ]


def _rates(learner: LearnerProcess, interactions: int) -> tuple[float, float]:
    """(rows/s, events/s) between the first time that something is stored and the last."""
    seen: list[tuple[float, int, int]] = []

    def done() -> bool:
        events, rows = progress(learner.stores)
        if rows and (not seen or rows > seen[-1][2]):
            seen.append((time.perf_counter(), events, rows))
        return rows >= interactions

    wait_until(done, LIMIT_S, f"everything is learned: {learner.log()}")
    (start, first_events, first_rows), (end, events, rows) = seen[0], seen[-1]
    return (rows - first_rows) / (end - start), (events - first_events) / (end - start)


def restart_figures(make_site: MakeSite, *, interactions: int, rounds: int) -> list[Figure]:
    """A learner is killed before it took a snapshot, and started again."""
    with make_site(snapshot_every=10**9, publish_every_s=1e6) as site:
        connection = make_connection(site.settings.events)
        produce(connection, events_of(site.settings, 3 * interactions, seed=7), RelayLimits())
        learner = site.learner()
        learner.start()
        _rates(learner, interactions)
        taken = []
        for i in range(rounds):
            learner.kill()
            produce(connection, events_of(site.settings, 3, seed=100 + i), RelayLimits())
            start = time.perf_counter()
            learner.start()
            wanted = interactions + i + 1
            wait_until(lambda w=wanted: progress(learner.stores)[1] >= w, LIMIT_S, learner.log())
            taken.append(time.perf_counter() - start)
    return [
        median_figure(
            f"restart, {interactions:,} interactions to relearn",
            taken,
            "s",
            at_most=RESTART_AT_MOST_S,
            note=f"from the start of the process after kill -9 to the next new row; {rounds} times",
        )
    ]
