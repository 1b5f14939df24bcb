"""Which partitions are this learner's: one member of a Kafka consumer group.

The group is subscribed to the decisions alone and reads nothing: owning the decisions' partition of
a number means to learn from all topics' partitions of that number. The assignment is cooperative,
so that those a learner keeps are not interrupted. It is a hint; the order journal decides.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol, Self

from bandit_router.adapters.kafka.client import DECISIONS, Connection, explained, translated
from bandit_router.adapters.kafka.opening import open_client
from bandit_router.errors import BanditRouterError

if TYPE_CHECKING:
    from kafka import KafkaConsumer, TopicPartition
    from kafka.structs import OffsetAndMetadata

MAX_SILENCE_S = 600.0
"""A learner that has not asked for its partitions for so long is taken for hung."""

_POLL_MS = 200
_PAUSE_S = 1.0
_LEAVE_S = 2.0


class Member(Protocol):
    """Says which partitions are ours; see :class:`Membership`."""

    @property
    def trouble(self) -> str:
        """Why that is not known just now."""
        ...

    def ask(self) -> Mapping[int, int]:
        """The partitions' numbers with their tokens."""
        ...

    def note(self, positions: Mapping[int, Mapping[str, int]]) -> None:
        """Tell others how far they have been learned."""
        ...

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Give the partitions up."""
        ...


class Membership:
    """A member of the learners' group, with a thread of its own that takes part in it.

    So the partitions stay ours while the learner waits for a disk. They do not when it has stopped
    altogether, as a halted process does, or when it has not asked for so long that it must hang.

    Args:
        connection: the cluster.
        group: the consumer group.
        session_timeout_s: after so many seconds of silence the partitions go to others.

    Attributes:
        owned: the numbers of the partitions, each with a token that is another one whenever the
            partition has been away in between. Replaced, never changed.
        trouble: why the group cannot be taken part in just now; "" when it can.
    """

    def __init__(self, connection: Connection, group: str, *, session_timeout_s: float) -> None:
        self._connection = connection
        self._group = group
        self._session_timeout_s = session_timeout_s
        self._tokens = itertools.count()
        self._asked_at = time.monotonic()
        self._ending = threading.Event()
        self._noted: dict[TopicPartition, OffsetAndMetadata] = {}
        self._thread = threading.Thread(target=self._run, name="membership", daemon=True)
        self.owned: Mapping[int, int] = {}
        self.trouble = ""

    def start(self) -> None:
        """Begin to take part."""
        self._thread.start()

    def ask(self) -> Mapping[int, int]:
        """The partitions that are ours, as far as is known. Asking is the sign of life."""
        self._asked_at = time.monotonic()
        return self.owned

    def note(self, positions: Mapping[int, Mapping[str, int]]) -> None:
        """Tell Kafka how far the topics have been learned, for tools that show the lag.

        Nothing depends on it, so a failure is nobody's concern.
        """
        from kafka import TopicPartition
        from kafka.structs import OffsetAndMetadata

        self._noted = {
            TopicPartition(self._connection.topic(topic), number): OffsetAndMetadata(at, "", -1)
            for number, found in positions.items()
            for topic, at in found.items()
        }

    def close(self) -> None:
        """Leave the group, so that others can take over at once."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(_LEAVE_S + self._connection.timeout_s)
        self.owned = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                with translated("take part in the group of learners", self._connection):
                    self._take_part()
            except BanditRouterError as error:
                self.trouble = str(error)
            except Exception as error:  # noqa: BLE001 - without this thread nothing is ours again
                self.trouble = f"could not take part in the group of learners: {explained(error)}"
            self.owned = {}
            self._ending.wait(_PAUSE_S)

    def _take_part(self) -> None:
        """Until the end, or until something fails."""
        consumer = self._join()
        try:
            while not self._ending.is_set():
                if time.monotonic() - self._asked_at > MAX_SILENCE_S:
                    return
                consumer.poll(_POLL_MS)
                self.trouble = ""
                noted, self._noted = self._noted, {}
                if noted:
                    consumer.commit_async(noted, callback=_ignore)
        finally:
            consumer.close(autocommit=False, timeout_ms=int(_LEAVE_S * 1000))

    def _join(self) -> KafkaConsumer:
        from kafka import ConsumerRebalanceListener, KafkaConsumer
        from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

        session_ms = int(self._session_timeout_s * 1000)
        options = self._connection.options(
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy=(CooperativeStickyAssignor,),
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=max(session_ms // 4, 250),
            max_poll_interval_ms=int(MAX_SILENCE_S * 1000),
        )
        consumer = open_client(KafkaConsumer, options)
        outer = self

        class Listener(ConsumerRebalanceListener):
            def on_partitions_assigned(self, assigned: object) -> None:
                consumer.pause(*assigned)
                new = {place.partition: next(outer._tokens) for place in assigned}
                outer.owned = {**outer.owned, **new}

            def on_partitions_revoked(self, revoked: object) -> None:
                gone = {place.partition for place in revoked}
                outer.owned = {n: t for n, t in outer.owned.items() if n not in gone}

        consumer.subscribe([self._connection.topic(DECISIONS)], listener=Listener())
        return consumer


def _ignore(*_: object) -> None:
    """The callback of what nobody waits for."""
