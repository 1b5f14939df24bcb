"""A rollback as it stands in the flag file: which one is in force, and whether it was lifted.

The notes are metadata of the flag, strings and numbers as flagd has them. Several apps may share a
flag, so there may be several rollbacks. One is in force until a person lifts it, or its cool-down
is over.
"""

from __future__ import annotations

from typing import Any

import msgspec

from bandit_router.rollout.flag_document import (
    FlagState,
    metadata_of,
    switched_off,
    why_of,
    with_metadata,
)

_IN_FORCE, _LIFTED = "rollback", "rollbackLifted"
_UNTIL = "rollbackUntil"
FOREVER = -1.0
"""The end of a rollback that has no cool-down."""


class Rollback(msgspec.Struct, frozen=True, kw_only=True):
    """The rollbacks that are noted in a flag.

    Attributes:
        ids: of those in force.
        lifted: ids of those that a person has lifted.
        until: when the last cool-down is over, seconds since the Unix epoch, or :data:`FOREVER`.
        why: the reason of the last one.
    """

    ids: tuple[str, ...] = ()
    lifted: tuple[str, ...] = ()
    until: float = FOREVER
    why: str = ""

    def holds(self, now: float) -> bool:
        """Whether the bandit may not be switched on again."""
        return bool(self.ids) and (self.until == FOREVER or now < self.until)


def rollback_of(document: dict[str, Any], flag: str) -> Rollback:
    """What a document says of rollbacks of ``flag``. What is no such note counts as none."""
    notes = metadata_of(document, flag)
    until = notes.get(_UNTIL, FOREVER)
    return Rollback(
        ids=_ids(notes.get(_IN_FORCE)),
        lifted=_ids(notes.get(_LIFTED)),
        until=float(until) if isinstance(until, int | float) else FOREVER,
        why=why_of(document, flag),
    )


def rolled_back(
    document: dict[str, Any], flag: str, rollback_id: str, why: str, until: float
) -> dict[str, Any]:
    """``document`` with the flag off, and a rollback noted. ``until``: as in :class:`Rollback`."""
    known = rollback_of(document, flag)
    if known.ids and FOREVER in (until, known.until):
        until = FOREVER
    elif known.ids:
        until = max(until, known.until)
    ids = " ".join(dict.fromkeys((*known.ids, rollback_id)))
    off = switched_off(document, flag, why)
    return with_metadata(off, flag, **{_IN_FORCE: ids, _UNTIL: until})


def lifted(document: dict[str, Any], flag: str) -> dict[str, Any]:
    """``document`` with every rollback in it lifted."""
    known = rollback_of(document, flag)
    ids = " ".join(dict.fromkeys((*known.lifted, *known.ids)))
    return with_metadata(document, flag, **{_IN_FORCE: "", _UNTIL: "", _LIFTED: ids})


def serves_bandit(state: FlagState) -> bool:
    """Whether anybody may be served by the bandit's draws, the uniform holdout included."""
    percent = state.percent
    return percent is None or percent["bandit"] + percent["explore"] > 0.0


def _ids(noted: object) -> tuple[str, ...]:
    return tuple(noted.split()) if isinstance(noted, str) else ()
