"""Learners of one group: when one dies or is halted, the others go on where it was.

With LEARNER_KILLS in the environment also where the halted learner and its successor share a disk.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import contextmanager

import pytest
from support.learners import (
    assert_equal_bits,
    assert_nothing_is_lost_or_doubled,
    followed,
    member,
    ordered,
    processes,
)
from support.streaming import interactions, plan, send, topic

from bandit_router.adapters.sqlite_stream import StreamStore
from bandit_router.bench.brokers.processes import wait_until
from bandit_router.streaming.applearner import EPOCH

TAKEOVER_S = 60.0
SHARED = [False, True] if "LEARNER_KILLS" in os.environ else [False]


class Stream:
    """Sends interactions of some apps, and knows when the journals have them all."""

    def __init__(self, connection, apps):
        self.connection, self.apps = connection, apps
        self.sent = 0
        self._counts = Counter()

    def send(self, count):
        events = [e for app in self.apps for e in interactions(app, count, first=self.sent)]
        send(self.connection, sorted(events, key=lambda event: event.ts))
        self.sent += count
        for event in events:
            self._counts[self.connection.partition_of(event.app), topic(event)] += 1

    def wait(self, what):
        def all_ordered():
            at = ordered(self.connection)
            return all(at[n].get(name, 0) >= c for (n, name), c in self._counts.items())

        wait_until(all_ordered, TAKEOVER_S, what)


@contextmanager
def members(connection, apps, folders):
    started = []
    try:
        for folder in folders:
            process = processes().Process(target=member, args=(connection, apps, str(folder)))
            process.start()
            started.append(process)
        yield started
        for process in started:
            if process.exitcode is None:
                process.terminate()
        for process in started:
            process.join(30)
            assert process.exitcode in (0, -signal.SIGKILL)
    finally:
        for process in started:
            process.kill()


def owner_of(app, folders):
    """Whose folder has the longest log of an app."""

    def length(folder):
        path = plan(app, folder).store_path
        if not path.exists():
            return -1
        with StreamStore.open(path, read_only=True) as store:
            return store.last_offset()

    return max(folders, key=length)


def holders(connection, apps, folders):
    """Each app with the folder of the learner whose claim on it is in force."""
    epochs, found = ordered(connection), {}
    for app in apps:
        for folder in folders:
            path = plan(app, folder).store_path
            if path.exists():
                with StreamStore.open(path, read_only=True) as store:
                    epoch = int(store.get_meta(EPOCH) or 0)
                if epoch == epochs[connection.partition_of(app)]["epoch"]:
                    found[app] = folder
    return found


def test_of_three_learners_of_eight_apps_one_is_killed_and_nothing_is_lost_or_doubled(
    any_broker, tmp_path
):
    """Each learner has a folder of its own: who takes over has no access to the dead one's."""
    connection = any_broker.with_topics(partitions=8)
    apps = sorted({connection.partition_of(f"app/{i}"): f"app/{i}" for i in range(64)}.values())
    assert len(apps) == 8  # one in each partition
    stream = Stream(connection, apps)
    folders = [tmp_path / str(i) for i in range(3)]
    with members(stream.connection, apps, folders) as learners:
        stream.send(30)
        wait_until(
            lambda: len(set(holders(stream.connection, apps, folders).values())) == 3,
            TAKEOVER_S,
            "each of the three learners has apps",
        )
        stream.send(20)
        stream.wait("they have learned")
        dead = {a for a, f in holders(stream.connection, apps, folders).items() if f == folders[0]}
        stream.send(20)
        os.kill(learners[0].pid, signal.SIGKILL)
        stream.send(20)
        stream.wait("the other two have taken over")
    reference = followed(stream.connection, apps, tmp_path / "reference")
    for app in apps:
        assert_nothing_is_lost_or_doubled(reference[app], stream.sent)
        folder = owner_of(app, folders[1:])
        if app in dead:
            path = plan(app, folder).store_path
            with StreamStore.open(path, read_only=True) as store:
                assert store.get_meta(EPOCH) is not None
        survivor = followed(stream.connection, [app], folder)[app]
        assert_equal_bits(survivor, reference[app])


@pytest.mark.parametrize("shared", SHARED, ids=["own folders", "one folder"][: len(SHARED)])
def test_a_learner_that_was_halted_longer_than_its_session_does_no_harm_when_it_goes_on(
    broker, tmp_path, shared
):
    apps = ["one", "two"]
    stream = Stream(broker.with_topics(partitions=2), apps)
    folders = [tmp_path / "a", tmp_path / ("a" if shared else "b")]
    with members(stream.connection, apps, folders[:1]) as (first,):
        stream.send(30)
        stream.wait("the first learner has what was sent")
        before = ordered(stream.connection)
        with members(stream.connection, apps, folders[1:]):
            stream.send(20)
            os.kill(first.pid, signal.SIGSTOP)
            stream.send(20)
            wait_until(
                lambda: all(
                    at["epoch"] > before[n]["epoch"]
                    for n, at in ordered(stream.connection).items()
                    if n in {stream.connection.partition_of(app) for app in apps}
                ),
                TAKEOVER_S,
                "the second has claimed everything",
            )
            stream.wait("the second has taken over")
            os.kill(first.pid, signal.SIGCONT)
            stream.send(20)
            stream.wait("both have what was sent last")
    reference = followed(stream.connection, apps, tmp_path / "reference")
    for app in apps:
        assert_nothing_is_lost_or_doubled(reference[app], stream.sent)
        survivor = followed(stream.connection, [app], owner_of(app, folders))[app]
        assert_equal_bits(survivor, reference[app])
