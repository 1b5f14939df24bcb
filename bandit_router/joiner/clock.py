"""The time of a stream, told by its events alone, and hard to fool.

The clock follows the latest event time. One event far in the future must not end every attribution
window, so a jump of more than ``max_jump_s`` is believed only when ``witnesses`` different
decisions in a row lie that far ahead; any event near the clock in between clears the suspicion.
Then the clock moves to the least of them.

A clock that was fooled nevertheless (or began on a wild event) would stand still until the stream
catches up. When ``WITNESSES_BACK`` events in a row lie far behind it, it follows the stream again
from there; :attr:`StreamClock.now` goes on without ever running backwards.
"""

from __future__ import annotations

import math

WITNESSES_BACK = 1000
"""Many, because a relay that drains its backlog after an outage sends old events in a row too."""

ClockState = tuple[float, float, list[str], float, int, int]


class StreamClock:
    """Monotone stream time in seconds.

    Args:
        max_jump_s: a step ahead larger than this needs witnesses.
        witnesses: how many different event ids in a row.

    ``now`` is the latest believed event time plus a constant, which changes only when the clock
    follows the stream back; before the first event it is -inf. ``jumps`` counts suspicious events.
    """

    __slots__ = (
        "_behind",
        "_jump",
        "_least",
        "_reference",
        "_suspects",
        "_witnesses",
        "jumps",
        "now",
    )

    def __init__(self, max_jump_s: float, witnesses: int) -> None:
        self._jump = max_jump_s
        self._witnesses = witnesses
        self._reference = -math.inf
        self._suspects: list[str] = []
        self._least = math.inf
        self._behind = 0
        self.now = -math.inf
        self.jumps = 0

    def advance(self, ts: float, event_id: str) -> float:
        """The stream time once this event has been seen."""
        ahead = ts - self._reference
        if -self._jump <= ahead <= self._jump:
            if ahead > 0.0:
                self.now = ts + (self.now - self._reference)
                self._reference = ts
            if self._suspects or self._behind:
                self._suspects.clear()
                self._behind = 0
        elif self._reference == -math.inf:
            self._reference = self.now = ts
        elif ahead > 0.0:
            self._far_ahead(ts, event_id)
        else:
            self._far_behind(ts)
        return self.now

    def _far_ahead(self, ts: float, event_id: str) -> None:
        self.jumps += 1
        self._behind = 0
        if not self._suspects:
            self._least = math.inf
        self._least = min(self._least, ts)
        if event_id not in self._suspects:
            self._suspects.append(event_id)
        if len(self._suspects) >= self._witnesses:
            self._suspects.clear()
            self.now = self._least + (self.now - self._reference)
            self._reference = self._least

    def _far_behind(self, ts: float) -> None:
        self.jumps += 1
        self._suspects.clear()
        self._behind += 1
        if self._behind >= WITNESSES_BACK:
            self._behind = 0
            self._reference = ts

    def dump(self) -> ClockState:
        """The state as plain values."""
        return (
            self.now,
            self._reference,
            list(self._suspects),
            self._least,
            self._behind,
            self.jumps,
        )

    def load(self, state: ClockState) -> None:
        """Go on from what :meth:`dump` gave."""
        self.now, self._reference, suspects, self._least, self._behind, self.jumps = state
        self._suspects = list(suspects)
