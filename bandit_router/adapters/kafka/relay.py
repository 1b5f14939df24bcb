"""The relay: what waits in an outbox goes to Kafka, in order, until Kafka has acknowledged it.

Laws:

* A record counts as sent only after all in-sync replicas have it, or after it stands in the
  dead-letter topic because no broker will ever take it. A crash sends some twice, never none.
* Records of one key are sent in the order in which they were put. When one fails, everything that
  is not acknowledged is sent again from there, by a new producer, with the same bytes and time.
* No request waits for any of this: the relay has a connection to the file of its own.

kafka-python has no limit on what it buffers, so the relay has: events and bytes under way.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from bandit_router.adapters.file_lock import exclusive
from bandit_router.adapters.kafka.client import DEAD_LETTERS, Connection
from bandit_router.adapters.kafka.dead_letters import encode_dead, set_aside
from bandit_router.adapters.kafka.producing import (
    abandon,
    in_sending,
    make_producer,
    never_taken,
    reason_of,
    told,
)
from bandit_router.adapters.outbox import Outbox, Outgoing, Waiting
from bandit_router.errors import BanditRouterError, StorageError, TransportError

if TYPE_CHECKING:
    from kafka import KafkaProducer
    from kafka.producer.future import FutureRecordMetadata

KEPT_OF_DEAD = (900_000, 10_000, 0)
"""Bytes kept of a record that no broker takes: each next when not even that was taken."""

_READ = 256
_STATUS_S = 0.25
_OUTBOX_RETRY_S = 0.25
_STOP_S = 3.0
_JOIN_S = 0.02

_SILENT = 1.5
"""Delivery timeouts without word of a record, after which the producer itself has failed."""

_TRIM_REST = 100.0
"""Times as long as removing some sent records takes, nothing is removed: a put meets it rarely."""
_TRIM_BEHIND = 20_000
"""Unless so many are there to be removed."""


@dataclass(frozen=True, kw_only=True)
class RelayLimits:
    """How a relay sends.

    Attributes:
        max_in_flight_events, max_in_flight_bytes: most that is sent and not acknowledged yet.
        linger_ms: how long a batch waits for more, ms.
        batch_bytes: of one partition, at most.
        request_timeout_s: after so long without an answer a request is sent again, seconds.
        delivery_timeout_s: after so long the producer is made anew, seconds.
        poll_s: how often the outbox is looked into while nothing comes, seconds.
        acknowledge_s: how often what was acknowledged is noted in the outbox, seconds.
        first_backoff_s, max_backoff_s: the wait after a failure, doubled at each in a row, seconds.
    """

    max_in_flight_events: int = 5000
    max_in_flight_bytes: int = 32_000_000
    linger_ms: int = 5
    batch_bytes: int = 262_144
    request_timeout_s: float = 10.0
    delivery_timeout_s: float = 12.0
    poll_s: float = 0.05
    acknowledge_s: float = 0.2
    first_backoff_s: float = 0.1
    max_backoff_s: float = 5.0


@dataclass(slots=True)
class _Sent:
    """A record under way; ``future`` is None when it needs no more."""

    id: int
    size: int
    future: FutureRecordMetadata | None
    since: float


class Relay:
    """Sends what is in an outbox from a thread of its own. One relay per outbox: a file lock.

    Args:
        outbox_path: the file; made when it is missing.
        connection: where to.
        limits: how.
        wait_s: how long :meth:`start` waits for another relay of the same outbox to end, seconds.
    """

    def __init__(
        self,
        outbox_path: Path | str,
        connection: Connection,
        *,
        limits: RelayLimits | None = None,
        wait_s: float = 0.0,
    ) -> None:
        self.path = Path(outbox_path)
        self._connection = connection
        self._limits = limits or RelayLimits()
        self._wait_s = wait_s
        self._resources = ExitStack()
        self._stopping = threading.Event()
        self._deadline = 0.0
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._producer: KafkaProducer | None = None
        self._in_flight: deque[_Sent] = deque()
        self._in_flight_bytes = 0
        self._confirmed = 0  # every record up to here is acknowledged
        self._noted = 0  # up to here in the outbox's cursor
        self._read_to = 0  # and up to here sent
        self._done: set[int] = set()  # acknowledged beyond the first that is not
        self._suspects: set[int] = set()  # sent alone, because a broker may refuse them
        self._dead: dict[int, tuple[str, int]] = {}  # reason, and index in KEPT_OF_DEAD
        self._failures = 0
        self._next_try = 0.0
        self._next_acknowledge = 0.0
        self._next_status = 0.0
        self._next_trim = 0.0
        self._counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._last_error = ""
        self._connected = False
        self._connecting = False
        self._backlog: dict[str, Any] = {"events": 0, "bytes": 0, "oldest_s": 0.0}
        self._partitions: dict[str, int] = {}

    def start(self) -> None:
        """Begin. Kafka need not be there yet.

        Raises:
            StorageError: another relay has the outbox, or the file cannot be opened.
            InputError: the file is no outbox.
        """
        lock = self.path.with_name(self.path.name + ".relay.lock")
        with ExitStack() as resources:
            resources.enter_context(
                exclusive(lock, str(self.path), wait_s=self._wait_s, doing="relaying")
            )
            self._outbox = resources.enter_context(Outbox.open(self.path, check=False))
            self._confirmed = self._read_to = self._outbox.acknowledged()
            self._resources = resources.pop_all()
        self._thread.start()

    def close(self, *, drain_s: float = 5.0) -> None:
        """Stop, after the backlog is sent or ``drain_s`` seconds have passed.

        Without a connection it does not wait: what is in the outbox is sent by the next relay. An
        attempt to connect that is under way ends by itself, in the background.
        """
        self._deadline = time.monotonic() + drain_s
        self._stopping.set()
        while self._thread.is_alive() and (now := time.monotonic()) < self._deadline + _STOP_S:
            if self._connecting and (self._failures > 0 or now >= self._deadline):
                return
            self._thread.join(_JOIN_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def status(self) -> dict[str, Any]:
        """What it has done and how it stands.

        ``sent``, ``acknowledged``, ``resent``, ``dead_lettered``, ``undeliverable`` (not even as a
        dead letter), ``producers`` made; ``errors`` by reason with the ``last_error``; whether it
        is ``connected``; ``in_flight``; the ``backlog``.
        """
        names = ("sent", "acknowledged", "resent", "dead_lettered", "undeliverable", "producers")
        return {
            **{name: self._counts[name] for name in names},
            "running": self._thread.is_alive(),
            "connected": self._connected,
            "in_flight": len(self._in_flight),
            "errors": dict(self._errors),
            "last_error": self._last_error,
            "backlog": dict(self._backlog),
        }

    def _run(self) -> None:
        with self._resources:
            while self._went_on():
                pass
            self._abandon()
            self._note_sent(force=True)

    def _went_on(self) -> bool:
        """One round, and a moment's rest where it had nothing to do; False when it is over."""
        try:
            if self._finished():
                return False
            if not self._turn():
                self._pause(self._limits.poll_s)
        except StorageError as error:  # the outbox: locked, disk full, damaged
            self._note(error)
            self._pause(_OUTBOX_RETRY_S)
        except Exception as error:  # noqa: BLE001 - whatever a client raises, the relay goes on
            self._begin_anew(error)
        return True

    def _finished(self) -> bool:
        if not self._stopping.is_set():
            return False
        lost = self._failures > 0 and not self._connected
        return lost or time.monotonic() >= self._deadline or self._backlog_gone()

    def _backlog_gone(self) -> bool:
        return not self._in_flight and not self._outbox.read(self._confirmed, 1)

    def _pause(self, seconds: float) -> None:
        """Wait a moment; a stop ends it."""
        if self._stopping.is_set():
            time.sleep(self._limits.poll_s)  # what is under way comes back while it drains
        else:
            self._stopping.wait(seconds)

    def _turn(self) -> bool:
        """One round; whether there was anything to do."""
        now = time.monotonic()
        self._keep_house(now)
        if self._producer is None and not self._reconnected(now):
            return False
        harvested = self._harvest()
        self._note_sent()
        if self._producer is None:
            return True  # something has failed, and everything begins anew
        return self._top_up() or harvested

    def _reconnected(self, now: float) -> bool:
        if now < self._next_try:
            return False
        limits = self._limits
        self._connecting = True
        try:
            self._producer = make_producer(
                self._connection,
                linger_ms=limits.linger_ms,
                batch_bytes=limits.batch_bytes,
                request_timeout_s=limits.request_timeout_s,
                delivery_timeout_s=limits.delivery_timeout_s,
            )
        except BanditRouterError as error:
            self._failed(error)
            return False
        finally:
            self._connecting = False
        self._counts["producers"] += 1
        return True

    def _harvest(self) -> bool:
        """Take what is acknowledged from the front; begin anew when something has failed."""
        in_flight, taken = self._in_flight, 0
        while in_flight:
            first = in_flight[0]
            if first.future is not None:
                if not first.future.is_done:
                    return self._given_up(first) or taken > 0
                if first.future.exception is not None:
                    self._begin_anew(first.future.exception)
                    return True
                self._failures = 0
                self._connected = True
            in_flight.popleft()
            taken += 1
            self._in_flight_bytes -= first.size
            self._confirmed = first.id
            self._done.discard(first.id)
            self._suspects.discard(first.id)
            if self._dead.pop(first.id, None):
                self._counts["dead_lettered"] += 1
            self._counts["acknowledged"] += 1
        return taken > 0

    def _given_up(self, first: _Sent) -> bool:
        """Begin anew when nothing at all is heard of the first record; whether that is so.

        kafka-python fails a record after the delivery timeout, but not while it has no producer id:
        then what it holds neither goes out nor fails, for as long as that lasts.
        """
        silent_s = time.monotonic() - first.since
        if silent_s < _SILENT * self._limits.delivery_timeout_s:
            return False
        where = ", ".join(self._connection.bootstrap_servers)
        self._begin_anew(
            TransportError(f"Kafka at {where}: no word of a record in {silent_s:.0f} s")
        )
        return True

    def _keep_house(self, now: float) -> None:
        """Look at the backlog, and remove some of what was sent.

        Only for a small part of the time: a put waits meanwhile.
        """
        limits = self._limits
        try:
            if now >= self._next_status:
                self._next_status = now + _STATUS_S
                self._backlog = msgspec.structs.asdict(self._outbox.backlog())
                self._outbox.tidy()
            if now >= self._next_trim:
                self._next_trim = now + _OUTBOX_RETRY_S  # unless it succeeds
                left = self._outbox.trim()
                took = time.monotonic() - now
                rest = _TRIM_REST if left < _TRIM_BEHIND else 1.0
                self._next_trim = now + max(took * rest, 0.0 if left else limits.acknowledge_s)
        except StorageError as error:
            self._note(error)  # sending goes on

    def _note_sent(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self._confirmed == self._noted or (now < self._next_acknowledge and not force):
            return
        self._next_acknowledge = now + self._limits.acknowledge_s
        try:
            self._outbox.acknowledge(self._confirmed)
            self._noted = self._confirmed
        except StorageError as error:
            self._note(error)  # they are acknowledged all the same: noted the next time

    def _top_up(self) -> bool:
        """Send more, as far as the bounds allow."""
        limits = self._limits
        if self._in_flight and self._in_flight[-1].id in self._suspects:
            return False
        room = limits.max_in_flight_events - len(self._in_flight)
        if room < min(_READ, limits.max_in_flight_events) // 2:
            return False
        if self._in_flight_bytes >= limits.max_in_flight_bytes:
            return False
        waiting = self._outbox.read(self._read_to, min(room, _READ))
        for item in waiting:
            alone = item.id in self._suspects
            full = self._in_flight_bytes + item.size > limits.max_in_flight_bytes
            if self._in_flight and (alone or full):
                break
            if not self._sent(item):
                return False
            if alone:
                break
        return bool(waiting)

    def _sent(self, item: Waiting) -> bool:
        """Hand one record to the producer; False when everything has to begin anew."""
        future = None
        if item.id not in self._done:
            try:
                future = self._send(item)
            except Exception as error:  # noqa: BLE001 - kafka-python raises builtin errors here too
                if never_taken(error) is None:
                    self._begin_anew(in_sending(error, self._connection, item.record.topic))
                    return False
                self._bury(item.id, error)
                return self._sent(item)
            self._counts["sent"] += 1
        self._in_flight.append(_Sent(item.id, item.size, future, time.monotonic()))
        self._in_flight_bytes += item.size
        self._read_to = item.id
        return True

    def _send(self, item: Waiting) -> FutureRecordMetadata:
        assert self._producer is not None  # noqa: S101 - for the type checker
        record = self._dead_letter(item) if item.id in self._dead else item.record
        partition = self._partitions.get(record.key)
        if partition is None:
            partition = self._connection.partition_of(record.key)
            self._partitions[record.key] = partition
        return self._producer.send(
            self._connection.topic(record.topic),
            value=record.value,
            key=record.key.encode(),
            headers=list(record.headers),
            partition=partition,
            timestamp_ms=int(item.ts * 1000),  # the same each time it is sent
        )

    def _dead_letter(self, item: Waiting) -> Outgoing:
        reason, level = self._dead[item.id]
        record = item.record
        value, headers = encode_dead(
            set_aside(
                reason,
                record.value,
                topic=self._connection.topic(record.topic),
                ts=item.ts,
                app=record.key,
                by="relay",
                key=record.key.encode(),
            )
        )
        return Outgoing(DEAD_LETTERS, record.key, value and value[: KEPT_OF_DEAD[level]], headers)

    def _bury(self, number: int, error: BaseException) -> None:
        """Note that no broker takes a record: it goes to the dead letters, cut as short as needed.

        One that does not even fit there empty is given up, and counted.
        """
        reason = never_taken(error) or "invalid"
        self._errors[reason_of(error)] += 1
        known = self._dead.get(number)
        level = 0 if known is None else known[1] + 1
        if level >= len(KEPT_OF_DEAD):
            self._counts["undeliverable"] += 1
            self._done.add(number)
            self._dead.pop(number)
        else:
            self._dead[number] = (reason if known is None else known[0], level)

    def _begin_anew(self, error: BaseException) -> None:
        """Give the producer up, and send everything again that it had not brought through."""
        self._abandon()
        refused = []
        for sent in self._in_flight:
            failure = None if sent.future is None else sent.future.exception
            if sent.future is None or (sent.future.is_done and failure is None):
                self._done.add(sent.id)
                continue
            self._counts["resent"] += 1
            if failure is not None and never_taken(failure) is not None:
                refused.append((sent, failure))
        self._in_flight.clear()
        self._in_flight_bytes = 0
        self._read_to = self._confirmed
        if refused:
            self._suspect(refused)
        else:
            self._failed(error)

    def _suspect(self, refused: Sequence[tuple[_Sent, BaseException]]) -> None:
        """Find out which record a broker refuses: the one that it refuses alone.

        kafka-python lets everything that it holds fail with the error of one record. So the largest
        is sent by itself next; what is refused then goes to the dead letters.
        """
        sent, failure = max(refused, key=lambda pair: pair[0].size)
        if len(refused) == 1 and sent.id in self._suspects:
            self._bury(sent.id, failure)
        else:
            self._suspects.add(sent.id)

    def _failed(self, error: BaseException) -> None:
        """Count a failure and wait before the next try."""
        self._note(error)
        limits = self._limits
        wait = min(limits.first_backoff_s * 2.0 ** min(self._failures, 16), limits.max_backoff_s)
        self._failures += 1
        self._connected = False
        self._next_try = time.monotonic() + wait

    def _note(self, error: BaseException) -> None:
        self._errors[reason_of(error)] += 1
        self._last_error = told(error)

    def _abandon(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            abandon(producer)
