"""A router's thread that follows its apps' snapshots and keeps the last good state of each.

The service never waits for it and never stops for it: whatever is wrong with what comes, the last
good state goes on serving, and the refusal is counted by its reason.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec

from bandit_router.adapters.kafka.assembly import Announced, Refused
from bandit_router.adapters.kafka.snapshots import SnapshotReader
from bandit_router.bootstrap import make_connection
from bandit_router.config import Settings
from bandit_router.errors import SnapshotError, StorageError, TransportError
from bandit_router.snapshot import Recipe, Snapshot
from bandit_router.snapshot.announcement import Announcement
from bandit_router.streaming.accepting import Acceptance, Served
from bandit_router.streaming.keeping import LastGood

__all__ = ["Follower", "Served", "open_follower"]

FOLDER = "routers"
"""Folder of the last good snapshots, below ``events.folder``."""

_POLL_S = 0.2
_RETRY_S = 0.5
_UNKNOWN = (-1, -1)
_MAX_PROBLEM_CHARS = 500

OnSwap = Callable[[str, Served], None]


class Reader(Protocol):
    """Where snapshots come from; see
    :class:`~bandit_router.adapters.kafka.snapshots.SnapshotReader`.
    """

    counts: Mapping[str, int]

    def poll(self, timeout_s: float) -> list[Announced | Refused]:
        """What is new. Raises TransportError."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


class _App:
    """What the follower knows of one app; written by one thread."""

    def __init__(self, recipe: Recipe, folder: Path, key: bytes | None) -> None:
        self.name = recipe.app
        self.acceptance = Acceptance(recipe, key=key)
        self.stored = LastGood(folder, recipe.app, key=key)
        self.served: Served | None = None
        self.rank = _UNKNOWN
        self.learner = ""
        self.since = 0.0


class Follower:
    """Keeps, for each app, the last state that was verified, restored and probed.

    Args:
        reader: where snapshots come from; the follower's thread is its only user and closes it.
        recipes: for each app what this router makes its untrained policy from; the app's own name
            must stand in it.
        folder: where the last good snapshots are kept.
        key: what snapshots and announcements must be signed with; None takes unsigned ones too.
        on_swap: called as ``on_swap(app, served)`` in the follower's thread (in that of
            :meth:`start` for a stored one) once :meth:`served` gives the new state.
        poll_s: how long one wait for something new takes, seconds; also about how long
            :meth:`close` does.
    """

    def __init__(
        self,
        reader: Reader,
        recipes: Mapping[str, Recipe],
        folder: Path,
        *,
        key: bytes | None = None,
        on_swap: OnSwap | None = None,
        poll_s: float = _POLL_S,
    ) -> None:
        self._reader, self._on_swap, self._poll_s = reader, on_swap, poll_s
        self._apps = {app: _App(recipe, folder, key) for app, recipe in recipes.items()}
        self._refused: Counter[str] = Counter()
        self._last_refusal = ""
        self._swaps = 0
        self._swap_s = 0.0
        self._connected = False
        self._problem = ""
        self._store_problem = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="snapshot-follower", daemon=True)

    def start(self) -> None:
        """Serve what is stored, then follow in the background. Does not wait for Kafka."""
        for app in self._apps.values():
            self._load(app)
        self._thread.start()

    def served(self, app: str) -> Served | None:
        """The last good state of an app; None before the first. Any thread may ask."""
        return self._apps[app].served

    def status(self) -> dict[str, Any]:
        """How it stands, for metrics and ``check``. Any thread may ask.

        ``apps``: for each what is served (or ``snapshot_id`` "") and for how long, seconds.
        ``swaps`` and how long the last took, ``swap_s``, from the container to serving. ``refused``
        by reason and ``last_refusal`` in words. ``connected``, else ``problem`` says why not.
        ``store_problem``: why the last good snapshot could not be stored or read, or "".
        ``records``: counts of the topic's records.
        """
        now = time.monotonic()
        return {
            "connected": self._connected,
            "problem": self._problem,
            "apps": {app: _status_of(state, now) for app, state in self._apps.items()},
            "swaps": self._swaps,
            "swap_s": self._swap_s,
            "refused": dict(self._refused),
            "last_refusal": self._last_refusal,
            "store_problem": self._store_problem,
            "records": dict(self._reader.counts),
        }

    def close(self, *, timeout_s: float = 5.0) -> None:
        """Stop following. What is served stays."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._step()
                except TransportError as error:
                    self._wait_after(str(error))
                except Exception as error:  # noqa: BLE001 - updates must not end in silence
                    with suppress(Exception):  # a client that is broken may not close either
                        self._reader.close()
                    self._wait_after(f"{type(error).__name__}: {error}")
        finally:
            self._reader.close()

    def _wait_after(self, problem: str) -> None:
        self._connected, self._problem = False, problem
        self._stop.wait(_RETRY_S)

    def _step(self) -> None:
        """One wait for something new, and what came of it."""
        found = self._reader.poll(self._poll_s)
        self._connected, self._problem = True, ""
        for one in found:
            if isinstance(one, Refused):
                self._refuse(one.app, one.reason, one.problem)
            else:
                self._take(self._apps[one.app], one)

    def _take(self, app: _App, announced: Announced) -> None:
        """Verify, restore, probe, swap, store."""
        announcement, begun = announced.announcement, time.monotonic()
        try:
            _check_rank(announcement, app.rank)
            if app.served is not None and app.served.snapshot_id == announcement.snapshot_id:
                self._same_again(app, app.served, announcement)
                return
            snapshot, served = _accepted(app, announced)
        except SnapshotError as error:
            self._refuse(app.name, error.reason, str(error))
            return
        app.rank, app.learner = announcement.rank, announcement.learner
        try:
            self._swap(app, served, begun)
        finally:
            self._store(app, announcement, snapshot)

    def _same_again(self, app: _App, served: Served, announcement: Announcement) -> None:
        """Another learner, or the same after a restart, stands by what is served already."""
        if announcement.rank > app.rank:
            app.rank, app.learner = announcement.rank, announcement.learner
            app.served = replace(served, epoch=announcement.epoch)
            self._store(app, announcement, None)

    def _swap(self, app: _App, served: Served, begun: float) -> None:
        app.served = served  # one reference: a request sees the old state or the new one
        app.since = time.monotonic()
        self._swaps += 1
        self._swap_s = app.since - begun
        if self._on_swap is not None:
            self._on_swap(app.name, served)

    def _store(self, app: _App, announcement: Announcement, snapshot: Snapshot | None) -> None:
        try:
            app.stored.keep(announcement, snapshot)
        except (SnapshotError, StorageError) as error:
            self._store_problem = str(error)  # it serves all the same
        else:
            self._store_problem = ""

    def _load(self, app: _App) -> None:
        """Serve what was stored, as far as it verifies."""
        begun = time.monotonic()
        try:
            announcement = app.stored.announcement()
            if announcement is not None:
                app.rank, app.learner = announcement.rank, announcement.learner
        except (SnapshotError, StorageError) as error:
            self._not_loaded(app, error)
        try:
            data = app.stored.container()
            if data is None:
                return
            served = app.acceptance.restored(
                app.acceptance.verified(data), epoch=max(app.rank[0], 0)
            )
        except (SnapshotError, StorageError) as error:
            self._not_loaded(app, error)
        else:
            self._swap(app, served, begun)

    def _not_loaded(self, app: _App, error: SnapshotError | StorageError) -> None:
        self._store_problem = f"{app.stored.snapshot_path}: {error}"
        reason = error.reason if isinstance(error, SnapshotError) else "unreadable"
        self._refuse(app.name, reason, self._store_problem)

    def _refuse(self, app: str, reason: str, problem: str) -> None:
        self._refused[reason] += 1
        self._last_refusal = f"{app}: {problem}"[:_MAX_PROBLEM_CHARS]


def _accepted(app: _App, announced: Announced) -> tuple[Snapshot, Served]:
    """What is announced, verified and restored. Raises SnapshotError."""
    announcement = announced.announcement
    snapshot = app.acceptance.verified(announced.data, last=app.served)
    if snapshot.id != announcement.snapshot_id:
        raise SnapshotError(
            f"announced as {announcement.snapshot_id}, but it is snapshot {snapshot.id}"
        )
    return snapshot, app.acceptance.restored(snapshot, epoch=announcement.epoch)


def _check_rank(announcement: Announcement, known: tuple[int, int]) -> None:
    if announcement.rank >= known:
        return
    what = f"snapshot {announcement.snapshot_id} of epoch {announcement.epoch}"
    if announcement.epoch < known[0]:
        raise SnapshotError(
            f"{what}, by {announcement.learner!r:.80}: there was an epoch {known[0]} already; if "
            "all was begun anew, remove the router's stored snapshots and start it again",
            reason="old_epoch",
        )
    raise SnapshotError(f"{what} is older than row {known[1]}", reason="old_state")


def _status_of(app: _App, now: float) -> dict[str, Any]:
    served = app.served
    return {
        "snapshot_id": "" if served is None else served.snapshot_id,
        "learn_seq": 0 if served is None else served.learn_seq,
        "epoch": max(app.rank[0], 0),
        "learner": app.learner,
        "served_s": 0.0 if served is None else now - app.since,
    }


def open_follower(settings: Settings, recipe: Recipe, *, on_swap: OnSwap | None = None) -> Follower:
    """The follower of the settings' apps, not started yet.

    Args:
        settings: where Kafka is, the key, the apps and the folder.
        recipe: what this router makes its untrained policies from, whatever app it names.
        on_swap: see :class:`Follower`.
    """
    key = settings.snapshot_key
    return Follower(
        SnapshotReader(make_connection(settings.events), settings.apps, key=key),
        {app: msgspec.structs.replace(recipe, app=app) for app in settings.apps},
        settings.events.folder / FOLDER,
        key=key,
        on_swap=on_swap,
    )
