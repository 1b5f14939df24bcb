"""One partition's learner: claims it, does again what is in the order journal, then goes on.

The law: what an app learns is a function of the journal and of what it names. A batch is written to
the journal before a record of it is learned; whoever comes later takes the same batches.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence

import msgspec

from bandit_router.adapters.kafka.client import DEAD_LETTERS, ORDER, SOURCES, Connection
from bandit_router.adapters.kafka.dead_letters import encode_dead, set_aside
from bandit_router.adapters.kafka.fetcher import Fetcher, Record
from bandit_router.adapters.kafka.journal import Chain, Entry, Journal
from bandit_router.adapters.outbox import Outgoing
from bandit_router.adapters.sqlite_stream import Arrival
from bandit_router.errors import BanditRouterError, EventError, FencedError, TransportError
from bandit_router.events import Event, decode
from bandit_router.loop import DeadLetter
from bandit_router.streaming.applearner import AppLearner, Step, nothing
from bandit_router.streaming.merging import cut, merge

PATIENCE_S = 5.0
"""After so long without a batch a topic that should have more, but gives nothing, is not waited
for."""

_CLAIMS = 5


class Item(msgspec.Struct, frozen=True, eq=False):
    """One record of a batch, for one app.

    Attributes:
        topic: short name.
        offset: in it.
        arrival: what goes into the app's log; None for what has no place there.
        letter: the dead letter that it causes, or None.
    """

    topic: str
    offset: int
    arrival: Arrival | None
    letter: Outgoing | None


class PartitionLearner:
    """Learns the apps of one partition. It belongs to one thread.

    Args:
        number: of the partition, the same in all topics.
        apps: the learners of the apps in it that are configured here.
        connection: the cluster.
        journal: of all partitions.
        fetcher: of all partitions.
        learner: who this is, for people.
        batch: most records in a batch.
        step: called with the name of each step before it is taken.

    Attributes:
        epoch: of the claim; 0 before :meth:`claim`.
        apps: those that are learned, by name.
        failed: apps that had to be given up, and why.
        counts: what was met, by kind: ``foreign`` records of apps that are not configured here,
            dead letters by reason, ``void`` records of the journal, ``journal_lost`` and
            ``topic_lost`` for what the brokers have lost.
    """

    def __init__(
        self,
        number: int,
        apps: Sequence[AppLearner],
        connection: Connection,
        journal: Journal,
        fetcher: Fetcher,
        *,
        learner: str,
        batch: int = 1000,
        step: Step = nothing,
    ) -> None:
        self.number = number
        self.apps = {app.app: app for app in apps}
        self.epoch = 0
        self.failed: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self._connection = connection
        self._journal = journal
        self._fetcher = fetcher
        self._learner = learner
        self._batch = batch
        self._step = step
        self._chain = Chain()
        self._next = 0
        self._todo: deque[tuple[int, Entry]] = deque()
        self._front: dict[str, int] = {}
        self._topics: dict[str, str] = {}
        self._lost: list[str] = []
        self._taken: tuple[int, dict[str, list[Item]]] | None = None
        self._moved_at = time.monotonic()

    @property
    def caught_up(self) -> bool:
        """Whether every batch of the journal that was found has been learned."""
        return not self._todo

    @property
    def seen(self) -> int:
        """Up to which offset the journal has been read."""
        return self._next

    @property
    def waiting(self) -> int:
        """Records that have been read and not learned, or are known to be there to be read."""
        stretches = self._stretches.values()
        return sum(len(s.buffer) + max((s.end or 0) - s.position, 0) for s in stretches)

    @property
    def missed(self) -> int:
        """Records that Kafka had removed before this learner could read them."""
        return sum(stretch.missed for stretch in self._stretches.values())

    def claim(self) -> None:
        """Take the partition over: write a claim, and find out what is to be done again.

        Raises:
            TransportError: the journal cannot be read or written, or others claim all the time.
            StorageError: a store cannot be written to.
        """
        topics = {**self._fetcher.identities(), ORDER: self._journal.identity()}
        before = next((app.topics for app in self.apps.values() if app.topics), {})
        for app in self.apps.values():
            if _changed(app.topics, topics, [ORDER]):
                self.counts["journal_lost"] += 1
                app.forget_order()
        self._chain, self._todo, self._taken = Chain(), deque(), None
        at = max(min(app.positions["order"] for app in self.apps.values()), 0)
        for offset, entry in self._journal.read(self.number, at):
            self._fold(offset, entry)
            at = offset + 1
        before = self._chain.topics or before
        self._next = self._write_claim(at, topics)
        for app in self.apps.values():
            app.claimed(self.epoch, topics)
        self._topics, self._lost = topics, _changed(before, topics, SOURCES)
        self._read_from_here()

    def _write_claim(self, at: int, topics: Mapping[str, str]) -> int:
        """Claim until a claim counts; returns the offset after it."""
        lowest = max(app.epoch for app in self.apps.values())
        for _ in range(_CLAIMS):
            epoch = max(self._chain.epoch, lowest) + 1
            self._step("claim")
            claim = Entry(epoch=epoch, claim=self._learner, topics=dict(topics))
            mine = self._journal.append(self.number, claim)
            if mine < at:
                at = self._begin_again()
            counts = False
            for offset, entry in self._journal.read(self.number, at, mine + 1):
                counts = self._fold(offset, entry)
            at = mine + 1
            if counts:
                self.epoch = epoch
                return at
        raise TransportError(f"partition {self.number}: others claim it again and again")

    def follow(self) -> None:
        """Read the journal as it is now, to learn what it says without taking the partition over.

        Raises:
            TransportError: the journal cannot be read.
        """
        low = min(app.positions["order"] for app in self.apps.values())
        for offset, entry in self._journal.read(self.number, max(low, 0)):
            self._fold(offset, entry)
        self._read_from_here()

    def step(self) -> bool:
        """Learn one batch; returns whether there was one. New ones are made after a claim only.

        After a retriable failure call it again.

        Raises:
            FencedError: another learner has taken the partition over.
            TransportError: the brokers cannot be reached.
            StorageError: a store cannot be written to.
        """
        if self.epoch and _changed(self._topics, self._fetcher.identities(), SOURCES):
            self.claim()  # topics were made anew
        if not self._todo and self.epoch:
            self._order()
        if not self._todo:
            return False
        return self._learn(*self._todo[0])

    def _fold(self, offset: int, entry: Entry | None) -> bool:
        """Take a record of the journal; returns whether it counts."""
        counts = self._chain.take(entry)
        if counts and not entry.claim:
            self._todo.append((offset, entry))
        if not counts:
            self.counts["void"] += 1
        return counts

    def _begin_again(self) -> int:
        """The journal is shorter than what was read of it: the brokers have lost it."""
        self.counts["journal_lost"] += 1
        for app in self.apps.values():
            app.forget_order()
        self._chain = Chain()
        self._todo.clear()
        return 0

    def _read_from_here(self) -> None:
        """Read the topics from where the first app stands; whole batches from their start."""
        ahead = max(self.apps.values(), key=lambda app: app.positions["order"])
        self._front = {t: self._chain.upto.get(t, ahead.positions[t]) for t in SOURCES}
        begin = self._front
        if self._todo:
            begin = {
                topic: min(
                    self._todo[0][1].start.get(topic, 0),
                    *(app.positions[topic] for app in self.apps.values()),
                )
                for topic in SOURCES
            }
        self._stretches = self._fetcher.add(self.number, begin)
        self._moved_at = time.monotonic()

    def _order(self) -> None:
        """Put what has been read into an order, and write that down."""
        shrunk = [topic for topic, s in self._stretches.items() if s.shrunk is not None]
        shrunk += [topic for topic in self._lost if topic not in shrunk]
        if shrunk:
            self._restart(shrunk)
            return
        buffers = {topic: stretch.buffer for topic, stretch in self._stretches.items()}
        if not any(buffers.values()):
            return
        unfinished = [topic for topic, stretch in self._stretches.items() if stretch.more]
        if time.monotonic() - self._moved_at > PATIENCE_S:
            unfinished = [topic for topic in unfinished if buffers[topic]]
        counts = cut(buffers, unfinished, self._batch)
        if not any(counts.values()):
            return
        upto = {
            topic: buffers[topic][count - 1].offset + 1 if count else self._front[topic]
            for topic, count in counts.items()
        }
        self._write(Entry(epoch=self.epoch, start=self._front, upto=upto))

    def _restart(self, topics: Sequence[str]) -> None:
        """Write down that topics begin again, because the brokers have lost what was in them."""
        start = self._front | dict.fromkeys(topics, 0)
        self.counts["topic_lost"] += len(topics)
        self._write(Entry(epoch=self.epoch, start=start, upto=start, restart=True))
        self._lost = []
        for topic in topics:
            self._fetcher.restart(self.number, topic)

    def _write(self, entry: Entry) -> None:
        self._step("order")
        mine = self._journal.append(self.number, entry)
        if mine == self._next:
            self._fold(mine, entry)
        elif mine < self._next:
            self.claim()  # the brokers have lost the journal
            return
        else:
            self._look(mine)
        self._next = mine + 1
        self._front = {**self._chain.upto}

    def _look(self, mine: int) -> None:
        """Somebody has written between our last record and this one: see who."""
        for offset, entry in self._journal.read(self.number, self._next, mine + 1):
            if self._fold(offset, entry) and entry.epoch > self.epoch:
                raise FencedError(
                    f"partition {self.number}: {entry.claim or 'another learner'} has taken it "
                    f"over with epoch {entry.epoch}; this one had {self.epoch}"
                )

    def _learn(self, order: int, entry: Entry) -> bool:
        """Let every app learn its part of a batch; returns False while records are missing."""
        if self._taken is None or self._taken[0] != order:
            batch = self._collect(entry)
            if batch is None:
                return False
            self._taken = order, self._sort_out(batch, order, entry)
        parts = self._taken[1]
        for name, app in list(self.apps.items()):
            try:
                app.take(
                    parts.get(name, ()),
                    order=order,
                    start=entry.start,
                    upto=entry.upto,
                    restart=entry.restart,
                )
            except BanditRouterError as error:
                if isinstance(error, FencedError) or error.retriable:
                    raise
                self.failed[name] = str(error)
                self.apps.pop(name).close()  # the others go on
        self._todo.popleft()
        self._taken = None
        self._moved_at = time.monotonic()
        return True

    def _collect(self, entry: Entry) -> dict[str, list[Record]] | None:
        """The records of a batch, taken from the buffers; None while some are still to come."""
        for topic, stretch in self._stretches.items():
            stretch.needed = entry.upto.get(topic, 0)
        if any(s.position < s.needed and s.shrunk is None for s in self._stretches.values()):
            return None
        self._step("consume")
        for topic, stretch in self._stretches.items():
            stretch.take(entry.start.get(topic, 0))
        return {topic: s.take(entry.upto.get(topic, 0)) for topic, s in self._stretches.items()}

    def _sort_out(
        self, batch: Mapping[str, Sequence[Record]], order: int, entry: Entry
    ) -> dict[str, list[Item]]:
        """The batch's records by app, in order, decoded."""
        parts: dict[str, list[Item]] = {}
        at = {topic: entry.start.get(topic, 0) for topic in SOURCES}
        names = {name.encode(): name for name in self.apps}
        for topic, record in merge(batch):
            at[topic] = record.offset + 1
            name = names.get(record.key or b"")
            if name is None:
                self.counts["foreign"] += 1
                if record.key or not names:
                    continue
                # Without a key nobody else will tell of it: the first app's store does.
                reason = "no_app"
                item = Item(topic, record.offset, None, self._letter(reason, "", topic, record))
                parts.setdefault(min(self.apps), []).append(item)
                continue
            item = self._item(name, topic, record, (*(at[t] for t in SOURCES), order))
            parts.setdefault(name, []).append(item)
        return parts

    def _item(
        self, app: str, topic: str, record: Record, sources: tuple[int, int, int, int]
    ) -> Item:
        event = decoded(record.value)
        if isinstance(event, DeadLetter):
            self.counts[event.reason] += 1
            letter = self._letter(event.reason, app, topic, record)
            return Item(topic, record.offset, Arrival(event.data, event, sources), letter)
        if event.app != app:
            self.counts["forged_app"] += 1
            letter = self._letter("forged_app", app, topic, record)
            return Item(topic, record.offset, None, letter)
        return Item(topic, record.offset, Arrival(record.value or b"", event, sources), None)

    def _letter(self, reason: str, app: str, topic: str, record: Record) -> Outgoing:
        dead = set_aside(
            reason,
            record.value,
            topic=self._connection.topic(topic),
            partition=self.number,
            offset=record.offset,
            app=app,
            by=self._learner,
            ts=time.time(),
            key=record.key,
        )
        return Outgoing(DEAD_LETTERS, app, *encode_dead(dead))


def _changed(before: Mapping[str, str], now: Mapping[str, str], topics: Sequence[str]) -> list[str]:
    """The topics that are known to have another id than they had."""
    return [t for t in topics if before.get(t) and now.get(t) and before[t] != now[t]]


def decoded(value: bytes | None) -> Event | DeadLetter:
    """The event in a record, or why it is none."""
    try:
        return decode(value)
    except EventError as error:
        return DeadLetter(error.reason, value or b"")
