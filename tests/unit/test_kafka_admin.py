"""`init_topics` makes what is missing, changes nothing, and names each mend."""

from __future__ import annotations

import pytest
from kafka.admin import KafkaAdminClient

from bandit_router.adapters.kafka.admin import (
    CREATED,
    MISSING,
    THERE,
    TOPICS,
    describe,
    init_topics,
)
from bandit_router.adapters.kafka.client import Connection
from bandit_router.bench.brokers.processes import free_port
from bandit_router.errors import TransportError

KEPT = {"replication": 1, "retention_hours": 24}
EVENTS = {"cleanup_policy": "delete", "message_timestamp_type": "LogAppendTime"}


def make(connection: Connection, name: str, partitions: int = 4, **configs: str) -> str:
    """Make one topic by hand; ``cleanup_policy`` stands for cleanup.policy."""
    topic = connection.topic(name)
    settings = {key.replace("_", "."): value for key, value in configs.items()}
    sizes = {"num_partitions": partitions, "replication_factor": 1}
    admin = KafkaAdminClient(**connection.admin_options())
    admin.create_topics({topic: {**sizes, "configs": settings}}, wait_for_metadata=True)
    admin.close()
    return topic


def states(connection: Connection, **kept) -> dict[str, str]:
    found = describe(connection, **{**KEPT, **kept}).topics
    return {topic.topic: topic.state for topic in found}


def problem(connection: Connection, topic: str, **kept):
    (found,) = (t for t in describe(connection, **{**KEPT, **kept}).topics if t.topic == topic)
    return found


def test_topics_are_made_once_and_then_left_alone(any_broker):
    connection = any_broker.connection()
    everything = [connection.topic(name) for name in TOPICS]
    assert states(connection) == dict.fromkeys(everything, MISSING)
    first, second = (init_topics(connection, **KEPT) for _ in range(2))
    assert [(t.topic, t.state) for t in first] == [(name, CREATED) for name in everything]
    assert [(t.topic, t.state) for t in second] == [(name, THERE) for name in everything]
    assert states(connection) == dict.fromkeys(everything, THERE)


def test_what_one_topic_lacks_is_made_beside_the_others(any_broker):
    connection = any_broker.connection()
    there = make(connection, "decisions", **EVENTS)
    assert {t.topic: t.state for t in init_topics(connection, **KEPT)} == {
        connection.topic(name): THERE if connection.topic(name) == there else CREATED
        for name in TOPICS
    }


def test_a_missing_topic_is_mended_by_events_init(any_broker):
    connection = any_broker.connection()
    found = problem(connection, connection.topic("order"))
    assert (found.problem, found.mend) == ("is missing", "bandit-router events init")


@pytest.mark.parametrize("actual", [2, 6])
def test_another_number_of_partitions_is_a_problem(any_broker, actual):
    connection = any_broker.connection()
    topic = make(connection, "outcomes", partitions=actual)
    found = problem(connection, topic)
    assert found.problem == f"has {actual} partitions, not 4"
    assert f"events.partitions = {actual}" in found.mend
    assert found in init_topics(connection, **KEPT), "reported, and not changed"


def test_snapshots_that_are_not_compacted_are_a_problem(any_broker):
    connection = any_broker.connection()
    topic = make(connection, "snapshots", cleanup_policy="delete")
    found = problem(connection, topic)
    assert found.problem == "has cleanup.policy=delete, not compact"
    assert found.mend.endswith(f"--entity-name {topic} --add-config cleanup.policy=compact")


def test_events_that_are_compacted_away_are_a_problem(any_broker):
    connection = any_broker.connection()
    topic = make(connection, "decisions", cleanup_policy="compact")
    assert problem(connection, topic).problem == "has cleanup.policy=compact, not delete"


def test_events_that_are_removed_too_early_are_a_problem(any_broker):
    connection = any_broker.connection()
    topic = make(connection, "decisions", cleanup_policy="delete", retention_ms="1000")
    assert problem(connection, topic).problem == "has retention.ms=1000, not 86400000"


def test_events_that_are_kept_longer_are_none(any_broker):
    connection = any_broker.connection()
    topic = make(connection, "decisions", **EVENTS, retention_ms="-1")
    assert problem(connection, topic).state == THERE


def test_too_few_replicas_are_a_problem(any_broker):
    connection = any_broker.connection()
    topic = make(connection, "decisions", cleanup_policy="delete")
    found = problem(connection, topic, replication=3)
    assert found.problem == "has 1 replicas, not 3"
    assert "events.replication = 1" in found.mend


def test_the_number_of_brokers_is_told(any_broker):
    assert describe(any_broker.connection(), **KEPT).brokers == 1


@pytest.mark.kafka
def test_more_replicas_than_brokers_are_refused_with_the_mend(kafka):
    found = init_topics(kafka.connection(), replication=3, retention_hours=1)
    assert {t.state for t in found} == {"wrong"}
    assert {t.mend for t in found} == {"set events.replication to at most the number of brokers"}


def test_no_broker_is_a_transport_error_within_the_timeout():
    port = free_port()
    nowhere = Connection(bootstrap_servers=(f"127.0.0.1:{port}",), timeout_s=0.5)
    for ask in (init_topics, describe):
        with pytest.raises(TransportError, match=str(port)) as raised:
            ask(nowhere, **KEPT)
        assert raised.value.retriable


def test_one_dead_server_among_the_bootstrap_servers_does_no_harm(broker):
    dead = f"127.0.0.1:{free_port()}"
    connection = broker.connection(bootstrap_servers=(dead, broker.bootstrap))
    assert describe(connection, **KEPT).brokers == 1
