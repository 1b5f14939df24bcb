"""`bandit-router events ...` as a person runs it, on a store and on a broker."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from support.streams import completion, decision, feedback

from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.dead_letters import encode_dead, set_aside
from bandit_router.adapters.kafka.sender import Sender
from bandit_router.adapters.outbox import Outgoing
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.bootstrap import make_connection
from bandit_router.cli.app import app, run
from bandit_router.config import EventsSection
from bandit_router.events import Change, decode, encode
from bandit_router.loop import DeadLetter
from bandit_router.store_ops import resume

HOSTILE = b'\x1b[31m\x00\xff \xe2\x80\xae "\n\r\x9b2J \xc2\x9b'
GOOD = encode(feedback("d1", 3.0))


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Runs a command line in a folder of its own; gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments, lambda given: app(given, prog_name="bandit-router"))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def as_json(cli, *arguments: str) -> dict:
    code, out, err = cli("events", *arguments, "--json")
    assert code == 0, out + err
    return json.loads(out)


def no_controls(text: str) -> bool:
    return all(character.isprintable() for line in text.split("\n") for character in line)


@pytest.fixture
def store(tmp_path) -> Path:
    """A log of three events, a change and two records that are none; looped over."""
    from support.session import recipe

    path = tmp_path / "bandit-router.db"
    with SqliteStore.open(path) as opened:
        opened.append([decision("d1", 1.0), completion("d1", 2.0), feedback("d1", 3.0)])
        opened.append([feedback("d1", 3.0), HOSTILE, b'{"schema":9}'])
        opened.append([Change(ts=5.0, app="other", kind="flag_changed", data={"a\x1b": "b"})])
        resume(opened, recipe())
    return path


def kafka_config(connection: Connection, folder: Path) -> Path:
    """A configuration of the connection's topics."""
    path = folder / "kafka.toml"
    path.write_text(
        f"""
        [events]
        transport = "kafka"
        bootstrap_servers = {json.dumps(list(connection.bootstrap_servers))}
        prefix = "{connection.prefix}"
        partitions = {connection.partitions}
        [[models]]
        model = "a"
        expected_cost_usd = 0.001
        """
    )
    return path


def test_tail_shows_what_a_store_has_in_order(cli, store):
    code, out, _ = cli("events", "tail", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [record["offset"] for record in found] == [1, 2, 3, 4, 5, 6, 7]
    assert [record["topic"] for record in found] == [
        "decisions", "outcomes", "outcomes", "outcomes", "dead_letters", "dead_letters", "changes",
    ]  # fmt: skip
    assert found[2]["event"] == json.loads(encode(feedback("d1", 3.0)))
    assert found[4]["data"].startswith("\\x1b[31m\\x00\\xff")


def test_tail_takes_a_topic_an_app_and_a_number(cli, store):
    def offsets(*arguments: str) -> list[int]:
        code, out, err = cli("events", "tail", "--json", *arguments)
        assert code == 0, err
        return [json.loads(line)["offset"] for line in out.splitlines()]

    assert offsets("--last", "2") == [6, 7]
    assert offsets("--last", "0") == []
    assert offsets("--topic", "outcomes", "--last", "2") == [3, 4]
    assert offsets("--app", "other") == [7]
    assert offsets("--topic", "dead_letters") == [5, 6]


@pytest.mark.parametrize("command", ["tail", "dlq"])
def test_nothing_that_a_terminal_obeys_reaches_the_screen(cli, store, command):
    code, out, _ = cli("events", command)
    assert code == 0
    assert "[31m" in out
    assert no_controls(out), out
    code, out, _ = cli("events", command, "--json")
    assert (code, out.isascii(), no_controls(out)) == (0, True, True)


def test_dlq_counts_what_a_store_set_aside(cli, store):
    found = as_json(cli, "dlq")
    assert found["counts"] == {"duplicate": 1, "undecodable": 1, "unknown_version": 1}
    assert [letter["offset"] for letter in found["letters"]] == [4, 5, 6]
    only = as_json(cli, "dlq", "--reason", "unknown_version")
    assert (only["total"], only["letters"][0]["data"]) == (1, '{"schema":9}')
    assert as_json(cli, "dlq", "--last", "0")["letters"] == []


def test_a_store_is_not_changed_by_looking_at_it(cli, store):
    before = store.read_bytes()
    for command in ("tail", "dlq"):
        assert cli("events", command)[0] == 0
    assert cli("events", "replay", "--dry-run")[0] == 0
    assert store.read_bytes() == before


def reject(store: Path, reason: str, payload: bytes) -> None:
    """What an older build, which could not read it, would have left."""
    with SqliteStore.open(store) as opened, opened.transaction("reject") as connection:
        offset = opened.last_offset() + 1
        connection.execute(
            "INSERT INTO events VALUES (?, NULL, 'dead_letter', NULL, ?)", (offset, payload)
        )
        connection.execute("INSERT INTO rejected VALUES (?, 0, ?, ?)", (offset, reason, payload))


def test_replay_appends_what_is_valid_now_once(cli, store):
    late = encode(feedback("d1", 4.0, feedback_id="late"))
    reject(store, "unknown_version", late)
    reject(store, "unknown_version", encode(Change(ts=9.0, kind="rollback")))

    planned = as_json(cli, "replay", "--dry-run")
    assert (planned["ready"], planned["sent"], planned["invalid"]) == (2, 0, 2)
    sent = as_json(cli, "replay")
    assert (sent["sent"], sent["invalid"], sent["sent_before"]) == (2, 2, 0)
    assert sent["items"][0]["detail"].startswith("undecodable: ")
    again = as_json(cli, "replay")
    assert (again["sent"], again["invalid"], again["sent_before"]) == (0, 2, 2)
    with SqliteStore.open(store, create=False) as opened:
        last = [event for _, event in opened.read(9, 10)]
    assert [encode(event) for event in last] == [late, encode(Change(ts=9.0, kind="rollback"))]
    assert as_json(cli, "dlq")["replayed"] == 2


def test_what_was_no_event_when_it_came_stays_none_where_it_stands(cli, store):
    """Else an upgrade would change the past, and a replayed event would be there twice."""
    late = feedback("d1", 4.0, feedback_id="late")
    reject(store, "unknown_version", encode(late))
    with SqliteStore.open(store) as opened:
        ((offset, found),) = opened.read(7, 10)
        assert (offset, type(found)) == (8, DeadLetter)
    assert as_json(cli, "replay")["sent"] == 1
    with SqliteStore.open(store) as opened:
        (_, (offset, found)) = opened.read(7, 10)
    assert (offset, encode(found)) == (9, encode(late))


def test_a_file_is_sent_once_and_whole_or_not_at_all(cli, store, tmp_path):
    mended = tmp_path / "mended.jsonl"
    lines = [encode(feedback("d1", 4.0, feedback_id=name)) for name in ("x", "y")]
    mended.write_bytes(lines[0] + b"\n\n{}\n")
    code, out, err = cli("events", "replay", "--file", "mended.jsonl")
    assert (code, out) == (2, "")
    assert "mended.jsonl, line 3: " in err
    assert "nothing was sent" in err

    mended.write_bytes(b"\n".join([*lines, lines[0]]))
    found = as_json(cli, "replay", "--file", "mended.jsonl")
    assert (found["sent"], found["sent_before"]) == (2, 1)
    assert as_json(cli, "replay", "--file", "mended.jsonl")["sent_before"] == 3
    with SqliteStore.open(store, create=False) as opened:
        assert opened.last_offset() == 9


def test_replay_leaves_a_store_alone_that_is_filled_from_kafka(cli, store):
    with SqliteStore.open(store) as opened:
        opened.append([], positions={"decisions": 3})
    code, _, err = cli("events", "replay")
    assert code == 2
    assert "filled from Kafka" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("init",), "needs no topics"),
        (("tail", "--topic", "order"), "an event log has none"),
        (("tail", "--db", "none.db"), "no such database"),
        (("tail", "--db", "README"), "is no SQLite database"),
        (("dlq", "--db", "empty.db"), "is no event log"),
        (("replay", "--file", "none.jsonl"), "cannot be read"),
        (("replay", "--file", "README", "--reason", "null"), "--reason chooses"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(cli, store, arguments, words):
    Path("README").write_text("no database " * 100)
    Path("empty.db").touch()
    code, out, err = cli("events", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1


def test_follow_goes_on_until_it_is_interrupted(store):
    command = [sys.executable, "-m", "bandit_router.cli.app", "events", "tail", "--json"]
    repo = str(Path(__file__).resolve().parents[2])
    process = subprocess.Popen(
        [*command, "--follow", "--last", "1"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=store.parent,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": repo},
    )
    with process:
        assert json.loads(process.stdout.readline())["offset"] == 7
        with SqliteStore.open(store) as opened:
            opened.append([feedback("later", 8.0)])
        assert json.loads(process.stdout.readline())["event"]["event_id"] == "later"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_the_schema_is_printed_as_json_schema(cli):
    found = as_json(cli, "schema")
    Draft202012Validator(found).validate(json.loads(encode(decision())))
    code, out, _ = cli("events", "schema")
    assert code == 0
    assert all(name in out for name in ("Decision", "Escalation", "propensity", "user_handoff"))


@pytest.fixture
def topics(any_broker, tmp_path):
    """Topics with events of two apps, records that are none, and dead letters; (config, ...)."""
    from kafka import KafkaProducer

    connection = any_broker.with_topics(partitions=2)
    producer = KafkaProducer(**connection.options(acks="all"))

    def put(topic: str, application: str, value: bytes | None, headers=()) -> None:
        producer.send(
            connection.topic(topic),
            key=application.encode(),
            value=value,
            partition=connection.partition_of(application),
            headers=list(headers),
        )

    put("decisions", "default", encode(decision("d1", 1.0)))
    put("outcomes", "default", encode(completion("d1", 2.0)))
    put("outcomes", "other", HOSTILE)
    put("outcomes", "other", None)
    source = connection.topic("outcomes")
    for offset, (reason, value) in enumerate(
        [
            ("unknown_version", GOOD),
            ("unknown_version", GOOD),
            ("undecodable", HOSTILE),
            ("null", None),
            ("oversize", b"x" * 950_000),
        ]
    ):
        at = offset - (offset > 0)  # the first two are one record, set aside twice
        letter = set_aside(
            reason, value, topic=source, partition=0, offset=at, app="default", by="l", ts=9.0
        )
        put("dead_letters", "default", *encode_dead(letter))
    producer.flush()
    producer.close()
    return connection, str(kafka_config(connection, tmp_path))


def test_tail_shows_topics_as_they_are(cli, topics):
    _, config = topics
    code, out, err = cli("events", "tail", "--json", "--config", config)
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert [record["topic"] for record in found].count("decisions") == 1
    assert len(found) == 4
    by_reason = {record.get("reason"): record for record in found}
    assert by_reason["undecodable"]["data"].startswith("\\x1b[31m")
    assert by_reason["null"]["data"] == "(null)"
    code, out, _ = cli("events", "tail", "--config", config, "--app", "other")
    assert (code, len(out.splitlines()), no_controls(out)) == (0, 2, True)
    for topic in ("dead_letters", "order", "snapshots"):
        code, out, err = cli("events", "tail", "--config", config, "--topic", topic)
        assert (code, no_controls(out)) == (0, True), err


def test_dlq_tells_reason_and_source_of_each(cli, topics):
    connection, config = topics
    found = as_json(cli, "dlq", "--config", config)
    assert found["counts"] == {"null": 1, "oversize": 1, "undecodable": 1, "unknown_version": 2}
    huge = found["letters"][-1]
    assert (huge["reason"], huge["size"], huge["app"]) == ("oversize", 950_000, "default")
    assert (huge["topic"], huge["partition"], huge["offset"]) == (
        connection.topic("outcomes"),
        0,
        3,
    )
    code, out, _ = cli("events", "dlq", "--config", config)
    assert (code, no_controls(out)) == (0, True)


def test_replay_sends_what_is_valid_now_back_once(cli, topics):
    connection, config = topics
    planned = as_json(cli, "replay", "--dry-run", "--config", config)
    assert (planned["ready"], planned["sent_before"], planned["invalid"]) == (1, 1, 3)
    sent = as_json(cli, "replay", "--config", config)
    assert (sent["sent"], sent["sent_before"], sent["invalid"]) == (1, 1, 3)
    assert any("950000 bytes were kept" in item["detail"] for item in sent["items"])
    again = as_json(cli, "replay", "--config", config)
    assert (again["sent"], again["sent_before"], again["invalid"]) == (0, 2, 3)

    code, out, _ = cli("events", "tail", "--json", "--topic", "outcomes", "--config", config)
    found = [json.loads(line) for line in out.splitlines()]
    arrived = [record for record in found if record.get("event") == json.loads(GOOD)]
    assert (code, len(arrived)) == (0, 1)
    assert arrived[0]["partition"] == connection.partition_of(decode(GOOD).app)
    assert arrived[0]["key"] == "default"
    listed = as_json(cli, "dlq", "--config", config)
    assert (listed["total"], listed["replayed"]) == (5, 2)


def test_a_forged_event_is_sent_only_when_it_is_asked_for(cli, topics):
    connection, config = topics
    forged = encode(feedback("d1", 3.5, app="other", feedback_id="forged"))
    letter = set_aside(
        "forged_app", forged, topic=connection.topic("outcomes"), partition=0, offset=77, ts=9.0
    )
    with Sender(connection) as sender:
        sender.send([Outgoing("dead_letters", "default", *encode_dead(letter))])
    assert as_json(cli, "replay", "--config", config)["sent"] == 1
    assert as_json(cli, "replay", "--config", config, "--reason", "forged_app")["sent"] == 1
    code, out, _ = cli("events", "tail", "--json", "--app", "other", "--config", config)
    arrived = [json.loads(line).get("event") for line in out.splitlines()]
    assert (code, json.loads(forged) in arrived) == (0, True)


def test_replay_of_a_file_reaches_the_topics_once(cli, topics, tmp_path):
    _, config = topics
    (tmp_path / "mended.jsonl").write_bytes(GOOD + b"\n" + encode(decision("d9", 1.0)))
    arguments = ("replay", "--file", "mended.jsonl", "--config", config)
    assert as_json(cli, *arguments)["sent"] == 2
    assert as_json(cli, *arguments)["sent_before"] == 2


def test_init_makes_the_topics_and_may_be_repeated(cli, broker, tmp_path):
    connection = broker.connection(partitions=2)
    config = str(kafka_config(connection, tmp_path))
    found = as_json(cli, "init", "--config", config)
    assert {topic["state"] for topic in found["topics"]} == {"created"}
    assert {topic["topic"].rpartition(".")[2] for topic in found["topics"]} == {
        "decisions", "outcomes", "changes", "snapshots", "dead_letters", "order",
    }  # fmt: skip
    assert {t["state"] for t in as_json(cli, "init", "--config", config)["topics"]} == {"there"}

    other = str(kafka_config(dataclasses.replace(connection, partitions=3), tmp_path))
    code, out, _ = cli("events", "init", "--config", other)
    assert code == 1
    assert "has 2 partitions, not 3" in out
    assert "mend: " in out


@pytest.mark.parametrize("command", ["init", "tail", "dlq", "replay"])
def test_a_cluster_that_is_not_there_is_one_line_and_exit_code_1(
    cli, tmp_path, command, monkeypatch
):
    def impatient(settings: EventsSection) -> Connection:
        return dataclasses.replace(make_connection(settings), timeout_s=0.3)

    monkeypatch.setattr("bandit_router.bootstrap.make_connection", impatient)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = kafka_config(Connection(bootstrap_servers=(f"127.0.0.1:{port}",)), tmp_path)
    code, out, err = cli("events", command, "--config", str(config))
    assert (code, out) == (1, "")
    assert f"127.0.0.1:{port}" in err
    assert len(err.splitlines()) == 1


def test_topics_that_are_missing_are_said_with_the_mend(cli, broker, tmp_path):
    config = kafka_config(broker.connection(), tmp_path)
    code, _, err = cli("events", "tail", "--config", str(config))
    assert code == 1
    assert "bandit-router events init" in err
