"""What Apache Kafka alone can do: lose a leader, forget by retention, refuse a record."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterable
from pathlib import Path

from bandit_router.adapters.kafka.client import DEAD_LETTERS, DECISIONS, OUTCOMES
from bandit_router.adapters.kafka.dead_letters import decode_dead
from bandit_router.adapters.kafka.relay import Relay, RelayLimits
from bandit_router.adapters.outbox import Outbox, Outgoing
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.bench.brokers.processes import wait_until
from bandit_router.bench.chaos.finding import Finding
from bandit_router.bench.chaos.judging import judge, settle, settled_events
from bandit_router.bench.chaos.kills import RATE, wait_for_progress
from bandit_router.bench.chaos.rig import KAFKA, NotHere, Rig
from bandit_router.bench.chaos.site import Site
from bandit_router.bench.chaos.stream import Whole, drain, fill, interactions, outgoing
from bandit_router.bench.chaos.topics import event_ids, records
from bandit_router.bench.chaos.verify import applied
from bandit_router.bootstrap import make_connection
from bandit_router.store_ops import rebuild

NODES = 3
TOO_LARGE_BYTES = 1_300_000


def leader_killed(rig: Rig, *, times: int, seed: int = 7) -> Finding:
    """``kill -9`` of the broker that leads the app's decisions; 3 brokers, 2 must be in sync."""
    _needs_kafka(rig)
    started = time.monotonic()
    with (
        rig.broker(nodes=NODES, own=True) as broker,
        rig.site(broker, replication=NODES) as site,
    ):
        router, learner = site.router(rate=RATE), site.learner()
        router.start()
        learner.start()
        router.wait_serving()
        connection = make_connection(site.settings.events)
        topic = connection.topic(DECISIONS)
        number = connection.partition_of(site.settings.app.name)
        rng = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        for _ in range(times):
            wait_for_progress(learner, rng.randrange(20, 200))
            leader = broker.process.leader(topic, number)
            broker.process.kill(leader)
            wait_for_progress(learner, 100)  # with the two that are left
            broker.process.restart(leader)
        router.stop()
        settle(site)
        return judge(
            site,
            broker,
            "kill -9 of the partition's leader, 3 brokers, min.insync 2",
            injected=times,
            started=started,
        )


def out_of_range(rig: Rig, *, decisions: int, seed: int = 8) -> Finding:
    """Retention removes records that the learner has not read; it goes on with those after them."""
    _needs_kafka(rig)
    started = time.monotonic()
    with rig.broker(own=True) as broker, rig.site(broker) as site:
        before, removed, after = (
            list(interactions(site.settings, decisions, seed=seed + i, first_ts=time.time()))
            for i in range(3)
        )
        outbox, learner = site.folder / "outbox.db", site.learner()
        learner.start()
        _send(site, outbox, before)
        settled_events(site, 3 * decisions, rows=decisions)
        _send(site, outbox, removed)
        number = make_connection(site.settings.events).partition_of(site.settings.app.name)
        for topic in (DECISIONS, OUTCOMES):
            name = make_connection(site.settings.events).topic(topic)
            broker.process.delete_records(name, number)
        learner.start()
        _send(site, outbox, after)
        with contextlib.suppress(TimeoutError):
            settled_events(site, 6 * decisions, rows=2 * decisions, timeout_s=60)
        found = applied(learner.stores)
        kept = {d.event_id for d, _, _ in (*before, *after)}
        with SqliteStore.open(learner.stores[0], create=False) as store:
            same = rebuild(store).identical
    return Finding(
        fault="records removed by retention before they were read",
        broker=broker.name,
        injected=1,
        acknowledged=3 * len(kept),
        lost=3 * len(kept)
        - sum(len(kept & ids) for ids in (found.decisions, found.completions, found.feedbacks)),
        doubled=found.doubled,
        bits_equal=same,
        seconds=time.monotonic() - started,
        note=f"{3 * decisions} events were removed; counted are those before and after",
        wrong=tuple(f"learn_seq has gaps in {name}" for name in found.gaps),
    )


def too_large(rig: Rig, *, times: int, seed: int = 9) -> Finding:
    """Records larger than the broker takes stand among good ones."""
    started = time.monotonic()
    with rig.broker() as broker, rig.site(broker) as site:
        whole = list(interactions(site.settings, 20 * times, seed=seed, first_ts=time.time()))
        sent = [outgoing(event) for events in whole for event in events]
        large = Outgoing(DECISIONS, site.settings.app.name, b"x" * TOO_LARGE_BYTES)
        for i in range(times):
            sent.insert((i + 1) * len(sent) // (times + 1), large)
        outbox = site.folder / "outbox.db"
        fill(outbox, sent, batch=10)
        drain(site.settings, outbox, timeout_s=60)
        arrived = event_ids(site, DECISIONS), event_ids(site, OUTCOMES)
        dead = [decode_dead(r.value, r.headers) for r in records(site, DEAD_LETTERS)]
    wanted = {d.event_id for d, _, _ in whole}
    set_aside = sum(record.size == TOO_LARGE_BYTES for record in dead)
    wrong = [] if set_aside >= times else [f"{set_aside} of {times} are in the dead letters"]
    reasons = ", ".join(sorted({record.reason for record in dead}))
    return Finding(
        fault=f"records of {TOO_LARGE_BYTES / 1e6:.1f} MB among good ones",
        broker=broker.name,
        injected=times,
        acknowledged=len(sent),
        lost=sum(len(wanted - ids) for ids in arrived) + max(times - set_aside, 0),
        seconds=time.monotonic() - started,
        note=f"in the dead letters as {reasons}",
        wrong=tuple(wrong),
    )


def delivery_timed_out(rig: Rig, *, times: int, halted_s: float = 4.0, seed: int = 10) -> Finding:
    """The broker is halted for longer than the producer waits: what is under way fails.

    kafka-python then takes a new epoch of its producer id, or a new producer has to be made;
    either way what was under way goes again.
    """
    started = time.monotonic()
    limits = RelayLimits(request_timeout_s=halted_s / 4, delivery_timeout_s=halted_s / 2)
    with rig.broker(own=True) as broker, rig.site(broker) as site:
        per = 300
        whole = list(interactions(site.settings, per * times, seed=seed, first_ts=time.time()))
        outbox = site.folder / "outbox.db"
        fill(outbox, ())
        connection = make_connection(site.settings.events)
        with Outbox.open(outbox) as box, Relay(outbox, connection, limits=limits) as relay:
            for i in range(times):
                part = whole[i * per : (i + 1) * per]
                half = len(part) // 2
                fill(outbox, (outgoing(e) for events in part[:half] for e in events), batch=50)
                wait_until(lambda: box.backlog().events == 0, 60, "the first half is sent")
                broker.process.pause()
                try:
                    fill(outbox, (outgoing(e) for events in part[half:] for e in events))
                    time.sleep(halted_s)  # the fault lasts
                finally:
                    broker.process.resume()
                wait_until(lambda: box.backlog().events == 0, 60, "the outbox is empty")
            resent = relay.status()["resent"]
        ids = event_ids(site, DECISIONS), event_ids(site, OUTCOMES)
    wanted = {d.event_id for d, _, _ in whole}
    return Finding(
        fault=f"broker halted for {halted_s:g} s, beyond the producer's patience",
        broker=broker.name,
        injected=times,
        acknowledged=3 * len(whole),
        lost=sum(len(wanted - found) for found in ids),
        seconds=time.monotonic() - started,
        note=f"{resent} records sent again",
        wrong=() if resent else ("nothing had to be sent again: the fault did not bite",),
    )


def _needs_kafka(rig: Rig) -> None:
    if rig.kind != KAFKA:
        raise NotHere("Apache Kafka alone can do this")


def _send(site: Site, outbox: Path, whole: Iterable[Whole]) -> None:
    fill(outbox, (outgoing(event) for events in whole for event in events))
    drain(site.settings, outbox, timeout_s=60)
