"""Send records and wait until the brokers have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from bandit_router.adapters.kafka.client import Connection, translated
from bandit_router.adapters.kafka.producing import abandon, make_producer
from bandit_router.adapters.outbox import Outgoing

if TYPE_CHECKING:
    from kafka import KafkaProducer

_BATCH_BYTES = 64 * 1024


class Sender:
    """A producer for the few records of a learner, each of which is waited for.

    The producer is made at the first use, and made anew after any failure: it may be beyond use,
    and what it still holds must not go out behind what is sent next. What failed may have arrived
    all the same; whoever sends it again must be ready for it to be there twice.

    Args:
        connection: the cluster.
        timeout_s: how long to wait for the brokers, seconds.
    """

    def __init__(self, connection: Connection, *, timeout_s: float = 10.0) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._producer: KafkaProducer | None = None

    def send(self, records: Sequence[Outgoing], *, partition: int | None = None) -> list[int]:
        """Send records; returns their offsets once all are acknowledged by all replicas in sync.

        Args:
            records: the topic's short name, the app, the value and the headers of each.
            partition: where all of them go; None takes that of each one's app.

        Raises:
            TransportError: a record was refused or not acknowledged in time.
        """
        to = self._connection
        try:
            with translated("send", to):
                producer = self._open()
                waiting = [
                    producer.send(
                        to.topic(record.topic),
                        key=record.key.encode(),
                        value=record.value,
                        headers=list(record.headers),
                        partition=to.partition_of(record.key) if partition is None else partition,
                    )
                    for record in records
                ]
                return [future.get(self._timeout_s).offset for future in waiting]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connections back, without waiting for anything."""
        producer, self._producer = self._producer, None
        if producer is not None:
            abandon(producer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self) -> KafkaProducer:
        if self._producer is None:
            self._producer = make_producer(
                self._connection,
                linger_ms=0,
                batch_bytes=_BATCH_BYTES,
                request_timeout_s=self._timeout_s / 2,
                delivery_timeout_s=self._timeout_s,
            )
        return self._producer
