"""Looking at topics: everything that is there, nothing twice, and an end."""

from __future__ import annotations

import socket
import time

import pytest

from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.inspect import Inspector
from bandit_router.errors import TransportError


@pytest.fixture
def filled(any_broker):
    """A connection to topics with 30 decisions over three partitions and one tombstone."""
    from kafka import KafkaProducer

    connection = any_broker.with_topics(partitions=3)
    producer = KafkaProducer(**connection.options(acks="all"))
    for i in range(30):
        headers = [("n", b"%d" % i)]
        producer.send(
            connection.topic("decisions"),
            key=b"app-%d" % (i % 5),
            value=b"v%d" % i,
            partition=i % 3,
            headers=headers,
        )
    producer.send(connection.topic("decisions"), key=b"app-1", value=None, partition=1)
    producer.flush()
    producer.close()
    return connection


def test_everything_is_read_once_and_then_it_ends(filled):
    with Inspector(filled) as inspector:
        spans = inspector.spans(["decisions", "outcomes"])
        assert {place: end - first for place, (first, end) in spans.items()} == {
            ("decisions", 0): 10,
            ("decisions", 1): 11,
            ("decisions", 2): 10,
            **{("outcomes", number): 0 for number in range(3)},
        }
        records = list(inspector.read(spans))
        again = list(inspector.read(spans))
    places = [(r.partition, r.offset) for r in records]
    assert len(set(places)) == len(places) == 31
    for number in range(3):
        ordered = [r.offset for r in records if r.partition == number]
        assert ordered == sorted(ordered)
    assert sorted(places) == sorted((r.partition, r.offset) for r in again)
    assert {r.value for r in records} == {b"v%d" % i for i in range(30)} | {None}
    first = next(r for r in records if r.value == b"v7")
    assert (first.topic, first.key, first.headers) == ("decisions", b"app-2", (("n", b"7"),))
    assert abs(first.ts - time.time()) < 600


@pytest.mark.parametrize("most", [1, 4, 100])
def test_the_newest_of_an_app_are_the_newest_that_it_has(filled, most):
    with Inspector(filled) as inspector:
        found = inspector.last(
            inspector.spans(["decisions"]), most, lambda record: record.key == b"app-3"
        )
    numbers = [int(record.value[1:]) for record in found]
    expected = [i for i in range(30) if i % 5 == 3]
    assert len(numbers) == min(most, len(expected))
    assert set(numbers) <= set(expected)
    if most >= len(expected):
        assert sorted(numbers) == expected


def test_following_goes_on_with_what_comes_later(filled):
    from kafka import KafkaProducer

    with Inspector(filled) as inspector:
        ends = {place: end for place, (_, end) in inspector.spans(["decisions"]).items()}
        producer = KafkaProducer(**filled.options(acks="all"))
        producer.send(filled.topic("decisions"), value=b"later", partition=2).get(10)
        producer.close()
        assert next(inspector.follow(ends)).value == b"later"


def test_a_missing_topic_is_said_with_the_mend(broker):
    with (
        Inspector(broker.connection()) as inspector,
        pytest.raises(TransportError, match="events init"),
    ):
        inspector.spans(["decisions"])


def test_a_broker_that_is_not_there_is_one_clear_error():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    connection = Connection(bootstrap_servers=(f"127.0.0.1:{port}",), timeout_s=0.5)
    with pytest.raises(TransportError, match=f"127.0.0.1:{port}: could not connect") as caught:
        Inspector(connection)
    assert len(str(caught.value).splitlines()) == 1


def test_a_broker_that_stops_answering_ends_the_reading(own_broker):
    connection = own_broker.with_topics(timeout_s=0.5)
    with Inspector(connection) as inspector:
        inspector.spans(["decisions"])
        own_broker.process.pause()
        try:
            with pytest.raises(TransportError):
                list(inspector.read({("decisions", 0): (0, 5)}))
        finally:
            own_broker.process.resume()
