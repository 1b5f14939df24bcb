"""From records of the topic of snapshots to whole containers, in bounded memory.

An app's records have its name as key: the announcement, with the container beside it in a header
when it is small. Larger ones are cut: the chunks come first, under keys of their own, so that
compaction keeps them, and the announcement after the last of them. Chunks of two publishers may
mix, or be lost to a newer snapshot's: what is incomplete waits for the rest, and is dropped when a
newer announcement comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from bandit_router.errors import SnapshotError
from bandit_router.snapshot.announcement import (
    CHUNK_BYTES,
    MAX_CHUNKS,
    MAX_PUBLISHED_BYTES,
    Announcement,
    assemble,
    decode,
)

SEPARATOR = "\0"
CONTAINER_HEADER = "snapshot"
ID_HEADER = "snapshot_id"
INDEX_HEADER = "index"

_MAX_SETS = 2  # the one being followed, and the one that comes in
_MAX_ID_BYTES = 64


def chunk_key(app: str, index: int) -> bytes:
    """The key of an app's chunk."""
    return f"{app}{SEPARATOR}{index}".encode()


@dataclass(frozen=True, kw_only=True)
class Announced:
    """A container that arrived whole, with the announced size and sha256; else unverified."""

    announcement: Announcement
    data: bytes = field(repr=False)

    @property
    def app(self) -> str:
        """Owner of the policy."""
        return self.announcement.app

    @property
    def epoch(self) -> int:
        """Which claim on the app published it."""
        return self.announcement.epoch

    @property
    def learner(self) -> str:
        """Who published it."""
        return self.announcement.learner


@dataclass(frozen=True, kw_only=True)
class Refused:
    """What came for an app and is not to be used.

    Attributes:
        reason: a stable token, as :class:`~bandit_router.errors.SnapshotError` lists them.
        problem: the same in words.
    """

    app: str
    reason: str
    problem: str


class _Inbox:
    """What is there of one app's newest snapshots."""

    def __init__(self) -> None:
        self.sets: dict[str, dict[int, bytes]] = {}
        self.waiting: Announcement | None = None
        self.ready: tuple[Announcement, list[bytes]] | None = None

    def rank(self) -> tuple[int, int]:
        newest = self.waiting or (self.ready and self.ready[0])
        return newest.rank if newest else (-1, -1)

    def complete(self) -> None:
        """Move what waited to what is ready, once its chunks are all there."""
        waiting = self.waiting
        if waiting is None:
            return
        pieces = self.sets.get(waiting.snapshot_id, {})
        wanted = range(waiting.chunks)
        if all(index in pieces for index in wanted):
            self.ready = (waiting, [pieces[index] for index in wanted])
            self.waiting = None


class Assembly:
    """Takes records, gives containers. Knows nothing of where the records come from.

    Args:
        apps: whose snapshots are wanted; records of others are passed over.
        key: what announcements must be signed with; None takes unsigned ones too.
        max_bytes: of a container, and of the chunks kept for one app.

    ``counts`` has ``tombstones``, ``foreign`` (records of apps that are not followed, and what is
    no record of snapshots at all), ``chunks``, ``incomplete`` (announcements dropped because a
    newer one came before their chunks).
    """

    def __init__(
        self,
        apps: Collection[str],
        *,
        key: bytes | None = None,
        max_bytes: int = MAX_PUBLISHED_BYTES,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._key, self._max_bytes = key, max_bytes
        self._inboxes = {app: _Inbox() for app in apps}

    def take(
        self, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> Refused | None:
        """Take one record; says so when it is refused. Never raises, whatever the record holds."""
        app, index = _address(key)
        inbox = self._inboxes.get(app)
        if inbox is None:
            self.counts["foreign"] += 1
            return None
        if value is None:
            self.counts["tombstones"] += 1
            return None
        found = {name: content or b"" for name, content in headers}
        try:
            if index is None:
                self._announced(app, inbox, decode(value, app=app, key=self._key), found)
            else:
                self._chunk(inbox, index, value, found)
        except SnapshotError as error:
            return Refused(app=app, reason=error.reason, problem=str(error))
        return None

    def newest(self, app: str) -> Announced | Refused | None:
        """The newest whole container of an app since the last call, if any; it is handed over."""
        inbox = self._inboxes[app]
        if inbox.ready is None:
            return None
        (announcement, pieces), inbox.ready = inbox.ready, None
        try:
            found = Announced(announcement=announcement, data=assemble(announcement, pieces))
        except SnapshotError as error:  # its chunks stay: those that come again mend it
            return Refused(
                app=app,
                reason=error.reason,
                problem=f"snapshot {announcement.snapshot_id}: {error}",
            )
        inbox.sets.pop(announcement.snapshot_id, None)
        return found

    def _announced(
        self,
        app: str,
        inbox: _Inbox,
        announcement: Announcement,
        headers: Mapping[str, bytes],
    ) -> None:
        name = announcement.snapshot_id
        if announcement.size > self._max_bytes:
            raise SnapshotError(
                f"snapshot {name} is announced with {announcement.size} bytes; "
                f"{self._max_bytes} are allowed",
                reason="size",
            )
        if announcement.rank < inbox.rank():
            raise SnapshotError(
                f"snapshot {name} of epoch {announcement.epoch} came after one of rank "
                f"{inbox.rank()}",
                reason="old_epoch" if announcement.epoch < inbox.rank()[0] else "old_state",
            )
        if inbox.waiting is not None and inbox.waiting.snapshot_id != name:
            self.counts["incomplete"] += 1
            inbox.sets.pop(inbox.waiting.snapshot_id, None)
        inbox.waiting = None
        if announcement.chunks:
            inbox.waiting = announcement
            inbox.complete()
            return
        piece = headers.get(CONTAINER_HEADER)
        if piece is None:
            raise SnapshotError(f"snapshot {name} of {app!r:.80} is announced and not there")
        inbox.ready = (announcement, [piece])

    def _chunk(self, inbox: _Inbox, index: int, value: bytes, headers: Mapping[str, bytes]) -> None:
        self.counts["chunks"] += 1
        name = headers.get(ID_HEADER, b"")
        if not name or len(name) > _MAX_ID_BYTES or not name.isascii():
            raise SnapshotError("a chunk does not say of which snapshot it is")
        if headers.get(INDEX_HEADER) != str(index).encode():
            raise SnapshotError("a chunk's key and its header name different places")
        if len(value) > CHUNK_BYTES:
            raise SnapshotError(f"a chunk of {len(value)} bytes", reason="size")
        pieces = inbox.sets.pop(name.decode(), {})
        pieces[index] = value
        inbox.sets[name.decode()] = pieces  # the last to be touched is the last to be dropped
        if sum(map(len, pieces.values())) > self._max_bytes:
            del inbox.sets[name.decode()]
            raise SnapshotError(f"the chunks of snapshot {name!r} are too many", reason="size")
        while len(inbox.sets) > _MAX_SETS:
            del inbox.sets[next(iter(inbox.sets))]
        inbox.complete()


def _address(key: bytes | None) -> tuple[str, int | None]:
    """App and chunk index of a record's key; an app "" where the key is none of ours."""
    try:
        app, separator, index = (key or b"").decode().rpartition(SEPARATOR)
    except UnicodeDecodeError:
        return "", None
    if not separator:
        return index, None
    if not (index.isascii() and index.isdigit() and len(index) <= 3 and int(index) < MAX_CHUNKS):
        return "", None
    return app, int(index)
