"""Named arrays and scalars to bytes and back: deterministic, checked, without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from bandit_router.errors import SnapshotError


def pack(kind: str, values: Mapping[str, Any]) -> bytes:
    """Values (numbers, text, bytes, lists of them, float64 arrays) under a kind, as msgpack.

    Array contents are little-endian float64, so equal states give equal bytes on every machine.
    """
    encoded = {
        name: {"shape": list(value.shape), "f8": np.ascontiguousarray(value, "<f8").tobytes()}
        if isinstance(value, np.ndarray)
        else value
        for name, value in values.items()
    }
    return msgspec.msgpack.encode({"kind": kind, "values": encoded})


def unpack(kind: str, data: bytes) -> dict[str, Any]:
    """Inverse of :func:`pack`.

    Raises:
        SnapshotError: the bytes are no such state, of another kind, or a number is not finite.
    """
    try:
        whole = msgspec.msgpack.decode(data)
        found, values = whole["kind"], whole["values"]
        if found != kind:
            raise SnapshotError(f"this state is of a {found!r}, not of a {kind!r}")
        return {name: _value(name, value) for name, value in values.items()}
    except (
        msgspec.DecodeError, RecursionError, KeyError, TypeError, AttributeError, ValueError
    ) as error:  # fmt: skip
        raise SnapshotError(f"this is no state of a {kind!r}: {error}") from error


def _value(name: str, value: Any) -> Any:
    if isinstance(value, dict) and "f8" in value:
        value = np.frombuffer(value["f8"], "<f8").reshape(value["shape"]).astype(np.float64)
    if isinstance(value, float | np.ndarray) and not np.isfinite(value).all():
        raise SnapshotError(f"state {name!r} holds a number that is not finite")
    return value
