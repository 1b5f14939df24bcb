"""The demo's folder: whose it is, with which settings, and that one process at a time works in it.

``settings.json`` is written before anything else, so a folder without it is not the demo's and
nothing in it is touched.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from bandit_router.errors import InputError, StorageError
from bandit_router.report.document import write_whole

SETTINGS = "settings.json"
DATABASE = "demo.db"
EMBEDDINGS = "embeddings"
RESULTS = ("report.json", "report.html", "demo.json")
CONFIGURATION = "kafka.toml"
OUTBOX = "outbox.db"
STREAMING = "streaming"
LEARNER_LOG = "learner.log"
_LOCK = ".lock"
_OWN = (SETTINGS, DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", *RESULTS)
_STREAMED = (CONFIGURATION, LEARNER_LOG, f"{OUTBOX}*", STREAMING)
_EARLIER = {EMBEDDINGS, _LOCK}
"""What a folder without settings may have: left by ``fresh``, or brought along."""


class DemoSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a demo run is made from; everything else follows.

    Attributes:
        log_sha256: digest of the log's files.
        queries: how many queries of it are routed.
        seed: of everything random.
        quality_value_usd: what one fully good answer is worth, USD.
        transport: through what its events go.
    """

    schema: Literal["bandit_router.demo_settings/1"] = "bandit_router.demo_settings/1"
    log_sha256: str
    queries: int
    seed: int
    quality_value_usd: float
    transport: Literal["sqlite", "kafka"] = "sqlite"


@contextmanager
def claimed(folder: Path, settings: DemoSettings, *, fresh: bool = False) -> Iterator[None]:
    """Hold ``folder`` for a run with these settings; made when it is missing.

    Args:
        fresh: forget an earlier run in it, whatever its settings. Its embeddings are kept.

    Raises:
        InputError: the folder is a file, has foreign content, belongs to a demo with other
            settings, or another process works in it.
        StorageError: it cannot be made or written to.
    """
    _check_foreign(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("a")
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written to: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"{folder}: another demo is running in it; use another --out"
            ) from error
        _settle(folder, settings, fresh=fresh)
        yield


def forget_streamed(folder: Path) -> None:
    """Remove what a demo over Kafka left, its reports excepted."""
    for path in (found for pattern in _STREAMED for found in folder.glob(pattern)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _check_foreign(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder with --out")
    names = {path.name for path in folder.iterdir()}
    if SETTINGS not in names and names - _EARLIER:
        raise InputError(
            f"{folder}: is not empty and holds no demo (it has no {SETTINGS}); name another folder "
            "with --out"
        )


def _settle(folder: Path, settings: DemoSettings, *, fresh: bool) -> None:
    """Take up the run that is in the folder, or begin one."""
    path = folder / SETTINGS
    if path.exists():
        found = _read(path)
        if fresh:
            # The settings go last, so that a crash in between leaves a folder that is known.
            forget_streamed(folder)
            for name in reversed(_OWN):
                (folder / name).unlink(missing_ok=True)
        elif found != settings:
            raise InputError(
                f"{folder}: holds a demo with {_differences(found, settings)}; use these options "
                "again, name another folder with --out, or begin anew with --fresh"
            )
    if not path.exists():
        write_whole(path, msgspec.json.format(msgspec.json.encode(settings)) + b"\n")


def _read(path: Path) -> DemoSettings:
    try:
        return msgspec.json.decode(path.read_bytes(), type=DemoSettings)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not the settings of a demo of this version ({error}); name another folder "
            "with --out, or remove this one"
        ) from error


def _differences(found: DemoSettings, wanted: DemoSettings) -> str:
    named = {"queries": "--limit", "seed": "--seed", "quality_value_usd": "--quality-value"}
    named["transport"] = "transport (--kafka)"
    parts = [
        f"{named.get(field, field)} {getattr(found, field)} instead of {getattr(wanted, field)}"
        for field in found.__struct_fields__
        if getattr(found, field) != getattr(wanted, field)
    ]
    return ", ".join(parts)
