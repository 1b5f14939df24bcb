"""A router as it is opened from the settings: with Kafka, and while there is none."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from support.relaying import received

from bandit_router.adapters.outbox import Outbox
from bandit_router.bench.brokers.processes import wait_until
from bandit_router.config import Settings, load_settings
from bandit_router.errors import StorageError
from bandit_router.events import Completion, decode, encode
from bandit_router.streaming.edge import open_edge
from bandit_router.types import Context

CONFIG = """
[app]
name = "shop"
[policy]
name = "linucb"
[events]
transport = "kafka"
bootstrap_servers = ["{bootstrap}"]
prefix = "{prefix}"
partitions = 4
shards = 2
outbox = "outbox.db"
folder = "streaming"
[[models]]
model = "cheap"
expected_cost_usd = 0.001
[[models]]
model = "dear"
expected_cost_usd = 0.01
"""


def settings(folder: Path, bootstrap: str, prefix: str = "p") -> Settings:
    file = folder / "config.toml"
    file.write_text(CONFIG.format(bootstrap=bootstrap, prefix=prefix))
    return load_settings(file)


def query(number: int) -> Context:
    vector = np.random.default_rng(number).standard_normal(384)
    return Context(
        event_id=f"e{number}",
        ts=float(number),
        embedding=(vector / np.linalg.norm(vector)).astype(np.float32),
    )


def test_decisions_and_outcomes_arrive_in_the_partition_of_their_app(any_broker, tmp_path):
    connection = any_broker.with_topics()
    with open_edge(
        settings(tmp_path, any_broker.bootstrap, any_broker.prefix), embed=False
    ) as edge:
        decisions = [edge.decide(query(number)) for number in range(20)]
        for made in decisions:
            edge.record(
                [
                    Completion(
                        event_id=made.event_id,
                        ts=1.0,
                        app=made.app,
                        model=made.action,
                        cost_usd=0.001,
                    )
                ]
            )
        logged = received(connection, lambda found: len(found) >= 20)
        answers = received(connection, lambda found: len(found) >= 20, topic="outcomes")
        wait_until(lambda: edge.status()["follower"]["connected"], 10, "it follows")
        assert edge.status()["relay"]["running"]
    by_id = {made.event_id: made for made in decisions}
    assert {record.value for record in logged} == {encode(made) for made in decisions}
    for record in answers:
        outcome = decode(record.value)
        assert outcome.app == by_id[outcome.event_id].app == record.key.decode()
    for record in logged + answers:
        assert record.partition == connection.partition_of(record.key.decode())


def test_without_kafka_it_opens_decides_and_closes_and_nothing_is_lost(tmp_path):
    chosen = settings(tmp_path, "127.0.0.1:9")
    with open_edge(chosen, embed=False) as edge:
        for number in range(50):
            assert edge.decide(query(number)).slice != "forced"
        wait_until(lambda: edge.status()["relay"].get("last_error"), 20, "the relay says so")
        status = edge.status()
        assert status["outbox"]["events"] == 50
        assert "127.0.0.1:9" in status["relay"]["last_error"]
        assert not status["relay"]["connected"]
        begun = time.monotonic()
    assert time.monotonic() - begun < 20.0
    with Outbox.open(chosen.events.outbox) as outbox:
        assert outbox.backlog().events == 50


def test_two_routers_cannot_share_an_outbox(broker, tmp_path):
    chosen = settings(tmp_path, broker.bootstrap, broker.prefix)
    with (
        open_edge(chosen, embed=False),
        pytest.raises(StorageError, match="another process is relaying it"),
    ):
        open_edge(chosen, embed=False)
