"""Send dead letters again that are valid by now, each once; say of the others why they stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from bandit_router.adapters.kafka.dead_letters import DeadRecord, set_aside
from bandit_router.adapters.letters import Fresh, Letter, Letters
from bandit_router.errors import EventError, InputError, StorageError, TransportError
from bandit_router.events import MAX_EVENT_BYTES, Change, decode

Status = Literal["sent", "ready", "sent_before", "invalid", "failed"]

FORGED = "forged_app"

_BATCH_EVENTS, _BATCH_BYTES = 200, 4_000_000


class Resent(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What became of one dead letter, or line of a file.

    Attributes:
        status: ``sent``; ``ready``, which a dry run does not send; ``sent_before``; ``invalid``
            still; or ``failed``, refused by the broker.
        detail: why, for the last two.
        event_id: of the event; "" of a change, or of what is none.
    """

    record: DeadRecord
    partition: int | None
    offset: int
    status: Status
    detail: str = ""
    event_id: str = ""


def resend(place: Letters, *, reason: str | None = None, dry_run: bool = False) -> Iterator[Resent]:
    """Send the letters of ``place`` that are valid now, with that reason or with any.

    Those with the reason ``forged_app``, whose key and app differ, are sent to the app that they
    name when they are asked for by their reason, and else left where they are.

    Raises:
        TransportError, StorageError: it failed and may be tried again; what was given before then
            has been dealt with.
    """
    chosen = (
        letter
        for letter in place.letters()
        if letter.dead
        and (letter.record.reason == reason or (reason is None and letter.record.reason != FORGED))
    )
    yield from _send_all(place, chosen, dry_run=dry_run)


def resend_file(place: Letters, path: Path, *, dry_run: bool = False) -> Iterator[Resent]:
    """Send the events of a file, one JSON object a line; none unless every line is one.

    Raises:
        InputError: the file cannot be read, or a line is no valid event.
        TransportError, StorageError: as :func:`resend`.
    """
    for letter in _lines(path):
        try:
            decode(letter.record.value)
        except EventError as error:
            raise InputError(f"{path}, line {letter.offset}: {error}; nothing was sent") from error
    yield from _send_all(place, _lines(path), dry_run=dry_run)


def _lines(path: Path) -> Iterator[Letter]:
    """The lines of a file as letters, those that are not empty."""
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_EVENT_BYTES + 2):
                number += 1
                if data := line.strip():
                    record = set_aside("file", data, topic=str(path), ts=0.0)
                    yield Letter(record=record, partition=None, offset=number, replayed=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def _send_all(place: Letters, letters: Iterable[Letter], *, dry_run: bool) -> Iterator[Resent]:
    batch: list[tuple[Letter, Fresh]] = []
    taken: set[str] = set()
    for letter in letters:
        fresh = _fresh(letter)
        if isinstance(fresh, Resent):
            yield fresh
        elif letter.replayed or fresh.token in taken or place.sent_before(fresh):
            yield _resent(letter, fresh, "sent_before")
        elif dry_run:
            taken.add(fresh.token)
            yield _resent(letter, fresh, "ready")
        else:
            taken.add(fresh.token)
            batch.append((letter, fresh))
            size = sum(len(waiting.data) for _, waiting in batch)
            if len(batch) >= _BATCH_EVENTS or size >= _BATCH_BYTES:
                yield from _send(place, batch)
                batch = []
    if batch:
        yield from _send(place, batch)


def _fresh(letter: Letter) -> Fresh | Resent:
    """The event of a letter, or why it has none."""
    record = letter.record
    if not record.whole:
        detail = f"only {len(record.value or b'')} of its {record.size} bytes were kept"
        return _resent(letter, None, "invalid", detail)
    try:
        event = decode(record.value)
    except EventError as error:
        return _resent(letter, None, "invalid", f"{error.reason}: {error}")
    return Fresh(
        data=record.value or b"", event=event, token=record.token, partition=letter.partition
    )


def _send(place: Letters, batch: list[tuple[Letter, Fresh]]) -> Iterator[Resent]:
    """Send together; one by one when something in it will never be taken."""
    try:
        place.send([fresh for _, fresh in batch])
    except (StorageError, TransportError) as error:
        if error.retriable:
            raise
        if len(batch) == 1:
            yield _resent(*batch[0], "failed", str(error))
            return
        for one in batch:
            yield from _send(place, [one])
        return
    for letter, fresh in batch:
        yield _resent(letter, fresh, "sent")


def _resent(letter: Letter, fresh: Fresh | None, status: Status, detail: str = "") -> Resent:
    event = fresh and fresh.event
    return Resent(
        record=letter.record,
        partition=letter.partition,
        offset=letter.offset,
        status=status,
        detail=detail,
        event_id="" if event is None or isinstance(event, Change) else event.event_id,
    )
