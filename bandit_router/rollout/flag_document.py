"""A flag file's content, in flagd's format: checked when it is read, and before it is written.

A document is a JSON object whose ``flags`` hold flags by name. Ours is a string flag whose variants
are named as their values, some of ``bandit``, ``shadow``, ``static`` and ``explore``. Other flags
and other keys are nobody's business here and stay as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec

from bandit_router.errors import ConfigError
from bandit_router.rollout.split import Split, split_of
from bandit_router.rollout.variants import VARIANTS

MAX_BYTES = 1_000_000
"""Of a flag file: it is read again and again."""

ENABLED, DISABLED = "ENABLED", "DISABLED"

WHY = "why"
"""The note that says why the flag was changed last."""

MAX_WHY_CHARS = 500


class FlagState(msgspec.Struct, frozen=True, kw_only=True):
    """What a flag says.

    Attributes:
        enabled: False is the kill switch: the incumbent serves everybody.
        split: the shares, or None where the targeting is not one plain ``fractional``.
        default: the variant where the targeting gives none; "" for ``static``.
        version: a digest of all that decides: equal versions, equal assignments.
        why: the reason that was given with the last change; "" for none.
    """

    enabled: bool
    split: Split | None
    default: str
    version: str
    why: str = ""

    @property
    def percent(self) -> dict[str, float] | None:
        """The share of units that each variant serves, percent, or None where it is unknown."""
        if not self.enabled:
            return dict.fromkeys(VARIANTS, 0.0) | {"static": 100.0}
        return None if self.split is None else self.split.percent


def parse(content: bytes, where: str) -> dict[str, Any]:
    """The document of a file's content.

    Raises:
        ConfigError: it is no JSON object with flags, or too large.
    """
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{where}: more than {MAX_BYTES} bytes; a flag file is far smaller")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not a JSON file: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("flags"), dict):
        raise ConfigError(f'{where}: not a flag file: {{"flags": {{...}}}} is missing')
    return document


def flag_state(document: dict[str, Any], flag: str, where: str) -> FlagState:
    """What ``flag`` says.

    Raises:
        ConfigError: the flag is missing, or names a variant that it lacks or that does not exist.
    """
    definition = document["flags"].get(flag)
    place = f"{where}: flag {flag!r}"
    if not isinstance(definition, dict):
        raise ConfigError(f"{place} is missing; `bandit-router rollout set 0` makes it")
    state = definition.get("state")
    if state not in (ENABLED, DISABLED):
        raise ConfigError(f"{place}: state {state!r:.40} must be {ENABLED!r} or {DISABLED!r}")
    variants = _variants(definition, place)
    default = definition.get("defaultVariant") or ""
    targeting = definition.get("targeting") or None
    for name in ([default] if default else []) + list(_named(targeting)):
        if name not in variants:
            known = ", ".join(variants)
            raise ConfigError(f"{place} lacks the variant {name!r:.40}; it has {known}")
    alone = Split(((default or "static", 1),))
    return FlagState(
        enabled=state == ENABLED,
        split=alone if targeting is None else split_of(targeting),
        default=default,
        version=_version(definition, document.get("$evaluators")),
        why=why_of(document, flag),
    )


def _variants(definition: dict[str, Any], place: str) -> list[str]:
    variants = definition.get("variants")
    if not isinstance(variants, dict) or not variants:
        raise ConfigError(f"{place}: variants are missing; they are {', '.join(VARIANTS)}")
    for name, value in variants.items():
        if name not in VARIANTS or value != name:
            raise ConfigError(
                f"{place}: variant {name!r:.40} with the value {value!r:.40}; a variant is one of "
                f"{', '.join(VARIANTS)} and has its name as its value"
            )
    return list(variants)


def _named(targeting: Any) -> Iterator[str]:
    """Every variant that a ``fractional`` anywhere in the targeting can give."""
    if isinstance(targeting, dict):
        for operator, arguments in targeting.items():
            if operator == "fractional" and isinstance(arguments, list):
                yield from (p[0] for p in arguments if isinstance(p, list) and _is_part(p))
            yield from _named(arguments)
    elif isinstance(targeting, list):
        for item in targeting:
            yield from _named(item)


def _is_part(pair: list[Any]) -> bool:
    return 1 <= len(pair) <= 2 and isinstance(pair[0], str)


def with_split(document: dict[str, Any], flag: str, shares: Split, why: str = "") -> dict[str, Any]:
    """``document`` with the flag on, at these shares, and why."""
    definition = _definition(document, flag) | {
        "state": ENABLED,
        "variants": {variant: variant for variant in VARIANTS},
        "defaultVariant": "static",
        "targeting": {"fractional": [list(part) for part in shares.parts]},
    }
    return with_metadata(_with(document, flag, definition), flag, **{WHY: why})


def switched_off(document: dict[str, Any], flag: str, why: str = "") -> dict[str, Any]:
    """``document`` with the flag off, and why.

    Its shares stay, to be seen, unless they are unusable.
    """
    off = _definition(document, flag) | {
        "state": DISABLED,
        "variants": {variant: variant for variant in VARIANTS},
        "defaultVariant": "static",
    }
    if any(name not in VARIANTS for name in _named(off.get("targeting"))):
        del off["targeting"]
    return with_metadata(_with(document, flag, off), flag, **{WHY: why})


def metadata_of(document: dict[str, Any], flag: str) -> dict[str, Any]:
    """What is noted with the flag."""
    metadata = _definition(document, flag).get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def why_of(document: dict[str, Any], flag: str) -> str:
    """Why the flag was changed last, fit to be logged and shown: printable, of bounded length."""
    why = str(metadata_of(document, flag).get(WHY, ""))[:MAX_WHY_CHARS]
    return "".join(letter if letter.isprintable() else " " for letter in why)


def with_metadata(document: dict[str, Any], flag: str, **notes: str | float) -> dict[str, Any]:
    """``document`` with notes on the flag; "" takes one away. They decide nothing."""
    metadata = metadata_of(document, flag) | notes
    kept = {name: value for name, value in metadata.items() if value != ""}
    definition = {k: v for k, v in _definition(document, flag).items() if k != "metadata"}
    return _with(document, flag, definition | ({"metadata": kept} if kept else {}))


def _definition(document: dict[str, Any], flag: str) -> dict[str, Any]:
    known = document.get("flags", {}).get(flag)
    return known if isinstance(known, dict) else {}


def _with(document: dict[str, Any], flag: str, definition: dict[str, Any]) -> dict[str, Any]:
    return document | {"flags": document.get("flags", {}) | {flag: definition}}


def _version(definition: dict[str, Any], evaluators: Any) -> str:
    text = json.dumps([definition, evaluators], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
