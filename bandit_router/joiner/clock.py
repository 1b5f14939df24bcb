"""The time of a stream, told by its events alone, and hard to fool.

The clock follows the latest event time. One event far in the future must not end every attribution
window, so a jump of more than ``max_jump_s`` is believed only when ``witnesses`` different
decisions in a row lie that far ahead; any event near the clock in between clears the suspicion.
Then the clock moves to the least of them, and on to the others that are near that.

A clock that was fooled nevertheless (or began on a wild event) would stand still until the stream
catches up. When ``WITNESSES_BACK`` events in a row lie far behind it, it follows the stream again
from there; :attr:`StreamClock.now` goes on without ever running backwards.
"""

from __future__ import annotations

import math

WITNESSES_BACK = 1000
"""Many, because a relay that drains its backlog after an outage sends old events in a row too."""

ClockState = tuple[float, float, list[tuple[float, str]], int, int]


class StreamClock:
    """Monotone stream time in seconds.

    Args:
        max_jump_s: a step ahead larger than this needs witnesses.
        witnesses: how many different event ids in a row.

    ``now`` is the latest believed event time plus a constant, which changes only when the clock
    follows the stream back; before the first event it is -inf. ``jumps`` counts suspicious events.
    ``suspects`` is not empty right after an event that is still too far ahead to be believed;
    ``leapt`` is set by a jump that was believed, for the caller to reset.
    """

    __slots__ = (
        "_behind",
        "_jump",
        "_reference",
        "_witnesses",
        "jumps",
        "leapt",
        "now",
        "suspects",
    )

    def __init__(self, max_jump_s: float, witnesses: int) -> None:
        self._jump = max_jump_s
        self._witnesses = witnesses
        self._reference = -math.inf
        self.suspects: list[tuple[float, str]] = []
        self._behind = 0
        self.now = -math.inf
        self.jumps = 0
        self.leapt = False

    def advance(self, ts: float, event_id: str) -> float:
        """The stream time once this event has been seen."""
        ahead = ts - self._reference
        if -self._jump <= ahead <= self._jump:
            if ahead > 0.0:
                self.now = ts + (self.now - self._reference)
                self._reference = ts
            if self.suspects or self._behind:
                self.suspects.clear()
                self._behind = 0
        elif self._reference == -math.inf:
            self._reference = self.now = ts
        elif ahead > 0.0:
            self._far_ahead(ts, event_id)
        else:
            self._far_behind(ts)
        return self.now

    def lead(self, ts: float) -> float:
        """By how much an event lies ahead of the clock, seconds; negative when it is behind."""
        return ts - self._reference

    def _far_ahead(self, ts: float, event_id: str) -> None:
        self.jumps += 1
        self._behind = 0
        if all(event_id != known for _, known in self.suspects):
            self.suspects.append((ts, event_id))
        if len(self.suspects) < self._witnesses:
            return
        self.leapt = True
        waiting = sorted(self.suspects)
        self._move(waiting[0][0])
        for other, _ in [*waiting, (ts, event_id)]:
            if 0.0 < other - self._reference <= self._jump:
                self._move(other)
        self.suspects = [s for s in self.suspects if s[0] - self._reference > self._jump]

    def _move(self, ts: float) -> None:
        self.now = ts + (self.now - self._reference)
        self._reference = ts

    def _far_behind(self, ts: float) -> None:
        self.jumps += 1
        self.suspects.clear()
        self._behind += 1
        if self._behind >= WITNESSES_BACK:
            self._behind = 0
            self._reference = ts

    def dump(self) -> ClockState:
        """The state as plain values."""
        return (self.now, self._reference, list(self.suspects), self._behind, self.jumps)

    def load(self, state: ClockState) -> None:
        """Go on from what :meth:`dump` gave."""
        self.now, self._reference, suspects, self._behind, self.jumps = state
        self.suspects = list(suspects)
