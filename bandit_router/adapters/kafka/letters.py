"""The dead letters in Kafka, and the way back to their topics.

That a letter was sent again is remembered by a receipt in the topic of the dead letters itself,
behind the letter in its partition: whoever looks, from whichever machine, finds it, and it stays
at least as long as the letter. The receipt is written when the event is acknowledged. Between the
two a crash, or a second replay at the same time, can send an event twice; both have one event_id,
and the joiner takes the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

from bandit_router.adapters.kafka.client import DEAD_LETTERS, Connection
from bandit_router.adapters.kafka.dead_letters import decode_dead, receipt, receipt_of
from bandit_router.adapters.kafka.inspect import Inspector
from bandit_router.adapters.kafka.sender import Sender
from bandit_router.adapters.letters import Fresh, Letter
from bandit_router.adapters.outbox import Outgoing
from bandit_router.adapters.records import topic_of


class KafkaLetters:
    """See :class:`~bandit_router.adapters.letters.Letters`.

    Raises:
        TransportError: the cluster cannot be reached, or has no such topic.
        ConfigError: the connection's settings are wrong.
    """

    def __init__(self, connection: Connection) -> None:
        self._inspector = Inspector(connection)
        self._sender = Sender(connection)
        self._connection = connection
        try:
            self._spans = self._inspector.spans([DEAD_LETTERS])
            self._receipts = {
                token
                for record in self._inspector.read(self._spans)
                if (token := receipt_of(record.headers)) is not None
            }
        except BaseException:
            self._inspector.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._sender.close()
        self._inspector.close()

    def letters(self) -> Iterator[Letter]:
        """All that were there when this was made."""
        for found in self._inspector.read(self._spans):
            if receipt_of(found.headers) is None:
                record = decode_dead(found.value, found.headers)
                yield Letter(
                    record=record,
                    partition=found.partition,
                    offset=found.offset,
                    replayed=record.token in self._receipts,
                )

    def sent_before(self, fresh: Fresh) -> bool:
        """Whether there is a receipt."""
        return fresh.token in self._receipts

    def send(self, batch: Sequence[Fresh]) -> None:
        """Send to the topics that the events belong to; then leave receipts."""
        self._sender.send(
            [
                Outgoing(topic=topic_of(fresh.event), key=fresh.event.app, value=fresh.data)
                for fresh in batch
            ]
        )
        for partition in {self._partition(fresh) for fresh in batch}:
            mine = [fresh for fresh in batch if self._partition(fresh) == partition]
            self._sender.send([self._receipt(fresh) for fresh in mine], partition=partition)
        self._receipts.update(fresh.token for fresh in batch)

    def _partition(self, fresh: Fresh) -> int:
        if fresh.partition is not None:
            return fresh.partition
        return self._connection.partition_of(fresh.event.app)

    def _receipt(self, fresh: Fresh) -> Outgoing:
        return Outgoing(
            topic=DEAD_LETTERS, key=fresh.event.app, value=b"", headers=receipt(fresh.token)
        )
