"""Files that cannot be written, and a backlog of everything that could not be sent."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bandit_router.bench.brokers.processes import wait_until
from bandit_router.bench.chaos.acks import Acknowledged
from bandit_router.bench.chaos.finding import Finding
from bandit_router.bench.chaos.judging import judge, settle, settled_events
from bandit_router.bench.chaos.kills import RATE, wait_for_progress
from bandit_router.bench.chaos.rig import NotHere, Rig
from bandit_router.bench.chaos.stream import drain, fill, interactions, outgoing
from bandit_router.bench.chaos.verify import progress

SMALL_DISK_KB = 32_768
EVENTS_OF_ONE = 3


def backlog(rig: Rig, *, events: int, seed: int = 6) -> Finding:
    """So many events have waited in an outbox while Kafka was away; now they go and are learned."""
    started = time.monotonic()
    with rig.broker() as broker, rig.site(broker) as site:
        count = events // EVENTS_OF_ONE
        outbox = site.folder / "outbox.db"
        acknowledged = Acknowledged()
        site.given = acknowledged

        def sent() -> Iterator:
            for whole in interactions(site.settings, count, seed=seed, first_ts=time.time()):
                yield from map(outgoing, whole)
                for known in (
                    acknowledged.decisions,
                    acknowledged.completions,
                    acknowledged.feedbacks,
                ):
                    known.add(whole[0].event_id)

        waiting = fill(outbox, sent())
        learner = site.learner()
        learner.start()
        begun = time.monotonic()
        relayed_s = drain(site.settings, outbox, timeout_s=240)
        settled_events(site, waiting, rows=count, timeout_s=240)
        learned_s = time.monotonic() - begun
        finding = judge(
            site,
            broker,
            f"backlog of {waiting:,} events",
            injected=1,
            started=started,
            note=f"sent in {relayed_s:.1f} s, joined and learned in {learned_s:.1f} s",
        )
        return replace(finding, seconds=learned_s)


def locked_files(rig: Rig, *, times: int, lasting_s: float) -> Finding:
    """Somebody else holds the write lock of the outbox, then that of the learner's store.

    While the outbox is locked the safe model serves, and no request waits for long.
    """
    started = time.monotonic()
    with rig.broker() as broker, rig.site(broker) as site:
        router, learner = site.router(rate=RATE), site.learner()
        router.start()
        learner.start()
        spans, meanwhile = [], 0
        for _ in range(times):
            router.wait_serving(router.served() + 20)
            with locked(router.outbox):
                begun, before = time.monotonic(), router.unlogged()
                _pass(lasting_s)
                meanwhile += router.unlogged() - before
                spans.append((begun, time.monotonic()))
            wait_for_progress(learner, 20)
            (store,) = learner.stores
            with locked(store):
                _pass(lasting_s)
        router.wait_serving(router.served() + 20)
        router.stop()
        settle(site)
        slowest_ms = site.acknowledged().slowest_ms(spans)
        return judge(
            site,
            broker,
            f"outbox locked for {lasting_s:g} s, then the learner's store",
            injected=2 * times,
            started=started,
            note=f"{meanwhile} requests served meanwhile, unlogged and not learned; the slowest "
            f"took {slowest_ms:.0f} ms",
            wrong=() if meanwhile else ("no request was served meanwhile",),
        )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the write lock of a SQLite file."""
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


def _pass(seconds: float) -> None:
    """Let the fault last."""
    time.sleep(seconds)


def full_disk(rig: Rig, *, where: str) -> Finding:
    """``where`` (``outbox`` or ``store``) is on a small disk, which is full for a while."""
    started = time.monotonic()
    with rig.broker() as broker, rig.site(broker) as site:
        router, learner = site.router(rate=RATE), site.learner()
        disk = router.outbox.parent if where == "outbox" else learner.folder
        with small_disk(disk):
            router.start()
            learner.start()
            router.wait_serving(20)
            wait_for_progress(learner, 20)
            filler = disk / "filler"
            _fill(filler)
            if where == "outbox":  # served on, but unlogged: nothing is acknowledged any more
                wait_until(lambda: _stands_still(router.served), 60, "nothing is acknowledged")
            else:
                wait_until(
                    lambda: _stands_still(lambda: progress(learner.stores)[0]),
                    60,
                    "the learner stands still",
                )
            served = router.running
            filler.unlink()
            before = router.served(), progress(learner.stores)[0]
            router.wait_serving(before[0] + 100)
            wait_for_progress(learner, 100)
            router.stop()
            settle(site)
            finding = judge(site, broker, f"disk of the {where} full", injected=1, started=started)
        if not served:
            return replace(finding, wrong=(*finding.wrong, "the router process ended"))
        return finding


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A folder on a disk of :data:`SMALL_DISK_KB`.

    Raises:
        NotHere: mounting one is not allowed here.
    """
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if os.geteuid() != 0 or mount is None or umount is None:
        raise NotHere("mounting a small disk needs root")
    folder.mkdir(exist_ok=True)
    options = f"size={SMALL_DISK_KB}k"
    done = subprocess.run(  # noqa: S603 - nothing in it comes from outside
        [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise NotHere(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run([umount, "-l", str(folder)], check=False)  # noqa: S603 - same


def _fill(path: Path) -> None:
    """Write until there is no room."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _stands_still(count: object, for_s: float = 1.0) -> bool:
    before = count()
    time.sleep(for_s)
    return count() == before
