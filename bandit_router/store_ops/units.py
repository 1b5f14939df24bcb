"""The rows of an experiment: one a unit, in the order of first exposure, when it is final.

A unit's row is what became of its first decision under the flag; those whose model the caller
pinned do not count. It is final when that decision's attribution window has closed. Rows are given
up to the first decision that is still open, however many behind it are closed: an order by when
feedback arrives would depend on what was served, and the bounds would not hold
(:mod:`bandit_router.ope.sequences`).

The first decision alone counts towards a comparison: whether a unit comes back may depend on what
it was served. Rates and costs of the bandit alone are no comparison, so its later decisions have
rows too, with no share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from bandit_router.adapters.sqlite_units import Changed, Closed, Decided, Happened, Read, UnitLog
from bandit_router.assigning import FLAG_ERROR, FLAG_OFF
from bandit_router.rollout.variants import VARIANTS, is_pinned

_BATCH = 512
_ERRORS_KEPT = 10_000
TREATMENT, CONTROL = "bandit", "static"


class UnitRow(msgspec.Struct, kw_only=True):
    """A decision of the treatment or the control, and what became of it.

    Attributes:
        offset: of the decision in the log.
        treated: whether the bandit served.
        share: chance of the treatment, given that it was one of the two, at the unit's first
            exposure; None where this is no first exposure that was drawn.
        closed: what is known of it; None while it is open.
        error: whether no answer was delivered.
    """

    offset: int
    event_id: str
    treated: bool
    share: float | None
    closed: Closed | None = None
    error: bool = False


class UnitState(msgspec.Struct, kw_only=True):
    """How far a log has been read, and what is still open."""

    event: int = 0
    row: int = 0
    begun: bool = False
    shares: dict[str, float] | None = None
    open: list[UnitRow] = []
    errors: list[str] = []


class Units:
    """Turns a store's log into rows. Its state is a function of the log.

    Args:
        log: where to read.
        has_unit: whether a unit was seen before ``state`` was taken.
        state: go on from there; from the start of the log with None.

    Attributes:
        fresh: units seen since; the caller empties it once it has kept them.
    """

    def __init__(
        self, log: UnitLog, has_unit: Callable[[str], bool], state: UnitState | None = None
    ) -> None:
        self._log, self._has_unit = log, has_unit
        self._state = state or UnitState()
        self._open = deque(self._state.open)
        self._by_event = {row.event_id: row for row in self._open}
        self._errors = dict.fromkeys(self._state.errors)
        self.fresh: set[str] = set()

    @property
    def offset(self) -> int:
        """Of the last event read."""
        return self._state.event

    @property
    def waiting(self) -> int:
        """Decisions whose rows have not been given yet."""
        return len(self._open)

    @property
    def state(self) -> UnitState:
        """To go on from, once ``fresh`` is kept as well."""
        return msgspec.structs.replace(
            self._state, open=list(self._open), errors=list(self._errors)
        )

    def advance(self, until: int) -> Iterator[UnitRow]:
        """Read the log up to offset ``until``; gives the rows that are final now, in order.

        Raises:
            StorageError: the store cannot be read.
        """
        state = self._state
        while events := self._log.events(state.event, until, _BATCH):
            end = events[-1][0]
            aside = list(self._log.set_aside(state.event, end))
            refused = {offset for offset, item in aside if isinstance(item, Decided)}
            for offset, event in events:
                if offset not in refused:
                    self._take(offset, event)
            for learn_seq, closed in self._log.closed(state.row, end):
                state.row = learn_seq
                self._close(closed)
            for _, item in aside:
                if isinstance(item, Closed):
                    self._close(item)
            state.event = end
            yield from self._final()

    def _take(self, offset: int, event: Read | None) -> None:
        if isinstance(event, Changed):
            if event.kind == "flag_changed":
                self._state.begun, self._state.shares = True, known_shares(event.data)
        elif isinstance(event, Happened):
            if event.kind == "error":
                self._error(event.event_id)
        elif event is not None and self._state.begun and not is_pinned(event.rules):
            self._decided(offset, event)

    def _decided(self, offset: int, event: Decided) -> None:
        share = None
        if event.unit_id not in self.fresh and not self._has_unit(event.unit_id):
            self.fresh.add(event.unit_id)
            share = self._share(event)
        treated = event.variant == TREATMENT
        if (share is None and not treated) or event.event_id in self._by_event:
            return
        row = UnitRow(offset=offset, event_id=event.event_id, treated=treated, share=share)
        row.error = self._errors.pop(event.event_id, False) is None
        self._open.append(row)
        self._by_event[event.event_id] = row

    def _share(self, event: Decided) -> float | None:
        shares = self._state.shares
        asked = not {FLAG_OFF, FLAG_ERROR}.intersection(event.rules)
        if shares is None or not asked or event.variant not in (TREATMENT, CONTROL):
            return None
        treated, control = shares.get(TREATMENT, 0.0), shares.get(CONTROL, 0.0)
        if min(treated, control) <= 0.0:
            return None  # nobody could have been in the other one
        return treated / (treated + control)

    def _error(self, event_id: str) -> None:
        row = self._by_event.get(event_id)
        if row is not None:
            row.error = True
            return
        self._errors[event_id] = None  # it may be ahead of its decision
        if len(self._errors) > _ERRORS_KEPT:
            del self._errors[next(iter(self._errors))]

    def _close(self, closed: Closed | None) -> None:
        row = None if closed is None else self._by_event.get(closed.event_id)
        if row is not None and row.closed is None:
            row.closed = closed

    def _final(self) -> Iterator[UnitRow]:
        while self._open and self._open[0].closed is not None:
            row = self._open.popleft()
            del self._by_event[row.event_id]
            yield row


def known_shares(data: Mapping[str, Any]) -> dict[str, float] | None:
    """The shares that a ``flag_changed`` says; None where it is off or they are not known.

    Anybody who may write to the broker may have written it, so nothing of it is taken for granted.
    """
    percent = data.get("percent")
    if not (data.get("enabled") and isinstance(percent, dict) and set(percent) <= set(VARIANTS)):
        return None
    if not all(isinstance(share, int | float) and 0 <= share <= 100 for share in percent.values()):
        return None
    total = sum(percent.values())
    return {variant: share / total for variant, share in percent.items()} if total > 0 else None
