"""Event ids, and text that UTF-8 can carry."""

from __future__ import annotations

import math
from typing import Any

from bandit_router.errors import EventError


def clean_text(text: str) -> str:
    """``text`` with each lone surrogate replaced by U+FFFD, so that UTF-8 can carry it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def clean_json(value: Any) -> Any:
    """A JSON value with :func:`clean_text` applied to every text in it, keys included."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_json(key): clean_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(item) for item in value]
    return value


def uuid7(ts: float, random: bytes) -> str:
    """A UUIDv7 (RFC 9562, section 5.7) from a time and 10 random bytes, both given by the caller.

    Args:
        ts: seconds since the Unix epoch, in [0, 2**48 / 1000).
        random: 10 bytes; 74 of their bits are used.

    Raises:
        EventError: ``ts`` is out of range or ``random`` is not 10 bytes.
    """
    milliseconds = int(ts * 1000.0) if math.isfinite(ts) else -1
    if not 0 <= milliseconds < 2**48:
        raise EventError(f"field ts: {ts!r} has no UUIDv7")
    if len(random) != 10:
        raise EventError(f"a UUIDv7 needs 10 random bytes, not {len(random)}")
    bits = int.from_bytes(random, "big")
    value = (
        milliseconds << 80 | 0x7 << 76 | (bits >> 62 & 0xFFF) << 64 | 0b10 << 62 | bits & 2**62 - 1
    )
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
