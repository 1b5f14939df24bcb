"""A router's last good snapshot on disk, with the announcement that it came with.

A router that starts while Kafka is away serves with it, and goes on refusing older epochs. Two
files, each whole or not there: the announcement is written first, so that after a crash between
the two the higher epoch is known, and the older snapshot is served until a newer one comes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import quote

from bandit_router.errors import SnapshotError, StorageError
from bandit_router.snapshot import Snapshot, write_file
from bandit_router.snapshot.announcement import (
    MAX_ANNOUNCEMENT_BYTES,
    MAX_PUBLISHED_BYTES,
    Announcement,
    decode,
    encode,
)
from bandit_router.snapshot.files import read_bytes, write_bytes

_MAX_NAME = 120


def file_name(app: str) -> str:
    """A file name for any app's name, different for different ones."""
    name = quote(app, safe="")
    if len(name) > _MAX_NAME:
        name = f"{name[:_MAX_NAME]}-{hashlib.sha256(app.encode()).hexdigest()[:16]}"
    return name


class LastGood:
    """The stored snapshot of one app.

    Args:
        folder: made when it is first written to.
        app: owner of the policy.
        key: what the announcement must be signed with; None takes an unsigned one too.
    """

    def __init__(self, folder: Path, app: str, *, key: bytes | None = None) -> None:
        self._app, self._key = app, key
        self.snapshot_path = folder / f"{file_name(app)}.brsnap"
        self.announcement_path = folder / f"{file_name(app)}.announced.json"

    def announcement(self) -> Announcement | None:
        """The newest announcement that was accepted; None when there is none.

        Raises:
            SnapshotError: it is a symbolic link, damaged, or not signed as the key demands.
            StorageError: it cannot be read.
        """
        if not _is_there(self.announcement_path):
            return None
        data = read_bytes(self.announcement_path, max_bytes=MAX_ANNOUNCEMENT_BYTES)
        try:
            return decode(data, app=self._app, key=self._key)
        except SnapshotError as error:
            raise SnapshotError(
                f"{self.announcement_path}: {error}", reason=error.reason
            ) from error

    def container(self) -> bytes | None:
        """The stored container, unverified; None when there is none.

        Raises:
            SnapshotError: it is a symbolic link, no regular file, or too large.
            StorageError: it cannot be read.
        """
        if not _is_there(self.snapshot_path):
            return None
        return read_bytes(self.snapshot_path, max_bytes=MAX_PUBLISHED_BYTES)

    def keep(self, announcement: Announcement, snapshot: Snapshot | None) -> None:
        """Store an accepted announcement and its snapshot; None where that is stored already.

        What another router process of this folder has stored since, and is newer, stays.

        Raises:
            SnapshotError: one of the files is a symbolic link.
            StorageError: the file system refused.
        """
        try:
            self.snapshot_path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {self.snapshot_path.parent}: {error}") from error
        if self._has_newer(announcement):
            return
        write_bytes(self.announcement_path, encode(announcement))
        if snapshot is not None:
            write_file(self.snapshot_path, snapshot)

    def _has_newer(self, announcement: Announcement) -> bool:
        try:
            stored = self.announcement()
        except SnapshotError as error:
            if error.reason == "symlink":
                raise
            return False  # damaged: it is replaced
        return stored is not None and stored.rank > announcement.rank


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()
