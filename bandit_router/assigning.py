"""Which variant a request is served in: the flag is asked by unit, and the incumbent is named."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from bandit_router.config import Settings
from bandit_router.events import Change
from bandit_router.rollout.incumbent import Incumbent
from bandit_router.rollout.units import unit_of
from bandit_router.rollout.variants import VARIANTS, Assignment, Variant
from bandit_router.types import Context

if TYPE_CHECKING:
    from bandit_router.adapters.flags import Answer, Flags

FLAG_OFF, FLAG_ERROR = "flag_off", "flag_error"
"""Rules of decisions that the incumbent serves because the flag is off, or has no usable answer."""


class Assigner:
    """Assigns requests to variants. Any thread may call it.

    A unit keeps its variant as long as the flag's shares stay. Where the flag has no usable answer
    the incumbent serves, and the decision says so: what nobody decided on is never explored.
    """

    def __init__(self, flags: Flags, incumbent: Incumbent) -> None:
        self._flags, self._incumbent = flags, incumbent
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._error = ""

    def assign(self, context: Context) -> Assignment:
        """The variant of the request's unit. Never raises for what the flag answers."""
        unit_id, derived = unit_of(context)
        attributes = context.columns | {"tenant": context.tenant}
        answer = self._flags.ask(unit_id, attributes)
        variant, rules = self._variant(answer)
        if derived:
            rules = (*rules, f"derived_unit:{derived}")
        with self._lock:
            self._counts[variant] += 1
            if derived:
                self._counts[f"derived_unit:{derived}"] += 1
        return Assignment(
            unit_id=unit_id, variant=variant, incumbent=self._incumbent.of(context), rules=rules
        )

    def changes(self, apps: Sequence[str], *, known: str | None = None) -> list[Change]:
        """What became of the flag since the last call, one event per app; each is given once.

        Args:
            known: the version that was logged last; the start is no change when it is the same.
        """
        noted = self._flags.changes()
        if noted and noted[0].get("previous", "") is None and noted[0]["version"] == known:
            noted = noted[1:]
        return [
            Change(
                ts=data["ts"],
                app=app,
                kind="flag_changed",
                data={key: value for key, value in data.items() if key != "ts"},
            )
            for data in noted
            for app in apps
        ]

    def put_back(self, changes: Sequence[Change]) -> None:
        """Give changes back that could not be logged, for the next call of :meth:`changes`."""
        seen = {change.app for change in changes[:1]}
        self._flags.put_back(
            [change.data | {"ts": change.ts} for change in changes if change.app in seen]
        )

    def status(self) -> dict[str, Any]:
        """The flag as it is now, and ``counts``.

        ``counts``: requests per variant, ``derived_unit`` by what units were derived from, and
        ``flag_errors``. ``error``: the latest of these, or "".
        """
        with self._lock:
            counts = self._counts.copy()
            error = self._error
        return self._flags.status() | {
            "error": error,
            "counts": {
                **{variant: counts[variant] for variant in VARIANTS},
                "derived_unit": {
                    source: counts[f"derived_unit:{source}"]
                    for source in ("session", "tenant", "event")
                },
                "flag_errors": counts[FLAG_ERROR],
            },
        }

    def close(self) -> None:
        """Stop watching the flag."""
        self._flags.close()

    def _variant(self, answer: Answer) -> tuple[Variant, tuple[str, ...]]:
        if answer.disabled:
            return "static", (FLAG_OFF,)
        if answer.value in VARIANTS:
            return cast("Variant", answer.value), ()
        with self._lock:
            self._counts[FLAG_ERROR] += 1
            self._error = answer.error or f"{answer.value!r:.80} is no variant"
        return "static", (FLAG_ERROR,)


def open_assigner(settings: Settings) -> Assigner | None:
    """The rollout of the settings, watching its flag; None without one: the bandit serves all.

    Raises:
        ConfigError: the flag file is missing or broken, lacks the flag or one of its variants, or
            the provider does not start.
    """
    chosen = settings.rollout
    incumbent = settings.incumbent
    if incumbent is None:
        return None
    from bandit_router.adapters.flags import FileProvider, Flags, make_provider

    if chosen.flags is not None:
        provider = FileProvider(chosen.flags, chosen.flag)
    else:
        provider = make_provider(chosen.provider or "", chosen.options)
    return Assigner(Flags(provider, chosen.flag), incumbent)
