"""Whatever happens to the broker, the network or the relay: what was put arrives, in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from support.relaying import HASTY, all_of, check, number_of, numbered, received

from bandit_router.adapters.kafka.relay import Relay
from bandit_router.adapters.kafka.relay_process import RelayProcess
from bandit_router.adapters.outbox import Outbox
from bandit_router.bench.brokers.processes import wait_until

KILLS = int(os.environ.get("BANDIT_CHAOS_KILLS", "3"))


@pytest.fixture
def outbox(tmp_path):
    with Outbox.open(tmp_path / "outbox.db") as opened:
        yield opened


def put_for(outbox: Outbox, first: int, seconds: float, per_s: float = 400.0) -> int:
    """Put numbered records at a steady rate; returns the next number."""
    begun, number = time.monotonic(), first
    while (elapsed := time.monotonic() - begun) < seconds:
        while number - first < elapsed * per_s:
            outbox.put([numbered(number)])
            number += 1
        wait_until(lambda n=number: n - first <= (time.monotonic() - begun) * per_s, 1, "it is due")
    return number


def test_a_broker_that_is_not_there_at_the_start_gets_everything_when_it_comes(own_broker, outbox):
    connection = own_broker.with_topics(timeout_s=0.5)
    own_broker.process.kill()
    with Relay(outbox.path, connection, limits=HASTY) as relay:
        last = put_for(outbox, 0, 0.5)
        wait_until(lambda: relay.status()["errors"], 10, "it has failed once")
        assert outbox.backlog().events == last
        own_broker.process.start()
        own_broker.with_topics()
        check(received(connection, all_of(range(last))), range(last), connection)
        wait_until(lambda: outbox.backlog().events == 0, 10, "all are acknowledged")
        assert relay.status()["connected"]


def test_a_broker_that_is_killed_and_comes_back_empty_gets_all_that_it_had_not_acknowledged(
    own_broker, outbox
):
    connection = own_broker.with_topics(timeout_s=0.5)
    with Relay(outbox.path, connection, limits=HASTY) as relay:
        between = put_for(outbox, 0, 0.5)
        own_broker.process.kill()
        last = put_for(outbox, between, 0.5)
        wait_until(lambda: not relay.status()["connected"], 10, "it has noticed")
        acknowledged = relay.status()["acknowledged"]
        assert 0 < acknowledged <= between
        own_broker.process.start()
        own_broker.with_topics()
        last = put_for(outbox, last, 0.2)
        found = received(connection, all_of(range(acknowledged, last)))
        check(found, sorted({number_of(record) for record in found}), connection)
        wait_until(lambda: outbox.backlog().events == 0, 10, "all are acknowledged")


@pytest.mark.kafka
def test_a_kafka_that_is_killed_and_comes_back_has_everything(kafka, outbox):
    connection = kafka.with_topics(timeout_s=1.0)
    with Relay(outbox.path, connection, limits=HASTY) as relay:
        last = put_for(outbox, 0, 0.5)
        wait_until(lambda: relay.status()["acknowledged"] > 0, 10, "it is connected")
        kafka.process.kill()
        last = put_for(outbox, last, 0.5)
        wait_until(lambda: not relay.status()["connected"], 20, "it has noticed")
        kafka.process.restart()
        last = put_for(outbox, last, 0.2)
        check(received(connection, all_of(range(last)), timeout_s=40), range(last), connection)
        wait_until(lambda: outbox.backlog().events == 0, 20, "all are acknowledged")


@pytest.mark.parametrize("mode", ["reset", "drop_responses", "black_hole", "delay"])
def test_nothing_is_lost_on_a_bad_network_and_no_put_waits_for_it(proxied_broker, outbox, mode):
    broker, proxy = proxied_broker
    connection = broker.with_topics(timeout_s=1.0)
    with Relay(outbox.path, connection, limits=HASTY) as relay:
        last = put_for(outbox, 0, 0.2)
        wait_until(lambda: relay.status()["acknowledged"] > 0, 10, "it is connected")
        proxy.mode = mode
        begun = time.monotonic()
        last = put_for(outbox, last, 1.0)
        assert time.monotonic() - begun < 2.5  # the puts kept their pace
        proxy.mode = "pass"
        last = put_for(outbox, last, 0.2)
        check(received(connection, all_of(range(last))), range(last), connection)
        wait_until(lambda: outbox.backlog().events == 0, 15, "all are acknowledged")
        assert relay.status()["undeliverable"] == relay.status()["dead_lettered"] == 0


def test_a_relay_process_that_is_killed_again_and_again_loses_nothing(own_broker, outbox):
    connection = own_broker.with_topics()
    last = 0
    with RelayProcess(outbox.path, connection, limits=HASTY) as relay:
        for n in range(KILLS):
            before = outbox.acknowledged()
            last = put_for(outbox, last, 0.2)
            wait_until(lambda b=before: outbox.acknowledged() > b, 20, "it sends")
            killed = relay.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda k=killed: relay.pid not in (None, k), 20, "there is another")
            assert relay.status()["restarts"] == n + 1
        check(received(connection, all_of(range(last))), range(last), connection)
        wait_until(lambda: outbox.backlog().events == 0, 20, "all are acknowledged")


ROUTER = """
import sys, time
from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.relay_process import RelayProcess

relay = RelayProcess(sys.argv[1], Connection(bootstrap_servers=(sys.argv[2],), prefix=sys.argv[3]))
relay.start()
print(relay.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_relay_does_not_outlive_a_router_that_is_killed_and_the_next_goes_on(own_broker, outbox):
    connection = own_broker.with_topics(partitions=8)
    command = [sys.executable, "-c", ROUTER, str(outbox.path), own_broker.bootstrap]
    router = subprocess.Popen(
        [*command, own_broker.prefix],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert router.stdout is not None
    child = int(router.stdout.readline())
    outbox.put([numbered(n) for n in range(100)])
    router.kill()
    router.wait()
    router.stdout.close()
    with RelayProcess(outbox.path, connection, wait_s=10.0):
        outbox.put([numbered(n) for n in range(100, 200)])
        check(received(connection, all_of(range(200))), range(200), connection)
    wait_until(lambda: not alive(child), 10, "the killed router's relay has ended")


def test_a_locked_outbox_is_waited_for_and_nothing_is_sent_twice_for_it(own_broker, outbox):
    connection = own_broker.with_topics()
    with Relay(outbox.path, connection, limits=HASTY) as relay:
        outbox.put([numbered(n) for n in range(50)])
        wait_until(lambda: relay.status()["acknowledged"] == 50, 10, "they are sent")
        outbox.put([numbered(n) for n in range(50, 100)])
        outbox._connection.execute("BEGIN IMMEDIATE")
        wait_until(lambda: relay.status()["acknowledged"] == 100, 10, "the others are sent, too")
        wait_until(lambda: "locked" in relay.status()["last_error"], 10, "it notices the lock")
        outbox._connection.execute("ROLLBACK")
        wait_until(lambda: outbox.backlog().events == 0, 10, "it goes on")
        assert relay.status()["resent"] == 0
    found = received(connection, all_of(range(100)))
    assert len(found) == 100
