"""One process at a time: an advisory lock that ends with the process, however it ends."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bandit_router.errors import StorageError

_POLL_S = 0.02


@contextmanager
def exclusive(
    path: Path, what: str, *, wait_s: float = 0.0, doing: str = "learning on"
) -> Iterator[None]:
    """Hold the lock file ``path``, made when it is missing and left in place.

    Args:
        what: what is locked, for the message.
        wait_s: how long to wait for another holder, seconds, >= 0.
        doing: what the holder does with it, for the message.

    Raises:
        StorageError: somebody else holds it (``retriable``), or the file cannot be written to.
    """
    try:
        file = path.open("a")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written to: {error.strerror}") from error
    with file:
        deadline = time.monotonic() + wait_s
        while not _taken(file.fileno()):
            if time.monotonic() >= deadline:
                raise StorageError(
                    f"{what}: another process is {doing} it; stop that one, or try again later"
                )
            time.sleep(_POLL_S)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
