"""One app's learner on a stream: its store, its loop, and what it publishes.

The store is a copy: it can be lost. What counts is in Kafka, the events, their order and the newest
published snapshot, and from these any machine makes the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from bandit_router.adapters.kafka.client import CHANGES, SOURCES
from bandit_router.adapters.outbox import Outgoing
from bandit_router.adapters.sqlite_stream import Arrival, StreamStore
from bandit_router.errors import (
    ConfigError,
    PolicyError,
    SnapshotError,
    StorageError,
    TransportError,
)
from bandit_router.events import Change, encode
from bandit_router.live import settled
from bandit_router.loop import MemorySink
from bandit_router.models import Catalog
from bandit_router.snapshot import Recipe, Snapshot, probe, read_file, restore, write_file
from bandit_router.store_ops import (
    SALT,
    PolicyMaker,
    catalog_changes,
    fresh_loop,
    policy_of,
    resume,
)
from bandit_router.store_ops.guarding import Guard
from bandit_router.streaming.keeping import file_name

Step = Callable[[str], None]

BEGINNING = {**dict.fromkeys(SOURCES, 0), "order": -1}
"""The positions of an empty store: the next offset per topic, and the last of the order journal."""

EPOCH = "epoch"
"""The key under which a store remembers the epoch under which it was last written."""

TOPICS = "topics"
"""The key under which a store remembers the ids of the topics that its positions are of."""

IDLE_BATCHES = 200
"""After so many batches without a record of the app its positions are stored all the same."""


HOLD_EVERY_S = 0.5
"""While a rollback is in force the flag is looked at so often."""


def nothing(_: str) -> None:
    """The step that does nothing: see ``step`` of :class:`AppLearner`."""


GuardMaker = Callable[[StreamStore, str, Callable[[Change], object]], Guard | None]


def no_guard(_: StreamStore, __: str, ___: Callable[[Change], object]) -> None:
    """The guardrails of an app that has none: see ``guard`` of :class:`AppPlan`."""


class Publisher(Protocol):
    """Where snapshots go."""

    def publish(self, app: str, snapshot: Snapshot, *, epoch: int, learner: str) -> None:
        """Returns once the brokers have it. Raises TransportError."""
        ...


class Sends(Protocol):
    """Sends records."""

    def send(self, records: Sequence[Outgoing]) -> list[int]:
        """Returns the offsets once the brokers have them. Raises TransportError."""
        ...


def store_path(folder: Path, app: str) -> Path:
    """Where a learner that keeps its stores in ``folder`` has that of ``app``."""
    return folder / "apps" / f"{file_name(app)}.db"


@dataclass(frozen=True, kw_only=True)
class AppPlan:
    """What one app is learned with.

    Attributes:
        recipe: what an empty learner is made from.
        catalog: the models that there are to be; differences go out as changes.
        salt: of the routers' draws.
        folder: where stores and snapshots are kept.
        snapshot_every: training rows between two snapshots.
        publish_every_s: publish what is new after so many seconds.
        keep_snapshots: so many are kept in the store.
        key: signs snapshots; None leaves them unsigned.
        synchronous: when SQLite waits for the disk.
        make: from a recipe to an untrained policy.
        guard: from the store, the app and where changes go to the rollout's guardrails, or None.
    """

    recipe: Recipe
    catalog: Catalog
    salt: str
    folder: Path
    snapshot_every: int = 500
    publish_every_s: float = 2.0
    keep_snapshots: int = 5
    key: bytes | None = field(default=None, repr=False)
    synchronous: Literal["FULL", "NORMAL"] = "NORMAL"
    make: PolicyMaker = policy_of
    guard: GuardMaker = no_guard

    @property
    def app(self) -> str:
        """Owner of the policy."""
        return self.recipe.app

    @property
    def store_path(self) -> Path:
        """The app's store."""
        return store_path(self.folder, self.app)

    @property
    def snapshot_path(self) -> Path:
        """The app's last published snapshot."""
        return self.folder / "apps" / f"{file_name(self.app)}.snapshot"


class Item(Protocol):
    """One record of a batch, for one app."""

    topic: str
    offset: int
    arrival: Arrival | None
    letter: Outgoing | None


class AppLearner:
    """Learns one app. Open it with :meth:`open`; it belongs to one thread.

    Attributes:
        plan: as given.
        store: the log.
        positions: how far each topic has been learned (next offset), and the last record of the
            order journal that was worked on.
        missed: records that Kafka had removed before they could be learned.
        catalog_settled: whether changes of the models have been sent out, where there were any.
        published_seq: ``learn_seq`` of the last published snapshot; -1 before the first.
        guard: the guardrails of the rollout, or None.
        trouble: what last went wrong with publishing, "" when nothing.
    """

    def __init__(self, plan: AppPlan, store: StreamStore, *, learner: str, step: Step) -> None:
        self.plan = plan
        self.store = store
        self.missed = 0
        self.trouble = ""
        self._learner = learner
        self._step = step
        self._recipe = settled(store, plan.recipe, plan.key)
        self._resume()
        self.guard = plan.guard(store, plan.app, self._tell)
        self._looked_at = 0.0
        self._stored = store.positions()
        self.positions = BEGINNING | self._stored
        self._idle = 0
        self._uncommitted = self._spoiled = False
        self.catalog_settled = False
        self.published_seq = -1
        self._published_at = time.monotonic()

    @classmethod
    def open(
        cls,
        plan: AppPlan,
        published: Callable[[], Snapshot | None] = lambda: None,
        *,
        learner: str = "",
        step: Step = nothing,
        busy_timeout_s: float = 5.0,
    ) -> AppLearner:
        """Open the app's store where it stopped.

        Args:
            plan: what to learn with.
            published: asked for the app's newest published snapshot when there is no store yet.
            learner: who this is, for people.
            step: called with the name of each step before it is taken, for tests that kill.
            busy_timeout_s: how long to wait for another process that writes to the store.

        Raises:
            ConfigError: the app has been learned with other settings.
            StorageError: the store cannot be read or written.
            SnapshotError: the stored state does not load.
        """
        path = plan.store_path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {path.parent}: {error}") from error
        store = StreamStore.open(path, synchronous=plan.synchronous, busy_timeout_s=busy_timeout_s)
        try:
            if not store.snapshot_ids():  # even an empty learner has one
                snapshot = published()
                if snapshot is not None and set(BEGINNING) <= set(snapshot.manifest.offsets):
                    store.plant(snapshot)
            _settle_salt(store, plan.salt)
            return cls(plan, store, learner=learner, step=step)
        except BaseException:
            store.close()
            raise

    @property
    def app(self) -> str:
        """Owner of the policy."""
        return self.plan.app

    @property
    def learn_seq(self) -> int:
        """Number of the last training row."""
        return self.loop.learner.learn_seq

    @property
    def epoch(self) -> int:
        """The epoch under which the store was last written; 0 when never."""
        return int(self.store.get_meta(EPOCH) or 0)

    @property
    def topics(self) -> dict[str, str]:
        """The ids of the topics that the positions are of, by short name; empty when unknown."""
        return msgspec.json.decode(self.store.get_meta(TOPICS) or "{}", type=dict[str, str])

    def claimed(self, epoch: int, topics: Mapping[str, str]) -> None:
        """Remember under which epoch the store is written from now on, and from which topics."""
        self.store.set_meta(EPOCH, str(epoch))
        self.store.set_meta(TOPICS, msgspec.json.encode(dict(topics)).decode())

    def has(self, order: int, upto: Mapping[str, int]) -> bool:
        """Whether the journal's batch at ``order``, up to these offsets, has been learned."""
        at = self.positions
        if order != at["order"]:
            return order < at["order"]
        return all(at[topic] >= end for topic, end in upto.items())

    def take(
        self,
        items: Sequence[Item],
        *,
        order: int,
        start: Mapping[str, int],
        upto: Mapping[str, int],
        restart: bool = False,
    ) -> None:
        """Store and learn the app's part of a batch. What it has already is left out.

        After a retriable failure call it again, unchanged.

        Args:
            items: the app's records in the batch's order.
            order: offset of the batch in the order journal.
            start, upto: what the batch spans, per topic.
            restart: a topic begins again below where it was.

        Raises:
            FencedError: another process has written to the store.
            StorageError: the store cannot be written to.
        """
        if self._uncommitted:
            self.commit()
        if self.has(order, upto):
            return
        base = self.positions
        if order > base["order"]:
            if restart:
                base = {**base, **start}
            self.missed += sum(max(start[topic] - base[topic], 0) for topic in start)
        after = {topic: upto.get(topic, base[topic]) for topic in SOURCES} | {"order": order}
        new = [item for item in items if item.offset >= base[item.topic]]
        if new or self._idle >= IDLE_BATCHES:
            self._ingest(new, after)
        else:
            self._idle += 1
        self.positions = after

    def commit(self) -> None:
        """Store what was learned. Raises StorageError; call it again then."""
        self._step("commit")
        if self._spoiled:
            self._resume()
            self._spoiled = False
        self.loop.sink.commit()
        self._uncommitted = False
        if self.guard is not None:
            self.guard.look(self.loop.offset)

    def send(self, sender: Sends) -> int:
        """Send what the store has for others, and forget what the brokers have; returns how many.

        After a crash in between the same goes out once more.

        Raises:
            TransportError: the brokers cannot be reached.
            StorageError: the store cannot be read or written to.
        """
        self._hold_rollback()
        waiting = self.store.outgoing()
        if waiting:
            try:
                sender.send([record for _, record in waiting])
            except TransportError as error:
                if error.retriable:
                    raise
                for _, record in waiting:
                    self._send_alone(sender, record)
            self.store.sent(waiting[-1][0])
        return len(waiting)

    def settle_catalog(self) -> None:
        """Let changes go out where the models that there are to be are not those learned of.

        They come back in the stream, and are learned where they stand in it.
        """
        self.catalog_settled = True
        changes = catalog_changes(
            self.loop.learner.catalog, self.plan.catalog, ts=time.time(), app=self.app
        )
        if changes:
            self.store.queue([Outgoing(CHANGES, self.app, encode(change)) for change in changes])

    def publish_if_due(self, publisher: Publisher, *, epoch: int, finally_: bool = False) -> bool:
        """Publish a snapshot when there is enough that is new; returns whether one went out.

        Args:
            publisher: where it goes.
            epoch: the claim under which this learner works.
            finally_: whatever is new is enough.

        Raises:
            TransportError: it could not be sent; it is due again.
            StorageError: it could not be stored.
        """
        # The first one of a claim always goes out: routers then know its epoch.
        new = self.learn_seq - self.published_seq
        waited = time.monotonic() - self._published_at
        due = finally_ or new >= self.plan.snapshot_every or waited >= self.plan.publish_every_s
        if new <= 0 or not due:
            return False
        self._published_at = time.monotonic()
        snapshot = self.loop.snapshots.take(self.loop.offset)
        self._step("save")
        self.commit()
        try:
            self._step("rename")
            write_file(self.plan.snapshot_path, snapshot)
            snapshot = read_file(self.plan.snapshot_path, key=self.plan.key)
            self._try_out(snapshot)
        except SnapshotError as error:
            self.trouble = f"snapshot {snapshot.id} is not fit to be published: {error}"
            return False
        self._step("publish")
        publisher.publish(self.app, snapshot, epoch=epoch, learner=self._learner)
        self.trouble = ""
        self.published_seq = snapshot.manifest.learn_seq
        self.store.queue([self._announcement(snapshot, epoch)])
        return True

    def forget_order(self) -> None:
        """The order journal begins anew; the topics go on where they were.

        Raises:
            StorageError: the store cannot be written to.
        """
        self.positions = {**self.positions, "order": BEGINNING["order"]}
        self.store.rebase(self.positions)
        self._stored = {**self.positions}

    def close(self) -> None:
        """Give the store back. What was not committed is learned again from the log."""
        self.store.close()

    def settle(self) -> None:
        """Store everything, positions of batches without records of the app included."""
        self.commit()
        if self.positions != BEGINNING | self._stored:
            self._ingest([], self.positions)

    def _resume(self) -> None:
        self.loop = resume(
            self.store,
            self._recipe,
            snapshot_every=self.plan.snapshot_every,
            keep_snapshots=self.plan.keep_snapshots,
            key=self.plan.key,
            make=self.plan.make,
        )

    def _ingest(self, items: Sequence[Item], after: Mapping[str, int]) -> None:
        arrivals = [item.arrival for item in items if item.arrival is not None]
        letters = [item.letter for item in items if item.letter is not None]
        self._step("append")
        offsets = self.store.ingest(arrivals, before=self._stored, after=after, outgoing=letters)
        self._stored, self._idle = {**after}, 0
        self._uncommitted = True
        try:
            self._feed(offsets, arrivals)
        except PolicyError:
            # What the policy was left in is of no use. The log has the row: reading it again from
            # the last snapshot meets it again and refuses it, now or when the store can be used.
            self._spoiled = True
        self.positions = {**after}
        self.commit()

    def _feed(self, offsets: Sequence[int], arrivals: Sequence[Arrival]) -> None:
        loop, step = self.loop, self._step
        for offset, arrival in zip(offsets, arrivals, strict=True):
            step("join")
            try:
                loop.feed(arrival.event, offset)
            except StorageError as error:  # taken all the same; the commit tries again
                if not error.retriable:
                    raise

    def _hold_rollback(self) -> None:
        """Keep a rolled back flag off, and try again what failed, also when no event comes."""
        if self.guard is None or (self.guard.alarm is None and not self.guard.problem):
            return
        if time.monotonic() - self._looked_at >= HOLD_EVERY_S:
            self._looked_at = time.monotonic()
            self.guard.look(self.loop.offset)

    def _tell(self, change: Change) -> None:
        self.store.queue([Outgoing(CHANGES, self.app, encode(change))])

    def _send_alone(self, sender: Sends, record: Outgoing) -> None:
        try:
            sender.send([record])
        except TransportError as error:
            if error.retriable:
                raise
            self.trouble = f"a record for {record.topic} was given up: {error}"

    def _try_out(self, snapshot: Snapshot) -> None:
        """Load it as a router does. Raises SnapshotError."""
        loop = fresh_loop(self._recipe, MemorySink(), self.plan.make)
        restore(snapshot, self._recipe, loop.learner, loop.joiner)
        probe(
            loop.learner.policy,
            loop.learner.catalog,
            self._recipe.dimension,
            self._recipe.quality_value_usd,
        )

    def _announcement(self, snapshot: Snapshot, epoch: int) -> Outgoing:
        data = {
            "snapshot_id": snapshot.id,
            "learn_seq": snapshot.manifest.learn_seq,
            "epoch": epoch,
            "learner": self._learner,
        }
        change = Change(ts=time.time(), app=self.app, kind="snapshot_published", data=data)
        return Outgoing(CHANGES, self.app, encode(change))


def _settle_salt(store: StreamStore, salt: str) -> None:
    """Store the salt in a new store. Raises ConfigError when the draws were made with another."""
    stored = store.get_meta(SALT)
    if stored is None:
        store.set_meta(SALT, salt)
    elif stored != salt:
        raise ConfigError(
            f"{store.path}: app.salt is {salt!r:.80}, but its decisions were drawn with "
            f"{stored!r:.80}, without which they cannot be explained. Put the old one back, or "
            "give the app another name"
        )
