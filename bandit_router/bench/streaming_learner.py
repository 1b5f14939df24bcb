"""The learner: interactions per second from Kafka, and how soon a restarted one is back."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from bandit_router.adapters.kafka.relay import RelayLimits
from bandit_router.bench.brokers.processes import wait_until
from bandit_router.bench.chaos.site import FOLDER, LearnerProcess, Site, environment
from bandit_router.bench.chaos.verify import progress
from bandit_router.bench.figures import Figure, median_figure
from bandit_router.bench.streaming_bare import consume, produce
from bandit_router.bench.streaming_relay import events_of
from bandit_router.bootstrap import make_connection
from bandit_router.errors import StorageError, TransportError

LEARNER_AT_LEAST = 1500.0
RESTART_AT_MOST_S = 5.0
LIMIT_S = 120.0
POLL_S = 0.01
"""How often the store is looked into, seconds."""

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
    """(rows/s, events/s) from the first time that something is seen to be stored to the last."""
    seen: list[tuple[float, int, int]] = []

    def done() -> bool:
        events, rows = progress(learner.stores)
        if events and (not seen or (events, rows) != seen[-1][1:]):
            seen.append((time.perf_counter(), events, rows))
        if not learner.server.running():
            raise TransportError(f"the learner ended: {learner.log()}")
        return rows >= interactions

    wait_until(done, LIMIT_S, "everything is learned")
    at_work = [sighting for sighting in seen if sighting[2]]  # its kernels are loaded
    first = at_work[0] if len(at_work) > 1 else seen[0]
    (start, first_events, first_rows), (end, events, rows) = first, seen[-1]
    seconds = max(end - start, POLL_S)
    return (rows - first_rows) / seconds, (events - first_events) / seconds


def restart_figures(make_site: MakeSite, *, interactions: int, rounds: int) -> list[Figure]:
    """A learner is killed before it took a snapshot, and started again."""
    with make_site(snapshot_every=10**9, publish_every_s=1e6) as site:
        connection = make_connection(site.settings.events)
        produce(connection, events_of(site.settings, 3 * interactions, seed=7), RelayLimits())
        learner = site.learner()
        learner.start()
        _rates(learner, interactions)
        relearned, back = [], []
        for i in range(rounds):
            learner.kill()
            relearned.append(_relearned(site, learner, interactions + i))
            produce(connection, events_of(site.settings, 3, seed=100 + i), RelayLimits())
            start = time.perf_counter()
            learner.start()
            wanted = interactions + i + 1
            wait_until(
                lambda w=wanted: progress(learner.stores)[1] >= w, LIMIT_S, "it learns again"
            )
            back.append(time.perf_counter() - start)
        session_s = site.settings.events.session_timeout_s
    return [
        median_figure(
            f"restart, {interactions:,} interactions to relearn",
            relearned,
            "s",
            at_most=RESTART_AT_MOST_S,
            note=f"whole process, from its start until all is relearned; {rounds} times",
        ),
        median_figure(
            "restart after kill -9, to the next new row",
            back,
            "s",
            note=f"Kafka waits {session_s:g} s for the dead one first (session_timeout_s)",
        ),
    ]


def _relearned(site: Site, learner: LearnerProcess, rows: int) -> float:
    """Seconds that a process takes to learn again what is in the store.

    Raises:
        StorageError: it failed, or came to another number of rows.
    """
    command = [sys.executable, "-m", "bandit_router.bench.streaming_restart", str(site.config)]
    start = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - nothing in it comes from outside
        command,
        env=environment({FOLDER: str(learner.folder)}),
        capture_output=True,
        text=True,
        check=False,
    )
    taken = time.perf_counter() - start
    if done.returncode or int(done.stdout) != rows:
        raise StorageError(f"relearned {done.stdout!r} of {rows} rows: {done.stderr[-500:]}")
    return taken
