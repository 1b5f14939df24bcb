"""The brokers and the proxy under the streaming tests do what those tests take for granted."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from bandit_router.adapters.kafka.client import ORDER, Connection
from bandit_router.bench.brokers.processes import Server, free_port, listening, wait_until

FAST = {"reconnect_backoff_ms": 20, "reconnect_backoff_max_ms": 100, "retry_backoff_ms": 20}


def producer(connection: Connection, **more) -> KafkaProducer:
    return KafkaProducer(**connection.options(acks="all", linger_ms=0, **FAST, **more))


def read(connection: Connection, name: str, count: int) -> list[bytes]:
    """The first ``count`` values of partition 0, and what else is there within a short while."""
    partition = TopicPartition(connection.topic(name), 0)
    values: list[bytes] = []
    with contextlib.closing(KafkaConsumer(**connection.options(group_id=None))) as consumer:
        consumer.assign([partition])
        consumer.seek(partition, 0)
        deadline = time.monotonic() + 20
        while len(values) < count and time.monotonic() < deadline:
            for records in consumer.poll(100).values():
                values += [record.value for record in records]
        for records in consumer.poll(200).values():
            values += [record.value for record in records]
    return values


def test_what_is_acknowledged_is_read_back_in_order(any_broker):
    connection = any_broker.with_topics()
    sent = [b"%d" % i for i in range(200)]
    with contextlib.closing(producer(connection)) as sender:
        acknowledged = [sender.send(connection.topic(ORDER), v, partition=0) for v in sent]
        assert [future.get(10).offset for future in acknowledged] == list(range(200))
    assert read(connection, ORDER, len(sent)) == sent


def test_a_killed_tansu_comes_back_empty_at_its_address(own_broker):
    before = own_broker.with_topics()
    own_broker.process.kill()
    assert not listening(own_broker.process.port)
    own_broker.process.restart()
    again = own_broker.with_topics()  # it fails on topics that could not be made
    assert again.bootstrap_servers == before.bootstrap_servers
    with contextlib.closing(producer(again)) as sender:
        assert sender.send(again.topic(ORDER), b"x", partition=0).get(10).offset == 0


def test_a_halted_tansu_answers_nobody_until_it_goes_on(own_broker):
    connection = own_broker.with_topics()
    with contextlib.closing(producer(connection)) as sender:
        sender.send(connection.topic(ORDER), b"before", partition=0).get(10)
        own_broker.process.pause()
        waiting = sender.send(connection.topic(ORDER), b"meanwhile", partition=0)
        with pytest.raises(Exception, match=r"(?i)timeout"):
            waiting.get(0.3)
        own_broker.process.resume()
        assert waiting.get(10).offset == 1


def test_brokers_end_with_the_test_run_even_when_it_is_killed(tmp_path, repo_root):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from bandit_router.bench.brokers import Tansu\n"
        f"tansu = Tansu(Path({str(tmp_path)!r})); tansu.start(); print(tansu.port, flush=True)\n"
        "time.sleep(60)"
    )
    places = os.pathsep.join([str(repo_root), str(repo_root / "tests")])
    run = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": places},
        stdout=subprocess.PIPE,
    )
    with run:
        port = int(run.stdout.readline())
        assert listening(port)
        run.send_signal(signal.SIGKILL)
    wait_until(lambda: not listening(port), 5, "the broker of a killed run is gone")


def test_a_broker_that_cannot_start_says_why(tmp_path: Path):
    command = ["/bin/sh", "-c", "echo no such luck; exit 3"]
    server = Server(command, log=tmp_path / "log", port=free_port())
    server.start()
    with pytest.raises(RuntimeError, match="no such luck"):
        server.wait_ready(lambda: False, 5)
    assert not server.running()


class TestProxy:
    """Each mode of the proxy, seen by a client of Kafka."""

    def test_pass_forwards(self, proxied_broker):
        broker, proxy = proxied_broker
        connection = broker.with_topics()
        with contextlib.closing(producer(connection)) as sender:
            assert sender.send(connection.topic(ORDER), b"x", partition=0).get(10).offset == 0
        assert read(connection, ORDER, 1) == [b"x"]
        assert proxy.accepted >= 3, "nobody went around the proxy"

    def test_reset_ends_open_connections_and_new_ones(self, proxied_broker):
        broker, proxy = proxied_broker
        connection = broker.with_topics()
        with contextlib.closing(producer(connection)) as sender:
            sender.send(connection.topic(ORDER), b"0", partition=0).get(10)
            assert proxy.connections > 0
            proxy.mode = "reset"
            wait_until(lambda: proxy.connections == 0, 5, "open connections are gone")
            accepted = proxy.accepted
            waiting = sender.send(connection.topic(ORDER), b"1", partition=0)
            wait_until(lambda: proxy.accepted > accepted + 2, 5, "it tries again, and again")
            assert not waiting.is_done
            proxy.mode = "pass"
            assert waiting.get(10).offset == 1

    def test_dropped_responses_are_of_requests_that_were_carried_out(self, proxied_broker):
        broker, proxy = proxied_broker
        connection = broker.with_topics()
        with contextlib.closing(producer(connection)) as sender:
            sender.send(connection.topic(ORDER), b"0", partition=0).get(10)
            proxy.mode = "drop_responses"
            waiting = sender.send(connection.topic(ORDER), b"1", partition=0)
            wait_until(lambda: proxy.dropped_bytes > 0, 5, "an answer is dropped")
            assert not waiting.is_done
            proxy.mode = "pass"
            # Sent again after the reset, and known to be there: Tansu then tells no offset.
            assert waiting.get(10).offset in {1, -1}
        assert read(connection, ORDER, 2) == [b"0", b"1"]

    def test_in_a_black_hole_nothing_moves_and_afterwards_it_arrives(self, proxied_broker):
        broker, proxy = proxied_broker
        connection = broker.with_topics()
        with contextlib.closing(producer(connection)) as sender:
            sender.send(connection.topic(ORDER), b"0", partition=0).get(10)
            proxy.mode = "black_hole"
            waiting = sender.send(connection.topic(ORDER), b"1", partition=0)
            with pytest.raises(Exception, match=r"(?i)timeout"):
                waiting.get(0.5)
            proxy.mode = "pass"
            assert waiting.get(10).offset == 1
        assert read(connection, ORDER, 2) == [b"0", b"1"]

    def test_delay_is_waited_each_way_and_makes_nothing_slower(self, proxied_broker):
        broker, proxy = proxied_broker
        connection = broker.with_topics()
        with contextlib.closing(producer(connection)) as sender:
            sender.send(connection.topic(ORDER), b"0", partition=0).get(10)
            proxy.mode = "delay"
            start = time.monotonic()
            sender.send(connection.topic(ORDER), b"1", partition=0).get(10)
            assert 2 * proxy.delay_s <= time.monotonic() - start < 2 * proxy.delay_s + 2
            big = [
                sender.send(connection.topic(ORDER), bytes(500_000), partition=0) for _ in "1234"
            ]
            start = time.monotonic()
            for future in big:
                future.get(10)
            assert time.monotonic() - start < 5

    def test_an_unknown_mode_is_refused(self, proxied_broker):
        _, proxy = proxied_broker
        with pytest.raises(ValueError, match="no mode 'slow'"):
            proxy.mode = "slow"


@pytest.mark.kafka
def test_kafka_knows_the_offset_of_what_is_sent_again(proxied_kafka):
    """Tansu knows that it has the record, too, but tells -1 instead of where."""
    broker, proxy = proxied_kafka
    connection = broker.with_topics()
    with contextlib.closing(producer(connection)) as sender:
        sender.send(connection.topic(ORDER), b"0", partition=0).get(10)
        proxy.mode = "drop_responses"
        waiting = sender.send(connection.topic(ORDER), b"1", partition=0)
        wait_until(lambda: proxy.dropped_bytes > 0, 10, "an answer is dropped")
        proxy.mode = "pass"
        assert waiting.get(20).offset == 1
    assert read(connection, ORDER, 2) == [b"0", b"1"]


@pytest.mark.kafka
def test_a_killed_kafka_has_what_it_acknowledged(kafka):
    connection = kafka.with_topics()
    with contextlib.closing(producer(connection)) as sender:
        for i in range(20):
            sender.send(connection.topic(ORDER), b"%d" % i, partition=0).get(10)
        kafka.process.kill()
        kafka.process.restart()
        assert sender.send(connection.topic(ORDER), b"20", partition=0).get(30).offset == 20
    assert read(connection, ORDER, 21) == [b"%d" % i for i in range(21)]


@pytest.mark.kafka
def test_a_leader_killed_among_three_loses_and_doubles_nothing(kafka3):
    connection = kafka3.with_topics(replication=3)
    topic, cluster = connection.topic(ORDER), kafka3.process
    sent = [b"%d" % i for i in range(300)]
    with contextlib.closing(producer(connection, delivery_timeout_ms=60_000)) as sender:
        futures = [sender.send(topic, value, partition=0) for value in sent[:100]]
        futures[-1].get(30)
        leader = cluster.leader(topic)
        futures += [sender.send(topic, value, partition=0) for value in sent[100:200]]
        cluster.kill(leader)
        futures += [sender.send(topic, value, partition=0) for value in sent[200:]]
        assert [future.get(60).offset for future in futures] == list(range(300))
        assert cluster.leader(topic) not in {leader, -1}
    cluster.restart(leader)
    assert read(connection, ORDER, len(sent)) == sent


@pytest.mark.kafka
def test_without_a_majority_in_sync_nothing_is_acknowledged(kafka3):
    from kafka.errors import KafkaError

    connection = kafka3.with_topics(replication=3)
    topic, cluster = connection.topic(ORDER), kafka3.process
    with contextlib.closing(
        producer(connection, delivery_timeout_ms=3000, request_timeout_ms=1000)
    ) as sender:
        sender.send(topic, b"0", partition=0).get(30)
        others = [node for node in cluster.running() if node != cluster.leader(topic)]
        for node in others:
            cluster.kill(node)
        with pytest.raises(KafkaError):
            sender.send(topic, b"1", partition=0).get(20)
