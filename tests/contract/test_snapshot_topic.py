"""The topic of snapshots on real brokers: what is published arrives, whatever else is on it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.brokers import Broker
from support.published import APP, KEY, recipe, records, snapshot

from bandit_router.adapters.kafka.assembly import Announced, chunk_key
from bandit_router.adapters.kafka.client import SNAPSHOTS, Connection
from bandit_router.adapters.kafka.opening import open_client
from bandit_router.adapters.kafka.snapshots import (
    SnapshotPublisher,
    SnapshotReader,
    last_published,
)
from bandit_router.bench.brokers import FaultProxy
from bandit_router.errors import TransportError
from bandit_router.snapshot import Snapshot
from bandit_router.streaming.following import Follower

DEADLINE_S = 30.0
SMALL = 2_000


@pytest.fixture(scope="module")
def old() -> Snapshot:
    return snapshot(20, key=KEY)


@pytest.fixture(scope="module")
def new() -> Snapshot:
    return snapshot(40, key=KEY)


def wait_for(condition: Callable[[], bool], what: object) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.01)


def next_of(reader: SnapshotReader) -> Announced:
    """The next snapshot that a reader hands over."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for found in reader.poll(0.1):
            assert isinstance(found, Announced), found
            return found
    raise AssertionError("nothing came")


def publish(connection: Connection, of: Snapshot, epoch: int = 1, **options) -> None:
    with SnapshotPublisher(connection, key=KEY, **options) as publisher:
        publisher.publish(APP, of, epoch=epoch, learner="test")


def put(connection: Connection, found, *, app: str = APP) -> None:
    """Put raw records into an app's partition, and wait until the broker has them."""
    from kafka import KafkaProducer

    with contextlib.closing(open_client(KafkaProducer, connection.options())) as producer:
        topic, partition = connection.topic(SNAPSHOTS), connection.partition_of(app)
        for key, value, headers in found:
            sent = producer.send(topic, key=key, value=value, headers=headers, partition=partition)
            sent.get(timeout=DEADLINE_S)


def everything(connection: Connection) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Key and value of every record in the app's partition."""
    from kafka import KafkaConsumer, TopicPartition

    place = TopicPartition(connection.topic(SNAPSHOTS), connection.partition_of(APP))
    options = connection.options(group_id=None, enable_auto_commit=False, fetch_max_wait_ms=50)
    with contextlib.closing(open_client(KafkaConsumer, options)) as consumer:
        consumer.assign([place])
        consumer.seek(place, 0)
        deadline = time.monotonic() + DEADLINE_S
        while consumer.highwater(place) is None or consumer.position(place) < consumer.highwater(
            place
        ):
            assert time.monotonic() < deadline
            for batch in consumer.poll(200).values():
                yield from ((record.key, record.value) for record in batch)


@pytest.mark.parametrize("chunk_bytes", [900_000, SMALL])
def test_what_is_published_arrives_and_again_at_a_reader_that_comes_later(
    any_broker: Broker, old, new, chunk_bytes
):
    connection = any_broker.with_topics()
    with SnapshotReader(connection, [APP], key=KEY) as reader:
        assert reader.poll(0.1) == []
        for number, one in enumerate((old, new)):
            publish(connection, one, number, chunk_bytes=chunk_bytes)
            found = next_of(reader)
            assert (found.data, found.epoch) == (one.data, number)
        assert reader.poll(0.1) == []
    assert last_published(connection, [APP, "other"], key=KEY)[APP].data == new.data
    assert set(last_published(connection, [APP, "other"], key=KEY)) == {APP}


def test_the_chunks_of_a_larger_predecessor_are_deleted(any_broker: Broker, old, new):
    connection = any_broker.with_topics()
    publish(connection, old, chunk_bytes=SMALL)
    chunks = {key for key, value in everything(connection) if b"\0" in key and value}
    assert len(chunks) > 5
    publish(connection, new, chunk_bytes=len(new.data))
    last = dict(everything(connection))
    assert {key for key, value in last.items() if value is not None} == {APP.encode()}
    assert chunks <= {key for key, value in last.items() if value is None}
    assert last_published(connection, [APP], key=KEY)[APP].data == new.data


def test_one_publisher_deletes_no_more_than_what_it_left_itself(any_broker: Broker, old, new):
    connection = any_broker.with_topics()
    with SnapshotPublisher(connection, key=KEY, chunk_bytes=SMALL) as publisher:
        publisher.publish(APP, new, epoch=1, learner="test")
        before = sum(1 for _ in everything(connection))
        publisher.publish(APP, old, epoch=1, learner="test")
        left = list(everything(connection))[before:]
        last = dict(everything(connection))
    assert len(left) < 40  # chunks, announcement, a few deletions; not all there could be
    there = {key for key, value in last.items() if value is not None}
    assert {record[0] for record in records(old, chunk_bytes=SMALL, key=KEY)} == there


def test_rubbish_on_the_topic_is_counted_and_stops_nobody(any_broker: Broker, old, new):
    connection = any_broker.with_topics()
    rubbish = [
        (b"", None, []), (b"\xff", b"\0", []), (b"other", b"{}", []),
        (chunk_key(APP, 3), None, []), (APP.encode(), b"no json", []),
        (chunk_key(APP, 2), b"x", [("snapshot_id", b"1"), ("index", b"7")]),
        *records(new), *records(new, key=b"another key"), (APP.encode(), None, []),
    ]  # fmt: skip
    with SnapshotReader(connection, [APP], key=KEY) as reader:
        put(connection, rubbish)
        publish(connection, old)
        put(connection, rubbish)
        refused, found = [], None
        deadline = time.monotonic() + DEADLINE_S
        while (found is None or len(refused) < 8) and time.monotonic() < deadline:
            for one in reader.poll(0.1):
                if isinstance(one, Announced):
                    found = one
                else:
                    refused.append(one.reason)
        assert found is not None
        assert found.data == old.data
        assert sorted(refused) == sorted(["damaged", "damaged", "unsigned", "bad_hmac"] * 2)
        assert reader.counts["foreign"] == 6
        assert reader.counts["tombstones"] >= 4


def test_several_apps_are_followed_each_by_itself(any_broker: Broker):
    connection = any_broker.with_topics()
    apps = [f"default/{i}" for i in range(6)]
    states = {app: snapshot(i + 1, app=app, policy="linucb") for i, app in enumerate(apps)}
    with SnapshotPublisher(connection, key=KEY) as publisher:
        for app, state in states.items():
            publisher.publish(app, state, epoch=1, learner="test")
    found = last_published(connection, apps[:4], key=KEY)
    assert {app: one.data for app, one in found.items()} == {
        app: states[app].data for app in apps[:4]
    }


def test_a_follower_swaps_within_five_seconds_of_a_publication(
    any_broker: Broker, tmp_path, old, new
):
    connection = any_broker.with_topics()
    with (
        following(connection, tmp_path) as follower,
        SnapshotPublisher(connection, key=KEY) as publisher,
    ):
        assert follower.served(APP) is None
        publisher.publish(APP, old, epoch=1, learner="test")
        serves(follower, old)
        publisher.publish(APP, new, epoch=1, learner="test")
        begun = time.monotonic()
        serves(follower, new)
        assert time.monotonic() - begun < 5.0
        assert follower.status()["connected"]


def following(connection: Connection, folder: Path, **options) -> Follower:
    return Follower(
        SnapshotReader(connection, [APP], key=KEY, **options), {APP: recipe()}, folder, key=KEY
    )


def serves(follower: Follower, of: Snapshot) -> None:
    def does() -> bool:
        served = follower.served(APP)
        return served is not None and served.snapshot_id == of.id

    wait_for(does, follower.status())


def test_a_broker_that_comes_back_with_nothing_is_read_from_the_start_again(
    own_broker: Broker, tmp_path, old, new
):
    connection = own_broker.with_topics()
    with following(connection, tmp_path) as follower:
        publish(connection, old)
        serves(follower, old)
        own_broker.process.kill()
        assert follower.served(APP).snapshot_id == old.id
        own_broker.process.start()
        own_broker.with_topics()
        publish(connection, new)
        serves(follower, new)


def test_a_follower_started_before_its_broker_finds_it(own_broker: Broker, tmp_path, old):
    own_broker.process.kill()
    with following(own_broker.connection(timeout_s=1.0), tmp_path) as follower:
        wait_for(lambda: follower.status()["problem"], "it says nothing")
        own_broker.process.start()
        connection = own_broker.with_topics()
        publish(connection, old)
        serves(follower, old)
        assert follower.status()["connected"]


# kafka-python leaves a socket that is reset while it connects to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("mode", ["black_hole", "drop_responses", "reset"])
def test_a_network_that_fails_is_noticed_and_followed_again_once_it_works(
    proxied_broker: tuple[Broker, FaultProxy], tmp_path, old, new, mode
):
    broker, proxy = proxied_broker
    connection = broker.with_topics(timeout_s=1.0)
    publish(connection, old)
    with following(connection, tmp_path, silent_s=1.5) as follower:
        serves(follower, old)
        proxy.mode = mode
        wait_for(lambda: not follower.status()["connected"], "it seems connected")
        assert follower.served(APP).snapshot_id == old.id
        proxy.mode = "pass"
        publish(connection, new)
        serves(follower, new)


def test_publishing_to_nobody_says_so_and_works_once_somebody_is_there(own_broker: Broker, old):
    connection = own_broker.with_topics(timeout_s=1.0)
    with SnapshotPublisher(connection, key=KEY, timeout_s=1.0) as publisher:
        publisher.publish(APP, old, epoch=1, learner="test")
        own_broker.process.kill()
        with pytest.raises(TransportError, match="could not") as caught:
            publisher.publish(APP, old, epoch=1, learner="test")
        assert caught.value.retriable
        own_broker.process.start()
        own_broker.with_topics()
        publisher.publish(APP, old, epoch=1, learner="test")
    assert last_published(connection, [APP], key=KEY)[APP].data == old.data


def test_the_end_of_a_topic_that_is_not_there_is_not_reached(own_broker: Broker):
    own_broker.process.kill()
    with pytest.raises(TransportError):
        last_published(own_broker.connection(timeout_s=0.5), [APP], timeout_s=1.0)


@pytest.mark.kafka
def test_what_a_killed_kafka_had_acknowledged_is_followed_after_it(
    kafka: Broker, tmp_path, old, new
):
    connection = kafka.with_topics()
    publish(connection, old)
    with following(connection, tmp_path) as follower:
        serves(follower, old)
        publish(connection, new, chunk_bytes=SMALL)
        kafka.process.restart()
        serves(follower, new)
    assert last_published(connection, [APP], key=KEY)[APP].data == new.data


def configure(connection: Connection, **settings: str) -> None:
    """Set the topic's settings."""
    from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

    with contextlib.closing(open_client(KafkaAdminClient, connection.admin_options())) as admin:
        admin.alter_configs(
            [
                ConfigResource(
                    ConfigResourceType.TOPIC,
                    connection.topic(SNAPSHOTS),
                    configs={name.replace("_", "."): value for name, value in settings.items()},
                )
            ]
        )


@pytest.mark.kafka
def test_a_topic_that_takes_only_small_records_gets_smaller_chunks(kafka: Broker, old):
    connection = kafka.with_topics()
    configure(connection, cleanup_policy="compact", max_message_bytes="20000")
    with SnapshotPublisher(connection, key=KEY) as publisher:
        noisy = snapshot(600, key=KEY)
        assert len(noisy.data) > 80_000
        publisher.publish(APP, noisy, epoch=1, learner="test")
        publisher.publish(APP, old, epoch=2, learner="test")
        publisher.publish(APP, noisy, epoch=3, learner="test")
    assert last_published(connection, [APP], key=KEY)[APP].data == noisy.data
    assert max(len(value) for _, value in everything(connection) if value) < 20_000


@pytest.mark.kafka
def test_a_topic_that_takes_next_to_nothing_is_an_error_and_stays_as_it_was(kafka: Broker, old):
    connection = kafka.with_topics()
    publish(connection, old)
    configure(connection, cleanup_policy="compact", max_message_bytes="1000")
    with pytest.raises(TransportError, match=r"raise max\.message\.bytes") as caught:
        publish(connection, snapshot(600, key=KEY), 2)
    assert not caught.value.retriable
    assert last_published(connection, [APP], key=KEY)[APP].data == old.data


@pytest.mark.kafka
def test_compaction_keeps_the_newest_snapshot_and_takes_the_tombstones(
    kafka: Broker, tmp_path, old, new
):
    connection = kafka.with_topics()
    configure(
        connection,
        cleanup_policy="compact",
        segment_ms="200",
        min_cleanable_dirty_ratio="0.01",
        delete_retention_ms="100",
        max_compaction_lag_ms="500",
    )
    with (
        following(connection, tmp_path) as follower,
        SnapshotPublisher(connection, key=KEY, chunk_bytes=SMALL) as publisher,
    ):
        for number in range(6):
            publisher.publish(APP, (new, old)[number % 2], epoch=number, learner="test")
        put(connection, [(b"gone", b"x", []), (b"gone", None, []), (b"other", b"x", [])])
        before = sum(1 for _ in everything(connection))

        def compacted() -> bool:
            # A segment is closed by the next record after segment.ms; the cleaner does the rest.
            put(connection, [(b"other", b"x", [])])
            left = list(everything(connection))
            keys = [key for key, _ in left]
            return (
                len(left) < before / 4
                and b"gone" not in keys
                and all(keys.count(key) == 1 for key in keys if key.startswith(APP.encode()))
            )

        wait_for(compacted, "Kafka did not compact")
        serves(follower, old)
        assert follower.status()["refused"] == {}
    assert last_published(connection, [APP], key=KEY)[APP].data == old.data
    with following(connection, tmp_path / "fresh") as late:
        serves(late, old)
        assert late.served(APP).epoch == 5
