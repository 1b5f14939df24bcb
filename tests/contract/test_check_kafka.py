"""`bandit-router check` says whether Kafka can be reached and what is wrong with the topics."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import KafkaAdminClient
from typer.testing import CliRunner

from bandit_router.adapters.kafka.admin import TOPICS
from bandit_router.adapters.kafka.client import Connection
from bandit_router.bench.brokers.processes import free_port, wait_until
from bandit_router.cli import check
from bandit_router.cli.app import app


@pytest.fixture
def _alone(monkeypatch):
    """The two checks of what Kafka needs, without the others, which load models for seconds."""
    monkeypatch.setattr(check, "PROBES", (check._outbox, check._events))


def events_of(
    tmp_path: Path, *lines: str, transport: str = "kafka"
) -> tuple[int, list[dict[str, Any]]]:
    """Exit code, and what `check` finds of the events."""
    path = tmp_path / "app.toml"
    path.write_text(
        '[policy]\nname = "thompson"\nquality_value_usd = 0.01\n'
        f'[events]\ntransport = "{transport}"\npartitions = 4\n' + "\n".join(lines) + "\n"
        '[[models]]\nmodel = "cheap"\nexpected_cost_usd = 0.0001\n'
        '[[models]]\nmodel = "dear"\nexpected_cost_usd = 0.005\n'
    )
    result = CliRunner().invoke(app, ["check", "--config", str(path), "--json"])
    checks = json.loads(result.stdout)["checks"]
    return result.exit_code, [found for found in checks if found["check"] in {"events", "outbox"}]


def at(connection: Connection) -> tuple[str, ...]:
    servers = json.dumps(list(connection.bootstrap_servers))
    return (
        f"bootstrap_servers = {servers}",
        f'prefix = "{connection.prefix}"',
        "retention_hours = 24",
    )


@pytest.mark.usefixtures("_alone")
def test_everything_is_in_place(any_broker, tmp_path):
    code, findings = events_of(tmp_path, *at(any_broker.with_topics()), 'outbox = "o.db"')
    assert code == 0
    assert [found["status"] for found in findings] == ["ok", "ok", "ok"]
    outbox, reached, topics = (found["detail"] for found in findings)
    assert outbox.startswith(str(tmp_path / "o.db"))
    assert reached.startswith(f"1 brokers at {any_broker.bootstrap}")
    assert topics == f"topics {any_broker.prefix}.*: 4 partitions, 1 replicas"


@pytest.mark.usefixtures("_alone")
def test_missing_topics_are_named_once_and_mended_by_events_init(any_broker, tmp_path):
    connection = any_broker.connection()
    code, findings = events_of(tmp_path, *at(connection))
    assert code == 1
    (failed,) = (found for found in findings if found["status"] == "failed")
    assert all(connection.topic(name) in failed["detail"] for name in TOPICS)
    assert failed["mend"] == "bandit-router events init"


@pytest.mark.usefixtures("_alone")
def test_another_number_of_partitions_and_kept_snapshots_are_a_failure_each(any_broker, tmp_path):
    made = any_broker.with_topics(partitions=2)
    admin = KafkaAdminClient(**made.admin_options())
    admin.delete_topics([made.topic("snapshots")])
    sizes = {"num_partitions": 4, "replication_factor": 1, "configs": {"cleanup.policy": "delete"}}
    wait_until(lambda: made.topic("snapshots") not in admin.list_topics(), 10, "it is gone")
    admin.create_topics({made.topic("snapshots"): sizes}, wait_for_metadata=True)
    admin.close()
    code, findings = events_of(tmp_path, *at(made))
    failed = {f["detail"]: f["mend"] for f in findings if f["status"] == "failed"}
    assert code == 1
    assert len(failed) == len(TOPICS)
    assert "events.partitions = 2" in failed[f"{made.topic('decisions')} has 2 partitions, not 4"]
    kept = f"{made.topic('snapshots')} has cleanup.policy=delete, not compact"
    assert failed[kept].endswith("--add-config cleanup.policy=compact")


@pytest.mark.usefixtures("_alone")
def test_without_a_broker_it_fails_in_time_and_says_where(tmp_path):
    port = free_port()
    start = time.monotonic()
    code, findings = events_of(tmp_path, f'bootstrap_servers = ["127.0.0.1:{port}"]')
    assert time.monotonic() - start < 2
    (failed,) = (found for found in findings if found["status"] == "failed")
    assert code == 1
    assert f"Kafka at 127.0.0.1:{port}: connection refused" in failed["detail"]
    assert "start the broker, or check events.bootstrap_servers" in failed["detail"]


@pytest.mark.usefixtures("_alone")
def test_a_broker_that_accepts_and_never_answers_is_told_in_time(proxied_broker, tmp_path):
    broker, proxy = proxied_broker
    proxy.mode = "black_hole"
    start = time.monotonic()
    code, findings = events_of(tmp_path, *at(broker.connection()))
    assert time.monotonic() - start < 8
    (failed,) = (found for found in findings if found["status"] == "failed")
    assert code == 1
    assert "accepts a connection and is silent" in failed["detail"]


def test_with_sqlite_the_network_is_left_alone(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    code, findings = events_of(tmp_path, transport="sqlite")
    assert (code, findings) == (0, [])


@pytest.mark.kafka
@pytest.mark.usefixtures("_alone")
def test_a_refused_password_is_told_without_it(kafka, tmp_path, monkeypatch):
    monkeypatch.setenv("BANDIT_ROUTER_EVENTS__SASL_PASSWORD", "hunter2-hunter2")
    lines = (
        f'bootstrap_servers = ["127.0.0.1:{kafka.process.sasl_port}"]',
        'security_protocol = "SASL_PLAINTEXT"',
        'sasl_mechanism = "PLAIN"',
        'sasl_username = "router"',
    )
    code, findings = events_of(tmp_path, *lines)
    (failed,) = (found for found in findings if found["status"] == "failed")
    assert code == 1
    assert "refuses user 'router' by PLAIN" in failed["detail"]
    assert "hunter2" not in json.dumps(findings)
