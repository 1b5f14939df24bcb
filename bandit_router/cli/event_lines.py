"""How records and dead letters are shown: one line each for people, plain values for --json.

Everything in them came from outside. Whatever a terminal could take for a command, or what turns
the direction of a text, is shown as an escape.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bandit_router.adapters.kafka.dead_letters import DeadRecord
    from bandit_router.adapters.letters import Letter
    from bandit_router.adapters.records import Record

LINE_CHARS = 400
"""Of a record so much is shown to people."""

HEAD_BYTES = 400
"""Of what is no event so much is told, in JSON too."""

EVENT_TOPICS = ("decisions", "outcomes", "changes")


def printable(text: str) -> str:
    """``text`` with every character that is not printable as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escaped(data: bytes | None, most: int = HEAD_BYTES) -> str:
    """The first ``most`` bytes as text; what is not UTF-8 and not printable as escapes."""
    if data is None:
        return "(null)"
    shown = printable(data[:most].decode("utf-8", "backslashreplace"))
    return shown if len(data) <= most else f"{shown}... ({len(data)} bytes)"


def when(ts: float | None) -> str:
    """A time for people, UTC; ``-`` when it is unknown or out of any calendar."""
    if ts is None or not 0.0 < ts < 2**37:
        return "-"
    return datetime.fromtimestamp(ts, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def record_line(record: Record) -> str:
    """One record for people."""
    place = _place(record.topic, record.partition, record.offset)
    key = "" if record.key is None else f" {escaped(record.key, 80)}"
    return f"{when(record.ts)} {place}{key} {_content(record)}"


def record_values(record: Record) -> dict[str, Any]:
    """One record for --json."""
    from bandit_router.adapters.kafka.dead_letters import decode_dead
    from bandit_router.errors import EventError

    values: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "ts": record.ts,
        "key": None if record.key is None else escaped(record.key),
        "size": len(record.value or b""),
    }
    if record.topic == "dead_letters" and record.partition is not None:
        dead = decode_dead(record.value, record.headers)
        return {**values, "letter": letter_values(dead)}
    if record.topic in EVENT_TOPICS:
        try:
            return {**values, "event": _event(record.value)}
        except EventError as error:
            values |= {"reason": error.reason, "message": printable(str(error))}
    return {**values, "data": escaped(record.value)}


def letter_values(record: DeadRecord) -> dict[str, Any]:
    """A dead letter for --json."""
    return {
        "reason": printable(record.reason),
        "topic": printable(record.topic),
        "partition": None if record.partition < 0 else record.partition,
        "offset": None if record.offset < 0 else record.offset,
        "app": printable(record.app),
        "by": printable(record.by),
        "ts": record.ts or None,
        "size": record.size,
        "sha256": printable(record.sha256),
        "data": escaped(record.value, 200),
    }


def letter_line(letter: Letter) -> str:
    """A dead letter for people."""
    record = letter.record
    mark = " [sent again]" if letter.replayed else ""
    return f"{when(record.ts)} {_dead(record)}{mark}"


def _dead(record: DeadRecord) -> str:
    source = _place(
        printable(record.topic) or "?",
        None if record.partition < 0 else record.partition,
        None if record.offset < 0 else record.offset,
    )
    return (
        f"{printable(record.reason)}: {source}, {record.size} bytes: {escaped(record.value, 120)}"
    )


def _content(record: Record) -> str:
    from bandit_router.adapters.kafka.dead_letters import decode_dead, receipt_of
    from bandit_router.errors import EventError

    if record.topic == "dead_letters" and record.partition is not None:
        token = receipt_of(record.headers)
        if token is not None:
            return f"sent again: {printable(token)}"
        return _dead(decode_dead(record.value, record.headers))
    shown = escaped(record.value, LINE_CHARS)
    if record.topic not in {*EVENT_TOPICS, "dead_letters"}:
        return shown
    try:
        _event(record.value)
    except EventError as error:
        return f"[{error.reason}] {shown}"
    return shown


def _event(data: bytes | None) -> Any:
    """The event as plain JSON values. Raises EventError when it is none."""
    import msgspec

    from bandit_router.events import decode

    decode(data)
    return msgspec.json.decode(data or b"")


def _place(topic: str, partition: int | None, offset: int | None) -> str:
    where = topic if partition is None else f"{topic}/{partition}"
    return where if offset is None else f"{where}@{offset}"
