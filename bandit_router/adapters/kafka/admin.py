"""Make the topics, and say what is wrong with those that are there.

Nothing that exists is ever changed or removed: what differs from the settings is reported with the
command that mends it, because each mend (more copies, another policy of cleaning) moves data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from bandit_router.adapters.kafka.client import (
    CHANGES,
    DEAD_LETTERS,
    DECISIONS,
    ORDER,
    OUTCOMES,
    SNAPSHOTS,
    Connection,
    translated,
)
from bandit_router.adapters.kafka.diagnosis import Cause, why_unusable
from bandit_router.adapters.kafka.opening import open_client
from bandit_router.errors import TransportError

if TYPE_CHECKING:
    from kafka.admin import KafkaAdminClient

TOPICS = (DECISIONS, OUTCOMES, CHANGES, SNAPSHOTS, DEAD_LETTERS, ORDER)

MAX_MESSAGE_BYTES = 1_048_588
"""Largest record batch a topic takes: what Kafka's brokers and clients have by default."""

CREATED, THERE, MISSING, WRONG = "created", "there", "missing", "wrong"

_ALREADY_EXISTS = 36
_VISIBLE_S = 10.0


@dataclass(frozen=True)
class TopicState:
    """What was found or done about one topic.

    Attributes:
        topic: its full name.
        state: ``created``, ``there``, ``missing`` or ``wrong``.
        problem: what is missing or wrong, else an empty text.
        mend: how to mend it.
    """

    topic: str
    state: str
    problem: str = ""
    mend: str = ""

    @property
    def wrong(self) -> bool:
        """Whether something has to be mended."""
        return self.state in {MISSING, WRONG}


@dataclass(frozen=True)
class Description:
    """A cluster that can be reached.

    Attributes:
        brokers: how many there are.
        topics: the state of each topic that the router and the learner use.
    """

    brokers: int
    topics: tuple[TopicState, ...]


def topic_settings(name: str, *, replication: int, retention_hours: float) -> dict[str, str]:
    """The settings that topic ``name`` is made with.

    Events carry the broker's clock: a router whose clock is wrong can neither have its events
    removed early nor keep them forever, and the learner merges topics by one clock. The order
    journal lives twice as long as the events, because events without their order are of no use.
    Of the snapshots the newest per app is wanted, soon after it was written: who starts reads them
    all, so small segments are closed and compacted often.
    """
    settings = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
    if replication >= 3:  # an acknowledged event is then on two machines
        settings["min.insync.replicas"] = "2"
    if name == SNAPSHOTS:
        return settings | {
            "cleanup.policy": "compact",
            "min.cleanable.dirty.ratio": "0.1",
            "segment.bytes": str(16 * 1024 * 1024),
            "segment.ms": str(600_000),
        }
    hours = retention_hours * (2 if name == ORDER else 1)
    return settings | {
        "cleanup.policy": "delete",
        "retention.ms": str(round(hours * 3_600_000)),
        "message.timestamp.type": "LogAppendTime",
    }


def init_topics(
    connection: Connection, *, replication: int, retention_hours: float
) -> list[TopicState]:
    """Make the topics that are missing; examine those that are there. Safe to repeat.

    Args:
        connection: the cluster, the prefix and the number of partitions.
        replication: copies of each topic.
        retention_hours: how long events are kept, hours.

    Raises:
        TransportError: the cluster cannot be reached, or refuses this user.
        ConfigError: the connection's settings are wrong.
    """
    wanted = _wanted(connection, replication, retention_hours)
    with translated("make the topics", connection), _admin(connection) as admin:
        missing = sorted(set(wanted) - set(admin.list_topics()))
        made = _create(admin, {name: wanted[name] for name in missing}, connection, replication)
        others = {name: settings for name, settings in wanted.items() if name not in made}
        found = made | _examine(admin, others, connection, replication)
    return [found[name] for name in wanted]


def describe(connection: Connection, *, replication: int, retention_hours: float) -> Description:
    """What is reachable and what is wrong with the topics. Changes nothing.

    Raises:
        TransportError: the cluster cannot be reached, or refuses this user.
        ConfigError: the connection's settings are wrong.
    """
    wanted = _wanted(connection, replication, retention_hours)
    with translated("describe the topics", connection), _admin(connection) as admin:
        brokers = len(admin.describe_cluster()["brokers"])
        found = _examine(admin, wanted, connection, replication)
    return Description(brokers, tuple(found[name] for name in wanted))


def _wanted(
    connection: Connection, replication: int, retention_hours: float
) -> dict[str, dict[str, str]]:
    return {
        connection.topic(name): topic_settings(
            name, replication=replication, retention_hours=retention_hours
        )
        for name in TOPICS
    }


@contextmanager
def _admin(connection: Connection) -> Iterator[KafkaAdminClient]:
    from kafka.admin import KafkaAdminClient
    from kafka.errors import KafkaConfigurationError, KafkaError

    cause = why_unusable(connection)
    if cause is not None and cause.certain:
        raise _unusable(cause)
    try:
        admin = open_client(KafkaAdminClient, connection.admin_options())
    except KafkaConfigurationError:
        raise
    except KafkaError as error:
        if cause is None:
            raise
        raise _unusable(cause) from error
    try:
        yield admin
    finally:
        admin.close()


def _unusable(cause: Cause) -> TransportError:
    failure = TransportError(f"Kafka at {cause.problem}; {cause.mend}")
    failure.retriable = cause.retriable
    return failure


def _create(
    admin: KafkaAdminClient,
    topics: Mapping[str, dict[str, str]],
    connection: Connection,
    replication: int,
) -> dict[str, TopicState]:
    """Make topics; without those that somebody else made meanwhile."""
    if not topics:
        return {}
    sizes = {"num_partitions": connection.partitions, "replication_factor": replication}
    request = {name: {**sizes, "configs": settings} for name, settings in topics.items()}
    made = {}
    for answer in admin.create_topics(request, raise_errors=False)["topics"]:
        name, code = answer["name"], answer["error_code"]
        if code == 0:
            made[name] = TopicState(name, CREATED)
        elif code != _ALREADY_EXISTS:
            problem = f"cannot be made: {_reason(code, answer['error_message'])}"
            made[name] = TopicState(name, WRONG, problem, _mend_of_refusal(code))
    created = [name for name, state in made.items() if state.state == CREATED]
    if created:
        admin.wait_for_topics(created, timeout_ms=int(_VISIBLE_S * 1000))
    return made


def _reason(code: int, message: str | None) -> str:
    from kafka.errors import for_code

    return message or for_code(code).__name__


def _mend_of_refusal(code: int) -> str:
    from kafka import errors

    if code == errors.InvalidReplicationFactorError.errno:
        return "set events.replication to at most the number of brokers"
    if code in {
        errors.TopicAuthorizationFailedError.errno,
        errors.ClusterAuthorizationFailedError.errno,
    }:
        return "allow this user to create topics, or have an administrator make them"
    return ""


def _examine(
    admin: KafkaAdminClient,
    wanted: Mapping[str, dict[str, str]],
    connection: Connection,
    replication: int,
) -> dict[str, TopicState]:
    """The state of each topic, with the first thing that is wrong with it."""
    from kafka.admin import ConfigResource, ConfigResourceType

    if not wanted:
        return {}
    listed = set(admin.list_topics())  # asking for one that is missing could make it
    there = sorted(listed & set(wanted))
    states = {
        name: TopicState(name, MISSING, "is missing", "bandit-router events init")
        for name in wanted
        if name not in listed
    }
    if not there:
        return states
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in there]
    configs = admin.describe_configs(resources, config_filter="all").get("topic", {})
    for topic in admin.describe_topics(there):
        name = topic["name"]
        actual = {key: entry["value"] for key, entry in configs.get(name, {}).items()}
        problems = chain(
            _wrong_shape(topic, connection, replication),
            _wrong_settings(name, wanted[name], actual, connection),
        )
        problem, mend = next(problems, ("", ""))
        states[name] = TopicState(name, WRONG if problem else THERE, problem, mend)
    return states


def _wrong_shape(
    topic: Mapping[str, Any], connection: Connection, replication: int
) -> Iterator[tuple[str, str]]:
    """What is wrong with a topic's partitions, as problem and mend."""
    partitions = topic["partitions"]
    if topic["error_code"]:
        code = topic["error_code"]
        yield f"cannot be read: {_reason(code, None)}", _mend_of_refusal(code)
        return
    count = len(partitions)
    if count != connection.partitions:
        mend = (
            f"set events.partitions = {count} on every router and learner when all topics have so "
            "many; else set another events.prefix and run bandit-router events init"
        )
        yield f"has {count} partitions, not {connection.partitions}", mend
    copies = min(len(partition["replica_nodes"]) for partition in partitions)
    if copies < replication:
        yield (
            f"has {copies} replicas, not {replication}",
            f"add replicas by kafka-reassign-partitions.sh, or set events.replication = {copies}",
        )
    leaderless = [p["partition_index"] for p in partitions if p["leader_id"] < 0]
    if leaderless:
        yield (
            f"has no leader for partitions {', '.join(map(str, sorted(leaderless)))}",
            "start the brokers that have their replicas",
        )


def _wrong_settings(
    name: str, wanted: Mapping[str, str], actual: Mapping[str, str | None], connection: Connection
) -> Iterator[tuple[str, str]]:
    """Settings of a topic that would lose or refuse what is sent, as problem and mend.

    A broker that does not tell a setting (Tansu tells those it was given) is not doubted.
    """
    for key, value in wanted.items():
        found = actual.get(key)
        if found is None or not _worse(key, value, found):
            continue
        server = connection.bootstrap_servers[0]
        mend = (
            f"kafka-configs.sh --bootstrap-server {server} --alter --entity-type topics "
            f"--entity-name {name} --add-config {key}={value}"
        )
        yield f"has {key}={found}, not {value}", mend


_AT_LEAST = {"max.message.bytes", "retention.ms", "min.insync.replicas"}
_EXACTLY = {"cleanup.policy", "message.timestamp.type"}


def _worse(key: str, wanted: str, found: str) -> bool:
    """Whether ``found`` does not do what ``wanted`` is for."""
    if key in _EXACTLY:
        return found != wanted
    unlimited = key == "retention.ms" and int(found) == -1
    return key in _AT_LEAST and not unlimited and int(found) < int(wanted)
