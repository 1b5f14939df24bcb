"""Who is bucketed: the unit of a request, derived where the request names none."""

from __future__ import annotations

from bandit_router.events import MAX_ID_CHARS, clean_text
from bandit_router.types import Context

SESSION_COLUMN = "session"
"""The context column that names the session."""


def unit_of(context: Context) -> tuple[str, str]:
    """(unit, what it was derived from: ``""``, ``session``, ``tenant`` or ``event``).

    A request without ``unit_id`` is bucketed by its session, else by its tenant, else by itself. A
    derived unit begins with what it was derived from, so it never meets a given one by chance. The
    unit is in the form in which it is logged, so its bucket can be found again from the log.
    """
    if context.unit_id:
        return _logged(context.unit_id), ""
    session = context.columns.get(SESSION_COLUMN, "")
    if session:
        return _logged(f"session:{session}"), "session"
    if context.tenant:
        return _logged(f"tenant:{context.tenant}"), "tenant"
    return _logged(f"event:{context.event_id}"), "event"


def _logged(text: str) -> str:
    return clean_text(text[:MAX_ID_CHARS])
