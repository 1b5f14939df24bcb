"""Two learners that both believe an app to be theirs: one learns, the other knows and waits."""

from __future__ import annotations

import time
from contextlib import contextmanager

from support.learners import Owner, assert_equal_bits, event_ids, followed
from support.streaming import interactions, plan, send

from bandit_router.bench.brokers.processes import wait_until
from bandit_router.streaming.applearner import AppLearner
from bandit_router.streaming.learning import Learning

SESSION_S = 0.2


@contextmanager
def learning(connection, folder, name):
    with Learning(
        [plan("x", folder)],
        connection,
        group="",
        session_timeout_s=SESSION_S,
        learner=name,
        membership=Owner([0]),
    ) as made:
        yield made


def has(made, count):
    """Whether it has so many decisions, after another turn."""
    made.turn()
    app = made._partitions[0].apps["x"] if 0 in made._partitions else None
    return app is not None and len(event_ids(app, "decision")) >= count


def deposed(made):
    """Whether it learns nothing any more, after another turn."""
    made.turn()
    return not made.status()["apps"]


def test_the_second_deposes_the_first_which_takes_over_again_only_once_nobody_learns(
    broker, tmp_path
):
    connection = broker.with_topics(partitions=1)
    with learning(connection, tmp_path / "a", "first") as first:
        send(connection, interactions("x", 20))
        wait_until(lambda: has(first, 20), 20, "the first has learned")
        with learning(connection, tmp_path / "b", "second") as second:
            wait_until(lambda: has(second, 20), 20, "the second has taken over")
            until, sent = time.monotonic() + 8 * SESSION_S, 20
            while time.monotonic() < until:
                send(connection, interactions("x", 5, first=sent))
                sent += 5
                wait_until(lambda n=sent: has(second, n), 20, "the second learns")
                wait_until(lambda: deposed(first), 20, "the first has found out")
                status = first.status()
                assert "second has taken it over" in status["fenced"]["0"]
            assert second.status()["fences"] == 0
        send(connection, interactions("x", 5, first=sent))
        wait_until(lambda: has(first, sent + 5), 30, "the first has taken over again")
        assert first.status()["fenced"] == {}
    reference = followed(connection, ["x"], tmp_path / "c")["x"]
    assert_equal_bits(AppLearner.open(plan("x", tmp_path / "a")), reference)
