"""Numbered records through an outbox, and what of them has come to a topic."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.opening import open_client
from bandit_router.adapters.kafka.relay import RelayLimits
from bandit_router.adapters.outbox import Outgoing

APPS = ("shop", "chat", "mail/0", "mail/1")

HASTY = RelayLimits(
    request_timeout_s=0.7,
    delivery_timeout_s=2.0,
    first_backoff_s=0.05,
    max_backoff_s=0.3,
    acknowledge_s=0.02,
)
"""A relay that gives up early, so that tests need not wait long."""


def numbered(number: int, size: int = 200, topic: str = "decisions") -> Outgoing:
    """A record that knows its number."""
    value = b"%d:" % number + b"v" * size
    return Outgoing(topic, APPS[number % len(APPS)], value, (("n", b"%d" % number),))


def number_of(record: Any) -> int:
    return int(record.value.split(b":", 1)[0])


def received(
    connection: Connection,
    enough: Callable[[Sequence[Any]], bool],
    *,
    topic: str = "decisions",
    timeout_s: float = 20.0,
) -> list[Any]:
    """Records of a topic from its beginning, by partition and offset, once they are enough.

    Raises:
        TimeoutError: they never were.
    """
    from kafka import KafkaConsumer, TopicPartition

    name = connection.topic(topic)
    partitions = [TopicPartition(name, number) for number in range(connection.partitions)]
    options = connection.options(
        group_id=None, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=50
    )
    deadline = time.monotonic() + timeout_s
    found: list[Any] = []
    with contextlib.closing(open_client(KafkaConsumer, options)) as consumer:
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, 0)
        while not enough(found):
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {len(found)} records have come to {name}")
            for records in consumer.poll(100, max_records=5000).values():
                found += records
    return sorted(found, key=lambda record: (record.partition, record.offset))


def all_of(numbers: Iterable[int]) -> Callable[[Sequence[Any]], bool]:
    """Whether each of these numbers is among the records."""
    wanted = set(numbers)
    return lambda records: wanted <= {number_of(record) for record in records}


def check(records: Sequence[Any], numbers: Iterable[int], connection: Connection) -> None:
    """Each came with its very bytes, in its app's partition, in the order of the numbers.

    A record may have come more than once; its first time counts.
    """
    order: dict[str, list[int]] = {app: [] for app in APPS}
    for record in records:
        sent = numbered(number_of(record), size=len(record.value.split(b":", 1)[1]))
        assert (record.value, record.key) == (sent.value, sent.key.encode())
        assert tuple(record.headers) == sent.headers
        assert record.partition == connection.partition_of(sent.key)
        if number_of(record) not in order[sent.key]:
            order[sent.key].append(number_of(record))
    for app, found in order.items():
        assert found == sorted(n for n in numbers if numbered(n).key == app)
