"""The same records by kafka-python alone: what the relay and the learner are measured against."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bandit_router.adapters.kafka.client import DECISIONS, OUTCOMES, Connection, translated
from bandit_router.adapters.kafka.opening import open_client
from bandit_router.adapters.kafka.producing import make_producer
from bandit_router.adapters.kafka.relay import RelayLimits
from bandit_router.adapters.outbox import Outgoing
from bandit_router.errors import TransportError

PATIENCE_S = 30.0


def produce(connection: Connection, records: Sequence[Outgoing], limits: RelayLimits) -> float:
    """Seconds from the first ``send`` to the last acknowledgement, with the relay's settings.

    Raises:
        TransportError: not everything was acknowledged.
    """
    partitions = {key: connection.partition_of(key) for key in {r.key for r in records}}
    producer = make_producer(
        connection,
        linger_ms=limits.linger_ms,
        batch_bytes=limits.batch_bytes,
        request_timeout_s=limits.request_timeout_s,
        delivery_timeout_s=limits.delivery_timeout_s,
    )
    with translated("produce", connection):
        try:
            start = time.perf_counter()
            futures = [
                producer.send(
                    connection.topic(record.topic),
                    value=record.value,
                    key=record.key.encode(),
                    partition=partitions[record.key],
                )
                for record in records
            ]
            producer.flush()
            taken_s = time.perf_counter() - start
        finally:
            producer.close()
    if not all(future.succeeded() for future in futures):
        raise TransportError("kafka-python did not deliver every record")
    return taken_s


def consume(connection: Connection, app: str, count: int) -> float:
    """Seconds to read so many records of an app, from the first that comes.

    Raises:
        TransportError: they did not come.
    """
    from kafka import KafkaConsumer, TopicPartition

    number = connection.partition_of(app)
    with translated("consume", connection):
        consumer = open_client(
            KafkaConsumer, connection.options(group_id=None, enable_auto_commit=False)
        )
        try:
            places = [TopicPartition(connection.topic(t), number) for t in (DECISIONS, OUTCOMES)]
            consumer.assign(places)
            for place in places:
                consumer.seek(place, 0)
            begun, start, first, found = time.perf_counter(), 0.0, 0, 0
            while found < count:
                found += sum(map(len, consumer.poll(200, max_records=2000).values()))
                if found and not first:  # as the learner's: once the connection stands
                    start, first = time.perf_counter(), found
                if time.perf_counter() - begun > PATIENCE_S:
                    raise TransportError(f"{found} of {count} records came in {PATIENCE_S:g} s")
            if first == found:
                return time.perf_counter() - begun
            return (time.perf_counter() - start) * count / (found - first)
        finally:
            consumer.close()
