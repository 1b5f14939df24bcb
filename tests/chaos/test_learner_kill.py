"""SIGKILL at any step of a learner on a broker is not visible in what it has learned.

By default every step once and 10 random points; LEARNER_KILLS=50 in the environment for more.
"""

from __future__ import annotations

import os
import random
import shutil
import signal

import pytest
from support.learners import (
    STEPS,
    assert_equal_bits,
    assert_nothing_is_lost_or_doubled,
    followed,
    live,
    processes,
)
from support.streaming import interactions, plan, send

from bandit_router.streaming.applearner import AppLearner

KILLS = int(os.environ.get("LEARNER_KILLS", "10"))
APPS = ["one", "two"]
PER_LIFE = 40


def run(context, *arguments) -> int:
    life = context.Process(target=live, args=arguments)
    life.start()
    life.join(90)
    assert life.exitcode is not None, "the learner does not end"
    return life.exitcode


def lives(rng: random.Random, kind: str) -> list[tuple[str, int]]:
    """At which step, and at the how-many-th of its kind, each life ends."""
    if kind == "every step":
        return [(step, rng.randint(1, 3)) for step in STEPS]
    return [("", rng.randint(1, 400)) for _ in range(KILLS)]


@pytest.mark.parametrize("kind", ["every step", "random points"])
def test_a_learner_that_is_killed_again_and_again_ends_where_an_uninterrupted_reader_does(
    broker, tmp_path, kind
):
    """A life goes on with the store of the last one, or on another machine, which has none."""
    connection, context, rng = broker.with_topics(partitions=2), processes(), random.Random(kind)
    sent, killed, folder = 0, 0, tmp_path / "0"
    for number, (step, count) in enumerate(lives(rng, kind)):
        events = [e for app in APPS for e in interactions(app, PER_LIFE, first=sent)]
        send(connection, sorted(events, key=lambda event: event.ts))
        sent += PER_LIFE
        if number and rng.random() < 0.5:
            shutil.rmtree(folder, ignore_errors=True)
            folder = tmp_path / str(number)
        code = run(context, connection, APPS, str(folder), step, count, 0.3)
        assert code in (0, -signal.SIGKILL)
        killed += code != 0
    assert killed >= (len(STEPS) if kind == "every step" else 0.6 * KILLS)
    assert run(context, connection, APPS, str(folder), None, 0, 0.5) == 0
    reference = followed(connection, APPS, tmp_path / "reference")
    for app in APPS:
        assert_nothing_is_lost_or_doubled(reference[app], sent)
        survivor = AppLearner.open(plan(app, folder))
        assert_equal_bits(survivor, reference[app])
