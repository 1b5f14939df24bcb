"""Two learners that both believe an app to be theirs: one learns, the other knows and waits."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest
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


@pytest.mark.kafka
def test_a_store_that_is_older_than_what_kafka_keeps_gives_way_to_the_published_snapshot(
    kafka, tmp_path
):
    from kafka import TopicPartition
    from kafka.admin import KafkaAdminClient

    connection = kafka.with_topics(partitions=1)
    send(connection, interactions("x", 20))
    with learning(connection, tmp_path / "a", "first") as first:
        wait_until(lambda: has(first, 20), 20, "the first has learned")
    send(connection, interactions("x", 20, first=20))
    with learning(connection, tmp_path / "b", "second") as second:
        second.run(stop=lambda: False, until_idle_s=0.5)
    gone = {TopicPartition(connection.topic(name), 0): -1 for name in ("order", "decisions")}
    admin = KafkaAdminClient(**connection.admin_options())
    admin.delete_records(gone)
    admin.close()
    send(connection, interactions("x", 20, first=40))
    with learning(connection, tmp_path / "a", "first") as first:
        wait_until(lambda: has(first, 20), 20, "the first has learned again")
        status = first.run(stop=lambda: False, until_idle_s=0.5)
        assert status["missed"] == 0
        app = first._partitions[0].apps["x"]
        assert app.store.seed() is not None
        assert event_ids(app, "decision")[-20:] == [f"x:{n}" for n in range(40, 60)]
    assert len(list((tmp_path / "a" / "apps").glob("x.db.left-at-*"))) == 1
