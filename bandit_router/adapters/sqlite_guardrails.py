"""What the guardrails of a rollout keep in a store: their state, and the units they have seen."""

from __future__ import annotations

from bandit_router.adapters.sqlite_units import UnitLog
from bandit_router.events import clean_text


class GuardLog(UnitLog):
    """Reads a store, and keeps in it how far the guardrails are."""

    def has_unit(self, unit_id: str) -> bool:
        """Whether the unit is among those kept by :meth:`keep`."""
        found = self._rows("SELECT 1 FROM exposed_units WHERE unit_id = ?", clean_text(unit_id))
        return bool(found)

    def kept(self) -> bytes | None:
        """The state last kept, or None."""
        found = self._rows("SELECT value FROM guardrails WHERE key = 'state'")
        return found[0][0] if found else None

    def keep(self, state: bytes, units: set[str], *, forget: bool = False) -> None:
        """Keep a state, and the units that it has seen since the one before, in one step.

        ``forget`` those of before: they count anew.
        """
        with self._store.transaction("store the guardrails") as connection:
            connection.execute("INSERT OR REPLACE INTO guardrails VALUES ('state', ?)", (state,))
            if forget:
                connection.execute("DELETE FROM exposed_units")
            connection.executemany(
                "INSERT OR IGNORE INTO exposed_units VALUES (?)",
                [(clean_text(unit),) for unit in units],
            )
