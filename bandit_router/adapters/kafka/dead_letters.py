"""The form of a record in PREFIX.dead_letters: what could not be used, why, and where it came from.

The value is the original record's, null where that was null. What is known about it stands in the
headers, as texts, so that any Kafka tool can read them:

========================== =======================================================
``reason``                 a short stable token, as in :class:`EventError`
``topic``                  full name of the topic it came from or was meant for
``partition``, ``offset``  where it stood there; -1 when no broker ever took it
``app``                    the app it was filed under
``by``                     which learner or relay set it aside
``ts``                     when, seconds since the Unix epoch
``size``, ``sha256``       of the original value, which a longer one than
                           :data:`KEPT_BYTES` is cut to
``key``                    the original key, as it was
========================== =======================================================

A record with the header ``replayed`` is no letter but a receipt: the letter of that token, which
stands before it in the same partition, was sent again and need not be sent a third time.

Nothing here needs a broker or kafka-python.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import msgspec

from bandit_router.events import clean_text

KEPT_BYTES = 900_000
"""Of a longer value so many bytes are kept, so that it fits where the original did not."""

NULL = "null"
"""The reason of a record without a value, a tombstone."""

UNLABELLED = "unlabelled"
"""The reason of what stands in the topic without one: some other program wrote it."""

REPLAYED = "replayed"
"""The header of a receipt."""

Headers = tuple[tuple[str, bytes], ...]

_MAX_TOKEN = 64
_MAX_TEXT = 1024
_MAX_KEY = 1024


class DeadRecord(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A record that was set aside.

    Attributes:
        reason: short token; ``null``, ``oversize``, ``undecodable``, ``unknown_version``,
            ``invalid`` as in :class:`~bandit_router.errors.EventError`, or a relay's.
        value: the original value, of which at most :data:`KEPT_BYTES` are kept in Kafka.
        topic: full name of the topic it came from, or was meant for.
        partition / offset: where it stood there; -1 when no broker ever took it.
        app: the app it was filed under; "" when nobody knows.
        by: which learner or relay set it aside.
        ts: when, seconds since the Unix epoch.
        key: the original key.
        size: bytes of the original value; 0 for null.
        sha256: of the original value, hexadecimal; "" for null.
    """

    reason: str
    value: bytes | None
    topic: str
    partition: int = -1
    offset: int = -1
    app: str = ""
    by: str = ""
    ts: float = 0.0
    key: bytes = b""
    size: int = 0
    sha256: str = ""

    @property
    def whole(self) -> bool:
        """Whether ``value`` is all of the original."""
        return self.size == len(self.value or b"")

    @property
    def token(self) -> str:
        """What identifies the original: a letter that was written twice has the same one twice.

        The hash tells it from another record at the same place of a topic that was made anew.
        """
        if self.offset < 0:
            return f"sha256:{self.sha256}"
        return f"{self.topic}/{self.partition}/{self.offset}/{self.sha256[:16]}"


def set_aside(
    reason: str,
    value: bytes | None,
    *,
    topic: str,
    ts: float,
    partition: int = -1,
    offset: int = -1,
    app: str = "",
    by: str = "",
    key: bytes | None = None,
) -> DeadRecord:
    """The dead record of a value, with its size and hash; see :class:`DeadRecord`.

    A null value has the reason ``null``, whatever ``reason`` says.
    """
    return DeadRecord(
        reason=NULL if value is None else reason,
        value=value,
        topic=topic,
        partition=partition,
        offset=offset,
        app=app,
        by=by,
        ts=ts,
        key=key or b"",
        size=len(value or b""),
        sha256="" if value is None else hashlib.sha256(value).hexdigest(),
    )


def encode_dead(record: DeadRecord) -> tuple[bytes | None, Headers]:
    """Value and headers of the Kafka record. Deterministic; at most 1 MB together."""
    value = None if record.value is None else record.value[:KEPT_BYTES]
    headers = (
        ("reason", _text(record.reason, _MAX_TOKEN)),
        ("topic", _text(record.topic, _MAX_TEXT)),
        ("partition", b"%d" % record.partition),
        ("offset", b"%d" % record.offset),
        ("app", _text(record.app, _MAX_TEXT)),
        ("by", _text(record.by, _MAX_TEXT)),
        ("ts", repr(record.ts).encode()),
        ("size", b"%d" % record.size),
        ("sha256", _text(record.sha256, _MAX_TOKEN)),
        ("key", record.key[:_MAX_KEY]),
    )
    return value, headers


def decode_dead(value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> DeadRecord:
    """The dead record in a Kafka record. Total: what is missing or wrong has its default.

    Of a header that stands there twice the first counts.
    """
    found: dict[str, bytes] = {}
    for name, content in headers:
        found.setdefault(name, content or b"")
    texts = {
        name: found.get(name, b"")[:_MAX_TEXT].decode("utf-8", "replace")
        for name in ("reason", "topic", "app", "by", "sha256")
    }
    return DeadRecord(
        reason=texts["reason"] or (NULL if value is None else UNLABELLED),
        value=value,
        topic=texts["topic"],
        partition=_whole(found.get("partition"), -1),
        offset=_whole(found.get("offset"), -1),
        app=texts["app"],
        by=texts["by"],
        ts=_seconds(found.get("ts")),
        key=found.get("key", b""),
        size=_whole(found.get("size"), len(value or b"")),
        sha256=texts["sha256"],
    )


def receipt(token: str) -> Headers:
    """Headers of the receipt for a letter that was sent again; its value is empty."""
    return ((REPLAYED, _text(token, _MAX_TEXT)),)


def receipt_of(headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    """The token that a receipt is for; None for a letter."""
    for name, content in headers:
        if name == REPLAYED:
            return (content or b"").decode("utf-8", "replace")
    return None


def _text(text: str, most: int) -> bytes:
    return clean_text(text).encode()[:most]


def _whole(content: bytes | None, default: int) -> int:
    try:
        number = int((content or b"")[:20])
    except ValueError:
        return default
    return number if -1 <= number < 2**63 else default


def _seconds(content: bytes | None) -> float:
    try:
        number = float((content or b"")[:40])
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0
