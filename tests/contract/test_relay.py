"""What waits in an outbox comes to Kafka: all of it, as it is, in order, within bounds."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
from support.relaying import HASTY, all_of, check, number_of, numbered, received

from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.dead_letters import decode_dead
from bandit_router.adapters.kafka.opening import open_client
from bandit_router.adapters.kafka.relay import KEPT_OF_DEAD, Relay
from bandit_router.adapters.kafka.relay_process import RelayProcess
from bandit_router.adapters.outbox import Outbox, Outgoing
from bandit_router.bench.brokers.processes import wait_until
from bandit_router.errors import InputError, StorageError


@pytest.fixture
def outbox(tmp_path):
    with Outbox.open(tmp_path / "outbox.db") as opened:
        yield opened


@pytest.mark.parametrize("kind", [Relay, RelayProcess])
def test_everything_arrives_once_in_order_with_its_bytes(any_broker, outbox, kind):
    connection = any_broker.with_topics()
    before = [numbered(n) for n in range(1500)]
    outbox.put(before)
    with kind(outbox.path, connection) as relay:
        for n in range(1500, 2000):
            outbox.put([numbered(n)])
        found = received(connection, all_of(range(2000)))
        wait_until(lambda: outbox.backlog().events == 0, 10, "all are acknowledged")
    assert len(found) == 2000
    check(found, range(2000), connection)
    status = relay.status()
    assert (status["sent"], status["acknowledged"], status["resent"]) == (2000, 2000, 0)
    assert not status["running"]


def test_the_time_of_a_record_is_when_it_was_put(broker, outbox):
    # Apache Kafka replaces it by its own: the topics are made so, see the admin adapter.
    connection = broker.with_topics()
    outbox.put([numbered(0)])
    [put] = outbox.read(0, 1)
    with Relay(outbox.path, connection):
        [found] = received(connection, all_of([0]))
    assert found.timestamp == int(put.ts * 1000)


def test_a_null_value_and_topics_of_every_kind_are_sent(any_broker, outbox):
    connection = any_broker.with_topics()
    outbox.put([Outgoing("changes", "shop", None), Outgoing("outcomes", "shop", b"{}")])
    with Relay(outbox.path, connection):
        [change] = received(connection, bool, topic="changes")
        [outcome] = received(connection, bool, topic="outcomes")
    assert (change.key, change.value) == (b"shop", None)
    assert outcome.value == b"{}"


def test_closing_lets_what_waits_go_first(broker, outbox):
    connection = broker.with_topics()
    relay = Relay(outbox.path, connection)
    relay.start()
    outbox.put([numbered(n) for n in range(3000)])
    relay.close(drain_s=20)
    assert outbox.backlog().events == 0


def test_closing_without_a_broker_does_not_wait_for_it(broker, outbox):
    nowhere = broker.connection(bootstrap_servers=("127.0.0.1:9",), timeout_s=0.5)
    outbox.put([numbered(0)])
    relay = Relay(outbox.path, nowhere, limits=HASTY)
    relay.start()
    wait_until(lambda: relay.status()["errors"], 10, "it has failed once")
    relay.close(drain_s=0.1)
    status = relay.status()
    assert not status["running"]
    assert not status["connected"]
    assert "127.0.0.1:9" in status["last_error"]
    assert outbox.backlog().events == 1


def test_a_record_that_is_too_large_becomes_a_dead_letter_and_holds_nothing_up(any_broker, outbox):
    connection = any_broker.with_topics()
    huge = b"5:" + b"x" * 1_500_000
    for n in range(10):
        outbox.put([Outgoing("decisions", "shop", huge) if n == 5 else numbered(n)])
    with Relay(outbox.path, connection) as relay:
        found = received(connection, all_of(set(range(10)) - {5}))
        [letter] = received(connection, bool, topic="dead_letters")
        wait_until(lambda: outbox.backlog().events == 0, 10, "all are acknowledged")
        assert relay.status()["dead_lettered"] == 1
    check(found, set(range(10)) - {5}, connection)
    dead = decode_dead(letter.value, letter.headers)
    assert (dead.reason, dead.by, dead.app) == ("oversize", "relay", "shop")
    assert dead.topic == connection.topic("decisions")
    assert (dead.size, dead.value) == (len(huge), huge[: KEPT_OF_DEAD[0]])
    assert not dead.whole


@pytest.mark.kafka
def test_records_that_the_broker_refuses_as_too_large_become_dead_letters_and_no_others(
    kafka, outbox
):
    connection = kafka.connection()
    make_topics(connection, ("decisions", "dead_letters"), 50_000)
    refused = {20, 21}
    for n in range(40):
        outbox.put([numbered(n, size=60_000 if n in refused else 500)])
    with Relay(outbox.path, connection, limits=HASTY) as relay:
        found = received(connection, all_of(set(range(40)) - refused))
        letters = received(connection, lambda found: len(found) == 2, topic="dead_letters")
        wait_until(lambda: outbox.backlog().events == 0, 10, "all are acknowledged")
        assert relay.status()["dead_lettered"] == 2
    check(found, set(range(40)) - refused, connection)
    for letter in letters:
        dead = decode_dead(letter.value, letter.headers)
        assert (dead.reason, number_of(dead) in refused) == ("oversize", True)
        assert dead.size > 60_000
        assert len(dead.value or b"") == KEPT_OF_DEAD[1]


def make_topics(connection: Connection, names: Sequence[str], max_bytes: int) -> None:
    """Make topics that take records up to a size."""
    from kafka.admin import KafkaAdminClient, NewTopic

    with contextlib.closing(open_client(KafkaAdminClient, connection.admin_options())) as admin:
        admin.create_topics(
            [
                NewTopic(
                    connection.topic(name),
                    connection.partitions,
                    1,
                    topic_configs={"max.message.bytes": str(max_bytes)},
                )
                for name in names
            ]
        )


@pytest.mark.kafka  # Tansu makes a topic whether it is asked to or not
def test_topics_that_are_missing_are_waited_for(kafka, outbox):
    connection = kafka.connection(timeout_s=1.0)
    outbox.put([numbered(n) for n in range(20)])
    with Relay(outbox.path, connection, limits=HASTY) as relay:
        wait_until(lambda: relay.status()["errors"], 10, "it has failed once")
        assert "`bandit-router events init` makes it" in relay.status()["last_error"]
        assert outbox.backlog().events == 20
        kafka.with_topics()
        check(received(connection, all_of(range(20))), range(20), connection)


def test_a_topic_with_fewer_partitions_than_configured_is_told(any_broker, outbox):
    any_broker.with_topics(partitions=1)
    connection = any_broker.connection(partitions=64)
    outbox.put([numbered(0)])
    relay = Relay(outbox.path, connection, limits=HASTY)
    relay.start()
    wait_until(lambda: relay.status()["last_error"], 10, "it has failed once")
    relay.close(drain_s=0.0)
    assert "events.partitions is 64" in relay.status()["last_error"]
    assert outbox.backlog().events == 1


@pytest.mark.parametrize(
    ("bound", "most"), [({"max_in_flight_events": 8}, 8), ({"max_in_flight_bytes": 5000}, 4)]
)
def test_what_is_under_way_is_bounded(own_broker, outbox, bound, most):
    connection = own_broker.with_topics()
    outbox.put([numbered(0)])
    with Relay(outbox.path, connection, limits=replace(HASTY, **bound)) as relay:
        wait_until(lambda: relay.status()["acknowledged"] == 1, 10, "one is acknowledged")
        own_broker.process.pause()
        outbox.put([numbered(n, size=1000) for n in range(1, 60)])
        wait_until(lambda: relay.status()["in_flight"] >= most, 10, "as many as may be are sent")
        sent = relay.status()["sent"]
        assert relay.status()["in_flight"] == most
        assert sent == most + 1
        own_broker.process.resume()
        check(received(connection, all_of(range(60))), range(60), connection)


@pytest.mark.parametrize("second", [Relay, RelayProcess])
def test_an_outbox_has_one_relay(broker, outbox, second):
    connection = broker.with_topics()
    with Relay(outbox.path, connection):
        other = second(outbox.path, connection, wait_s=0.0)
        with pytest.raises(StorageError, match="another process is relaying it"):
            other.start()
    with second(outbox.path, connection):
        outbox.put([numbered(0)])
        assert [number_of(record) for record in received(connection, all_of([0]))] == [0]


@pytest.mark.parametrize("kind", [Relay, RelayProcess])
def test_a_file_that_is_no_outbox_is_told_when_it_starts(broker, tmp_path, kind):
    file = tmp_path / "notes"
    file.write_text("no database\n" * 1000)
    with pytest.raises((StorageError, InputError), match="damaged"):
        kind(file, broker.connection()).start()
