"""A mapping whose entries end: what the joiner's three memories have in common."""

from __future__ import annotations

import math
from collections import deque
from typing import Generic, Protocol, TypeVar


class Entry(Protocol):
    """Anything with a deadline, in stream time."""

    deadline: float


E = TypeVar("E", bound=Entry)

_SPARE = 1024


class Expiring(Generic[E]):
    """Entries by event id, in the order in which they will end.

    Deadlines are given in ascending order or nearly so; an entry behind one with a later deadline
    ends with that one. ``entries`` is public for reading, since it is read at every event.
    """

    __slots__ = ("_queue", "entries")

    def __init__(self) -> None:
        self.entries: dict[str, E] = {}
        # An item counts only while its entry is there with that very deadline.
        self._queue: deque[tuple[float, str]] = deque()

    def __len__(self) -> int:
        return len(self.entries)

    def put(self, event_id: str, entry: E) -> None:
        """Add an entry, which is new."""
        self.entries[event_id] = entry
        self._queue.append((entry.deadline, event_id))
        if len(self._queue) > 2 * len(self.entries) + _SPARE:
            self._queue = deque((e.deadline, i) for i, e in self.entries.items())

    def pop(self, event_id: str) -> E:
        """Remove an entry, which is there."""
        entry = self.entries.pop(event_id)
        queue = self._queue
        while queue and queue[0][1] not in self.entries:
            queue.popleft()
        return entry

    def prolong(self, event_id: str, deadline: float) -> None:
        """Give an entry, if it is there, a later deadline."""
        entry = self.entries.get(event_id)
        if entry is not None and entry.deadline < deadline:
            del self.entries[event_id]
            entry.deadline = deadline
            self.put(event_id, entry)

    def due(self, now: float) -> E | None:
        """Remove and return the next entry whose deadline has passed, or None."""
        queue = self._queue
        while queue and queue[0][0] < now:
            entry = self._take(*queue.popleft())
            if entry is not None:
                return entry
        return None

    def oldest(self) -> E:
        """Remove and return the entry that would end next; there must be one."""
        while True:
            entry = self._take(*self._queue.popleft())
            if entry is not None:
                return entry

    def first_deadline(self) -> float:
        """No entry ends before this; inf when there are none."""
        return self._queue[0][0] if self._queue else math.inf

    def _take(self, deadline: float, event_id: str) -> E | None:
        entry = self.entries.get(event_id)
        if entry is None or entry.deadline != deadline:
            return None
        del self.entries[event_id]
        return entry
