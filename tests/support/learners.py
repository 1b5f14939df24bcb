"""Learners on a broker as processes that can be killed at any step, and what they must agree on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterable
from multiprocessing.context import BaseContext
from pathlib import Path

import numpy as np
from support.streaming import plan
from support.streams import MODELS, features

from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.fetcher import Fetcher
from bandit_router.adapters.kafka.journal import Chain, Journal
from bandit_router.adapters.kafka.sender import Sender
from bandit_router.policy.base import Policy
from bandit_router.snapshot import Recipe
from bandit_router.store_ops import policy_of
from bandit_router.streaming.applearner import AppLearner, AppPlan
from bandit_router.streaming.learning import Learning
from bandit_router.streaming.partition import PartitionLearner

STEPS = ("consume", "order", "append", "join", "learn", "commit", "save", "rename", "publish")
PATIENCE_S = 60.0


class Owner:
    """Owns partitions without asking anybody: a member of no group."""

    trouble = ""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._owned = dict.fromkeys(numbers, 0)

    def ask(self):
        return self._owned

    def note(self, positions) -> None:
        del positions

    def __enter__(self):
        return self

    def __exit__(self, *exception) -> None:
        self._owned = {}


def stepping(step: Callable[[str], None]) -> Callable[[Recipe], Policy]:
    """From a recipe to a policy that says when it is about to learn."""

    def make(recipe: Recipe) -> Policy:
        policy = policy_of(recipe)
        learn = policy.learn

        def stepped(row) -> None:
            step("learn")
            learn(row)

        policy.learn = stepped
        return policy

    return make


def killer(at: str | None, count: int) -> Callable[[str], None]:
    """A step that kills this process at the ``count``-th one of that name; "" counts all."""
    passed = 0

    def step(name: str) -> None:
        nonlocal passed
        if at is not None and at in ("", name):
            passed += 1
            if passed == count:
                os.kill(os.getpid(), signal.SIGKILL)

    return step


def live(
    connection: Connection, apps: list[str], folder: str, at: str | None, count: int, idle_s: float
) -> None:
    """One life of a learner that owns everything: until idle, or until it is killed."""
    step = killer(at, count)
    plans = [plan(app, Path(folder), make=stepping(step), publish_every_s=0.05) for app in apps]
    deadline = time.monotonic() + PATIENCE_S
    owner = Owner(range(connection.partitions))
    with Learning(plans, connection, group="", batch=64, step=step, membership=owner) as learning:
        learning.run(stop=lambda: time.monotonic() > deadline, until_idle_s=idle_s)


def member(connection: Connection, apps: list[str], folder: str) -> None:
    """A member of the group; ends by SIGTERM."""
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    plans = [plan(app, Path(folder), publish_every_s=0.2) for app in apps]
    with Learning(
        plans, connection, group=connection.prefix, session_timeout_s=6.0, batch=64
    ) as learning:
        learning.run(stop=lambda: bool(stopping))


def processes() -> BaseContext:
    """Processes that start quickly, with everything imported, and share nothing with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["support.learners", "bandit_router.policy.baselines", "kafka", "kafka.partitioner.default"]
    )
    return context


def followed(connection: Connection, apps: list[str], folder: Path) -> dict[str, AppLearner]:
    """Learners with fresh stores that have followed the journals from their beginning to now."""
    learners = {}
    by_partition: dict[int, list[AppPlan]] = {}
    for app in apps:
        by_partition.setdefault(connection.partition_of(app), []).append(plan(app, folder))
    with (
        Sender(connection) as sender,
        Journal(connection, sender) as journal,
        Fetcher(connection) as fetcher,
    ):
        for number, plans in by_partition.items():
            opened = [AppLearner.open(each) for each in plans]
            learners |= {each.app: each for each in opened}
            partition = PartitionLearner(
                number, opened, connection, journal, fetcher, learner="reference"
            )
            partition.follow()
            deadline = time.monotonic() + PATIENCE_S
            while not partition.caught_up:
                assert time.monotonic() < deadline, "the reference does not catch up"
                fetcher.poll(0.05)
                partition.step()
            fetcher.drop(number)
    return learners


def ordered(connection: Connection) -> dict[int, dict[str, int]]:
    """Up to where the journals say that each topic is learned, by partition."""
    found = {}
    with Sender(connection) as sender, Journal(connection, sender) as journal:
        for number in range(connection.partitions):
            chain = Chain()
            for _, entry in journal.read(number, 0):
                chain.take(entry)
            found[number] = {"epoch": chain.epoch, **chain.upto}
    return found


def pmfs(learner: AppLearner, count: int = 500) -> np.ndarray:
    """The answers to ``count`` probe contexts."""
    policy = learner.loop.learner.policy
    return np.array([policy.evaluate(features(9000 + n), MODELS, 0.05).pmf for n in range(count)])


def final(learner: AppLearner) -> bytes:
    """A snapshot of all that has been learned."""
    return learner.loop.snapshots.take(learner.loop.offset).data


def event_ids(learner: AppLearner, kind: str) -> list[str]:
    """Ids of the logged events of a kind, in order."""
    rows = learner.store.database.query(
        "SELECT event_id FROM events WHERE type = ? ORDER BY offset", [kind]
    )
    return [row["event_id"] for row in rows]


def learned_ids(learner: AppLearner) -> list[str]:
    """Ids of the training rows, in order."""
    rows = learner.store.database.query("SELECT event_id FROM training ORDER BY learn_seq")
    return [row["event_id"] for row in rows]


def assert_nothing_is_lost_or_doubled(learner: AppLearner, sent: int) -> None:
    """The log has each of the app's decisions once, and the policy learned each once at most."""
    decisions, rows = event_ids(learner, "decision"), learned_ids(learner)
    assert sorted(decisions) == sorted(f"{learner.app}:{n}" for n in range(sent))
    assert len(set(rows)) == len(rows) > 0.7 * sent


def assert_equal_bits(one: AppLearner, other: AppLearner) -> None:
    """The same row, the same answers to 500 probes, the same snapshot byte for byte."""
    assert one.learn_seq == other.learn_seq
    assert (pmfs(one) == pmfs(other)).all()
    assert final(one) == final(other)
    one.close()
    other.close()
