"""The learner process: takes its share of the partitions, learns their apps, publishes.

One thread does everything, one small step after the other, so that nothing that waits (a locked
database, a full disk, brokers that are away) keeps the rest from being done: what fails is tried
again later, with longer and longer pauses.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import msgspec

from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.fetcher import Fetcher
from bandit_router.adapters.kafka.journal import Journal
from bandit_router.adapters.kafka.membership import Member, Membership
from bandit_router.adapters.kafka.sender import Sender
from bandit_router.adapters.kafka.snapshots import SnapshotPublisher, last_published
from bandit_router.bootstrap import make_connection, make_featurizer
from bandit_router.config import EventsSection, Settings
from bandit_router.errors import (
    BanditRouterError,
    ConfigError,
    FencedError,
    InputError,
    SnapshotError,
    StorageError,
)
from bandit_router.live import configured_policy, recipe_of
from bandit_router.snapshot import Snapshot, unpack
from bandit_router.store_ops.guarding import open_guard
from bandit_router.streaming.applearner import AppLearner, AppPlan, Step, nothing
from bandit_router.streaming.partition import PartitionLearner
from bandit_router.streaming.pausing import Pause

MEMBERSHIP_S = 0.1
NOTE_S = 5.0
IDLE_POLL_S = 0.05

Report = Callable[[Mapping[str, Any]], None]


def plans_of(settings: Settings) -> list[AppPlan]:
    """What the apps of a configuration are learned with.

    Raises:
        ConfigError: the settings do not fit together.
        DependencyError: a shipped artefact is missing.
    """
    recipe = recipe_of(settings, make_featurizer(settings.features, embed=False))
    return [
        AppPlan(
            recipe=msgspec.structs.replace(recipe, app=app),
            catalog=settings.catalog,
            salt=settings.app.salt,
            folder=settings.events.folder,
            snapshot_every=settings.snapshots.every,
            publish_every_s=settings.events.publish_every_s,
            keep_snapshots=settings.snapshots.keep,
            key=settings.snapshot_key,
            synchronous="FULL" if settings.store.synchronous == "full" else "NORMAL",
            make=configured_policy,
            guard=partial(open_guard, settings),
        )
        for app in settings.apps
    ]


def run_learner(
    settings_list: Sequence[Settings],
    *,
    stop: Callable[[], bool],
    report: Report = lambda _: None,
    report_every_s: float = 5.0,
    until_idle_s: float | None = None,
    step: Step = nothing,
) -> dict[str, Any]:
    """Learn the apps of these configurations until told to stop; returns the last status.

    Args:
        settings_list: one configuration per app; all over the same Kafka and prefix.
        stop: asked between two steps.
        report: is given the status every ``report_every_s`` seconds.
        until_idle_s: stop by itself once there has been nothing to learn for so long, seconds.
        step: called with the name of each step before it is taken, for tests that kill.

    Raises:
        ConfigError: the configurations do not fit together, or an app was learned with others.
        DependencyError: a package or artefact is missing.
    """
    events = _common(settings_list)
    plans = [plan for settings in settings_list for plan in plans_of(settings)]
    with Learning(
        plans,
        make_connection(events),
        group=events.group,
        session_timeout_s=events.session_timeout_s,
        batch=events.batch,
        step=step,
    ) as learning:
        return learning.run(
            stop=stop, report=report, report_every_s=report_every_s, until_idle_s=until_idle_s
        )


def _common(settings_list: Sequence[Settings]) -> EventsSection:
    """The section [events] that all share. Raises ConfigError when they do not."""
    first = settings_list[0].events
    if first.transport != "kafka":
        raise ConfigError('events.transport is "sqlite": there `route` and `feedback` learn')
    names = ("bootstrap_servers", "prefix", "partitions", "group", "session_timeout_s", "batch")
    for settings in settings_list[1:]:
        for name in names:
            if getattr(settings.events, name) != getattr(first, name):
                raise ConfigError(f"events.{name} must be the same in all configurations")
    apps = [app for settings in settings_list for app in settings.apps]
    for app in apps:
        if apps.count(app) > 1:
            raise ConfigError(f"two configurations have the app {app!r:.80}")
    return first


@dataclass(frozen=True)
class _Fenced:
    """A partition that was taken from us: under which token it was ours, since when it is not, how
    far the journal had been read then, and why.
    """

    token: int
    since: float
    seen: int
    why: str


class Learning:
    """The learner process's loop over its partitions. It belongs to one thread.

    Args:
        plans: the apps that may be learned here.
        connection: the cluster.
        group: consumer group; its members share the partitions.
        session_timeout_s: after so many seconds of silence a member's partitions go to others.
        batch: most records in a batch.
        learner: who this is, for people.
        step: called with the name of each step before it is taken.
        membership: says which partitions are ours; None joins ``group``.
    """

    def __init__(
        self,
        plans: Sequence[AppPlan],
        connection: Connection,
        *,
        group: str,
        session_timeout_s: float = 10.0,
        batch: int = 1000,
        learner: str = "",
        step: Step = nothing,
        membership: Member | None = None,
    ) -> None:
        self.learner = learner or f"{socket.gethostname()}:{os.getpid()}"
        self._connection = connection
        self._batch = batch
        self._step = step
        self._session_timeout_s = session_timeout_s
        self._plans: dict[int, list[AppPlan]] = {}
        for plan in plans:
            self._plans.setdefault(connection.partition_of(plan.app), []).append(plan)
        self._resources = ExitStack()
        patience_s = 2 * connection.timeout_s
        self._sender = Sender(connection, timeout_s=patience_s)
        self._resources.callback(self._sender.close)
        self._journal = self._resources.enter_context(
            Journal(connection, self._sender, timeout_s=patience_s)
        )
        self._fetcher = self._resources.enter_context(Fetcher(connection, capacity=2 * batch))
        self._membership = self._resources.enter_context(
            membership or Membership(connection, group, session_timeout_s=session_timeout_s)
        )
        self._publishers: dict[bytes | None, SnapshotPublisher] = {}
        self._partitions: dict[int, PartitionLearner] = {}
        self._tokens: dict[int, int] = {}
        self._owned: Mapping[int, int] = {}
        self._fenced: dict[int, _Fenced] = {}
        self._pauses: dict[object, Pause] = {}
        self._members_at = self._noted_at = self._busy_at = 0.0
        self._fences = 0
        self._was_busy = False
        self._failed: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for number in list(self._partitions):
            self._close(number)
        for publisher in self._publishers.values():
            publisher.close()
        self._resources.close()

    def run(
        self,
        *,
        stop: Callable[[], bool],
        report: Report = lambda _: None,
        report_every_s: float = 5.0,
        until_idle_s: float | None = None,
    ) -> dict[str, Any]:
        """Learn until told to stop; then store and publish what is new. Returns the last status.

        Args:
            stop, report, report_every_s, until_idle_s: as :func:`run_learner` takes them.

        Raises:
            ConfigError: an app has been learned with other settings.
        """
        self._busy_at = reported = time.monotonic()
        while not stop():
            busy = self.turn()
            now = time.monotonic()
            if busy or not self._settled():
                self._busy_at = now
            elif until_idle_s is not None and now - self._busy_at >= until_idle_s:
                break
            if now - reported >= report_every_s:
                report(self.status())
                reported = now
        self._finish()
        status = self.status()
        report(status)
        return status

    def turn(self) -> bool:
        """One small step of everything; returns whether there was something to learn."""
        now = time.monotonic()
        if now - self._members_at >= MEMBERSHIP_S:
            self._members_at = now
            self._try("membership", self._follow_group)
        self._try("fetch", self._fetch)
        busy = False
        for number in list(self._partitions):
            busy |= bool(self._try(number, lambda n=number: self._learn(n)))
        self._was_busy = busy
        if now - self._noted_at >= NOTE_S:
            self._noted_at = now
            self._membership.note(self._positions())
        return busy

    def status(self) -> dict[str, Any]:
        """What this learner is doing, as plain values."""
        apps = {}
        for number, partition in self._partitions.items():
            for name, app in partition.apps.items():
                apps[name] = {
                    "partition": number,
                    "epoch": partition.epoch,
                    "learn_seq": app.learn_seq,
                    "published_seq": app.published_seq,
                    "positions": dict(app.positions),
                    "open_decisions": app.loop.joiner.open_decisions,
                    "trouble": app.trouble,
                    "guardrails": None if app.guard is None else app.guard.status(),
                }
        return {
            "learner": self.learner,
            "partitions": sorted(self._owned),
            "apps": apps,
            "waiting": sum(partition.waiting for partition in self._partitions.values()),
            "missed": sum(
                partition.missed + sum(app.missed for app in partition.apps.values())
                for partition in self._partitions.values()
            ),
            "fenced": {str(n): fenced.why for n, fenced in self._fenced.items()},
            "fences": self._fences,
            "failed": self._failed
            | {k: v for p in self._partitions.values() for k, v in p.failed.items()},
            "counts": {str(n): dict(p.counts) for n, p in self._partitions.items() if p.counts},
            "problems": self._problems(),
        }

    def _problems(self) -> dict[str, str]:
        """What is being tried again, by what it is about."""
        found = {
            " ".join(map(str, k)) if isinstance(k, tuple) else str(k): pause.error
            for k, pause in self._pauses.items()
        }
        return {k: error for k, error in found.items() if error} | (
            {"membership": self._membership.trouble} if self._membership.trouble else {}
        )

    # Single steps

    def _try(self, what: object, do: Callable[[], object]) -> object:
        """Do it unless it failed a moment ago; a failure that can pass begins a pause."""
        pause = self._pauses.setdefault(what, Pause())
        if not pause.over:
            return False
        try:
            result = do()
        except FencedError as error:
            self._fence(what, error)
            return False
        except BanditRouterError as error:
            if isinstance(error, InputError):
                raise
            pause.begin(error)
            return False
        pause.clear()
        return result

    def _fetch(self) -> None:
        if self._partitions:
            self._fetcher.poll(0.0 if self._was_busy else IDLE_POLL_S)
        else:
            time.sleep(IDLE_POLL_S)

    def _follow_group(self) -> None:
        owned = self._owned = self._membership.ask()
        for number in list(self._partitions):
            if owned.get(number) != self._tokens[number]:
                self._close(number)
        for what in [w for w in self._pauses if isinstance(w, tuple) and w[0] == "open"]:
            if what[1] not in owned:
                del self._pauses[what]  # it is for others to open it now
        for number, token in owned.items():
            if number in self._partitions or number not in self._plans:
                continue
            if number in self._fenced and not self._may_claim_again(number, token):
                continue
            self._try(("open", number), lambda n=number, t=token: self._open(n, t))

    def _may_claim_again(self, number: int, token: int) -> bool:
        """After having been fenced: only when the partition has come to us anew since, or nobody
        uses what was taken from us.
        """
        fenced = self._fenced[number]
        if token != fenced.token:
            return True
        waited = time.monotonic() - fenced.since
        return waited > 3 * self._session_timeout_s and self._is_orphaned(number)

    def _is_orphaned(self, number: int) -> bool:
        """Whether the group still says that a partition is ours, and whoever took it is silent."""
        fenced = self._fenced[number]
        end = 1 + max((at for at, _ in self._journal.read(number, fenced.seen)), default=-1)
        self._fenced[number] = replace(fenced, since=time.monotonic(), seen=max(end, fenced.seen))
        return end <= fenced.seen

    def _open(self, number: int, token: int) -> None:
        with ExitStack() as opened:
            apps = []
            for plan in self._plans[number]:
                try:
                    app = self._opened(plan, number)
                except (SnapshotError, StorageError) as error:
                    if error.retriable:
                        raise
                    self._failed[plan.app] = str(error)  # the others of this partition go on
                    continue
                self._failed.pop(plan.app, None)
                opened.callback(app.close)
                apps.append(app)
            if not apps:
                raise StorageError("; ".join(self._failed[p.app] for p in self._plans[number]))
            partition = PartitionLearner(
                number,
                apps,
                self._connection,
                self._journal,
                self._fetcher,
                learner=self.learner,
                batch=self._batch,
                step=self._step,
            )
            partition.claim()
            opened.pop_all()
        self._partitions[number], self._tokens[number] = partition, token
        self._fenced.pop(number, None)

    def _opened(self, plan: AppPlan, number: int) -> AppLearner:
        """The app's learner where its store stopped; where the published snapshot did, when the
        store is so old that Kafka no longer has what came after it.
        """
        app = self._open_store(plan)
        at = app.positions["order"]
        if at < 0 or next((o for o, _ in self._journal.read(number, at)), None) == at:
            return app
        published = self._published(plan)
        if published is None or published.manifest.learn_seq <= app.learn_seq:
            return app
        app.close()
        path = plan.store_path
        path.rename(path.with_name(f"{path.name}.left-at-{app.learn_seq}"))
        return self._open_store(plan)

    def _open_store(self, plan: AppPlan) -> AppLearner:
        return AppLearner.open(
            plan, lambda: self._published(plan), learner=self.learner, step=self._step
        )

    def _published(self, plan: AppPlan) -> Snapshot | None:
        """The app's newest published snapshot, or None when there is none that verifies."""
        found = last_published(self._connection, [plan.app], key=plan.key).get(plan.app)
        if found is None:
            return None
        try:
            return unpack(found.data, key=plan.key)
        except SnapshotError:
            return None

    def _learn(self, number: int) -> bool:
        """One batch of a partition, then what it gives to others."""
        partition = self._partitions[number]
        busy = partition.step()
        if not partition.caught_up:
            return busy  # where records are still to come, the next fetch waits for them
        for app in partition.apps.values():
            if not app.catalog_settled:
                app.settle_catalog()
            app.publish_if_due(self._publisher(app.plan), epoch=partition.epoch)
            while app.send(self._sender):
                pass
        return busy

    def _publisher(self, plan: AppPlan) -> SnapshotPublisher:
        if plan.key not in self._publishers:
            self._publishers[plan.key] = SnapshotPublisher(
                self._connection, key=plan.key, timeout_s=2 * self._connection.timeout_s
            )
        return self._publishers[plan.key]

    def _fence(self, what: object, error: FencedError) -> None:
        number = what[1] if isinstance(what, tuple) else what
        self._fences += 1
        token = self._owned.get(number, -1)
        seen = self._partitions[number].seen if number in self._partitions else 0
        self._fenced[number] = _Fenced(token, time.monotonic(), seen, str(error))
        self._close(number)

    def _close(self, number: int) -> None:
        """Give a partition up. What its stores have not got is learned again by the next owner."""
        partition = self._partitions.pop(number, None)
        self._fetcher.drop(number)
        self._pauses.pop(number, None)
        if partition is not None:
            for app in partition.apps.values():
                app.close()

    def _finish(self) -> None:
        """A clean end: store everything, publish what is new."""
        for number, partition in list(self._partitions.items()):
            for app in list(partition.apps.values()):
                self._try(("finish", number, app.app), lambda a=app, p=partition: self._end(a, p))

    def _end(self, app: AppLearner, partition: PartitionLearner) -> None:
        app.settle()
        if partition.caught_up:
            app.publish_if_due(self._publisher(app.plan), epoch=partition.epoch, finally_=True)
        app.send(self._sender)

    def _settled(self) -> bool:
        """Whether everything that should be learned here has been, as far as is known."""
        owned = {n for n in self._owned if n in self._plans}
        return (
            bool(self._owned)
            and owned == set(self._partitions) | (owned & set(self._fenced))
            and not any(p.waiting or not p.caught_up for p in self._partitions.values())
            and not any(pause.error for pause in self._pauses.values())
        )

    def _positions(self) -> dict[int, dict[str, int]]:
        found = {}
        for number, partition in self._partitions.items():
            places = [app.positions for app in partition.apps.values()]
            if places:
                found[number] = {
                    topic: min(at[topic] for at in places)
                    for topic in places[0]
                    if topic != "order"
                }
        return found
