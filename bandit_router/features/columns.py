"""Free request metadata, brought to a bounded and deterministic form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bandit_router.features.text import without_surrogates

COLUMNS_VERSION = 1
"""Raised whenever the rules below change: it is part of the featurizer's identity."""

MAX_COLUMNS = 16
MAX_COLUMN_CHARS = 64
_LONGEST_LOOKED_AT = 1024
_FORBIDDEN = re.compile(r"[^a-z0-9_]+")


def _key(name: object) -> str:
    """A name as ``[a-z0-9_]``, at most 64 characters; anything else becomes an underscore."""
    text = name if type(name) is str else str(name)
    return _FORBIDDEN.sub("_", text[:_LONGEST_LOOKED_AT].strip().lower())[:MAX_COLUMN_CHARS]


def _value(value: object) -> str:
    """A value as stripped text of at most 64 characters that encodes as UTF-8."""
    if type(value) is not str:
        value = "" if value is None else str(value)
    return without_surrogates(value[:_LONGEST_LOOKED_AT]).strip()[:MAX_COLUMN_CHARS]


def normalise_columns(columns: Mapping[str, Any]) -> dict[str, str]:
    """Context columns with keys in ``[a-z0-9_]``, short stripped values, in ascending key order.

    Numbers, booleans and other values are taken as their text; None and blank values are left out;
    so are keys with no usable character. When two keys become equal, the one that sorts first as
    given wins; of more than 16 columns the first 16 in order of the normalised key are kept.
    """
    if not columns:
        return {}
    kept: dict[str, str] = {}
    for name in sorted(columns, key=str):
        key, value = _key(name), _value(columns[name])
        if value and key.strip("_"):
            kept.setdefault(key, value)
    return dict(sorted(kept.items())[:MAX_COLUMNS])
