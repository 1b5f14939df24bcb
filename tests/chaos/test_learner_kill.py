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
    event_ids,
    final,
    followed,
    learned_ids,
    live,
    pmfs,
    processes,
)
from support.streaming import interactions, plan, send

from bandit_router.streaming.applearner import AppLearner
from bandit_router.types import Decision

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


@pytest.mark.parametrize("machine", ["the same machine", "another machine each time"])
@pytest.mark.parametrize("kind", ["every step", "random points"])
def test_a_learner_that_is_killed_again_and_again_ends_where_an_uninterrupted_reader_does(
    broker, tmp_path, kind, machine
):
    connection, context = broker.with_topics(partitions=2), processes()
    rng = random.Random(f"{kind} {machine}")
    sent = {app: 0 for app in APPS}
    killed = 0
    for number, (step, count) in enumerate(lives(rng, kind)):
        events = [e for app in APPS for e in interactions(app, PER_LIFE, first=sent[app])]
        send(connection, sorted(events, key=lambda event: event.ts))
        sent = {app: n + PER_LIFE for app, n in sent.items()}
        folder = tmp_path / (str(number) if machine.startswith("another") else "same")
        code = run(context, connection, APPS, str(folder), step, count, 0.3)
        assert code in (0, -signal.SIGKILL)
        killed += code != 0
        if machine.startswith("another") and number:
            shutil.rmtree(tmp_path / str(number - 1))
    assert killed >= (len(STEPS) if kind == "every step" else 0.6 * KILLS)
    last = tmp_path / ("last" if machine.startswith("another") else "same")
    assert run(context, connection, APPS, str(last), None, 0, 0.5) == 0
    reference = followed(connection, APPS, tmp_path / "reference")
    for app in APPS:
        expected = reference[app]
        told = [e for e in interactions(app, PER_LIFE) if isinstance(e, Decision)]
        assert len(told) == PER_LIFE
        decisions = event_ids(expected, "decision")
        assert sorted(decisions) == sorted(f"{app}:{n}" for n in range(sent[app]))
        rows = learned_ids(expected)
        assert len(set(rows)) == len(rows) > 0.7 * sent[app]
        survivor = AppLearner.open(plan(app, last))
        assert survivor.learn_seq == expected.learn_seq
        assert (pmfs(survivor) == pmfs(expected)).all()
        assert final(survivor) == final(expected)
        survivor.close()
        expected.close()
