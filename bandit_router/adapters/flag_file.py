"""The flag file on disk: read whole, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from bandit_router.adapters.file_lock import exclusive
from bandit_router.errors import ConfigError, StorageError
from bandit_router.rollout.flag_document import MAX_BYTES, FlagState, flag_state, parse

LOCK_WAIT_S = 5.0
"""How long an edit waits for another one."""

_READABLE = 0o644
"""Of a new flag file: every router reads it, whoever it runs as."""


def read_bytes(path: Path) -> bytes:
    """The file's content, one byte more than allowed at most.

    Raises:
        ConfigError: it is missing or cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such flag file; `bandit-router rollout set 0` makes one"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def read_state(path: Path, flag: str) -> FlagState:
    """What the file says of ``flag``.

    Raises:
        ConfigError: the file is missing or broken, or the flag is missing or wrong.
    """
    return flag_state(parse(read_bytes(path), str(path)), flag, str(path))


def edit(
    path: Path,
    flag: str,
    change: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    replace_broken: bool = False,
) -> tuple[FlagState | None, FlagState, Path | None]:
    """Change the file in one step: readers see the old content or the new one, never a part.

    Args:
        change: from the old document to the new one, which is checked before it is written. A
            missing file is an empty document.
        replace_broken: put a file that cannot be understood aside, and begin with an empty one.

    Returns:
        (what the flag said before, what it says now, where a broken file was put).

    Raises:
        ConfigError: the file is broken, or the change would make it so; nothing was written.
        StorageError: it cannot be written, or somebody else is editing it.
    """
    path = path.resolve()  # a link stays a link
    with exclusive(
        path.with_name(path.name + ".lock"), str(path), wait_s=LOCK_WAIT_S, doing="editing"
    ):
        aside: Path | None = None
        content = read_bytes(path) if path.exists() else b'{"flags": {}}'
        try:
            document = parse(content, str(path))
        except ConfigError:
            if not replace_broken:
                raise
            aside = _set_aside(path)
            document = {"flags": {}}
        before: FlagState | None = None
        with suppress(ConfigError):
            before = flag_state(document, flag, str(path))
        document = change(document)
        after = flag_state(document, flag, str(path))
        _write(path, json.dumps(document, indent=2).encode() + b"\n")
        return before, after, aside


def _set_aside(path: Path) -> Path:
    """A copy of the file, so that there is one at its place all the time."""
    aside = path.with_name(path.name + ".broken")
    try:
        shutil.copy2(path, aside)
    except OSError as error:
        raise StorageError(f"{aside}: cannot be written: {error.strerror}") from error
    return aside


def _write(path: Path, content: bytes) -> None:
    """Temporary file, fsync, rename, fsync of the folder: also a power cut leaves a whole file."""
    try:
        mode = path.stat().st_mode & 0o777 if path.exists() else _READABLE
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from error
