"""Snapshots as files: written so that a reader sees the old one or the new one, never a half.

Neither is a symbolic link ever followed, nor anything read that is no regular file or too large.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from bandit_router.errors import SnapshotError, StorageError
from bandit_router.snapshot.container import MAX_BYTES, Snapshot, unpack


def write_file(path: Path, snapshot: Snapshot) -> None:
    """As :func:`write_bytes`, of a snapshot's container."""
    write_bytes(path, snapshot.data)


def write_bytes(path: Path, data: bytes) -> None:
    """Write to a temporary file beside ``path``, fsync, rename over it, fsync the folder.

    Raises:
        SnapshotError: ``path`` is a symbolic link.
        StorageError: the file system refused; ``path`` is as it was.
    """
    if path.is_symlink():
        raise SnapshotError(
            f"{path} is a symbolic link; nothing is ever written through one", reason="symlink"
        )
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        try:
            descriptor = os.open(temporary, flags, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error


def read_file(path: Path, *, key: bytes | None = None, max_bytes: int = MAX_BYTES) -> Snapshot:
    """Read and verify one snapshot.

    Raises:
        SnapshotError: it is a symbolic link, no regular file, too large, or does not verify.
        StorageError: it cannot be read.
    """
    data = read_bytes(path, max_bytes=max_bytes)
    try:
        return unpack(data, key=key, max_bytes=max_bytes)
    except SnapshotError as error:
        raise SnapshotError(f"{path}: {error}", reason=error.reason) from error


def read_bytes(path: Path, *, max_bytes: int) -> bytes:
    """The content of a regular file of at most ``max_bytes``.

    Raises:
        SnapshotError: it is a symbolic link, no regular file, or too large.
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
                    f"{path}: {status.st_size} bytes are more than the {max_bytes} allowed",
                    reason="size",
                )
            return file.read(max_bytes + 1)
    except OSError as error:
        if path.is_symlink():
            raise SnapshotError(
                f"{path} is a symbolic link; it is not followed", reason="symlink"
            ) from error
        raise StorageError(f"cannot read {path}: {error}") from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
