"""Snapshots as files: written so that a reader sees the old one or the new one, never a half."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from bandit_router.errors import SnapshotError, StorageError
from bandit_router.snapshot.container import MAX_BYTES, Snapshot, unpack


def write_file(path: Path, snapshot: Snapshot) -> None:
    """Write to a temporary file beside ``path``, fsync, rename over it, fsync the folder.

    Raises:
        SnapshotError: ``path`` is a symbolic link.
        StorageError: the file system refused; ``path`` is as it was.
    """
    if path.is_symlink():
        raise SnapshotError(f"{path} is a symbolic link; a snapshot is never written through one")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(temporary, flags, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(snapshot.data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write the snapshot {path}: {error}") from error


def read_file(path: Path, *, key: bytes | None = None, max_bytes: int = MAX_BYTES) -> Snapshot:
    """Read and verify one snapshot.

    Raises:
        SnapshotError: it is a symbolic link, no regular file, too large, or does not verify.
        StorageError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise SnapshotError(f"{path} is no regular file")
            if status.st_size > max_bytes:
                raise SnapshotError(
                    f"{path}: {status.st_size} bytes are more than the {max_bytes} allowed"
                )
            data = file.read(max_bytes + 1)
    except OSError as error:
        if path.is_symlink():
            raise SnapshotError(
                f"{path} is a symbolic link; snapshots are never followed"
            ) from error
        raise StorageError(f"cannot read the snapshot {path}: {error}") from error
    try:
        return unpack(data, key=key, max_bytes=max_bytes)
    except SnapshotError as error:
        raise SnapshotError(f"{path}: {error}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
