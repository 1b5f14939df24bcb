"""What was acknowledged to the caller, written down so that it survives ``kill -9``.

One line per event, after the call that stored it has returned::

    KIND EVENT_ID MONOTONIC_S TOOK_US

KIND is ``d`` for a decision, ``c`` for a completion, ``f`` for a feedback, and ``u`` for a decision
that was served but not logged, so that nothing is promised about it. A line goes to the
system with one ``write``; what a kill has cut off has no newline and does not count.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

UNLOGGED = "u"
KINDS = ("d", "c", "f", UNLOGGED)


class AckWriter:
    """Appends to one file; several processes may have a file each, not share one."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, kind: str, event_id: str, took_s: float) -> None:
        """Note one acknowledged event."""
        line = f"{kind} {event_id} {time.monotonic():.4f} {took_s * 1e6:.0f}\n"
        os.write(self._file, line.encode())


@dataclass
class Acknowledged:
    """What some files say.

    Attributes:
        decisions, completions, feedbacks: event ids.
        unlogged: of decisions that were served without a log.
        times_s: when decisions were acknowledged, seconds on the machine's monotonic clock.
        took_us: how long each decision took, microseconds, by the time it was acknowledged.
    """

    decisions: set[str] = field(default_factory=set)
    completions: set[str] = field(default_factory=set)
    feedbacks: set[str] = field(default_factory=set)
    unlogged: set[str] = field(default_factory=set)
    times_s: list[float] = field(default_factory=list)
    took_us: dict[float, float] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Acknowledged events."""
        return len(self.decisions) + len(self.completions) + len(self.feedbacks)

    def slowest_ms(self, spans: Iterable[tuple[float, float]]) -> float:
        """The longest that a decision within these times took, milliseconds; 0 for none."""
        within = [
            took for start, end in spans for at, took in self.took_us.items() if start <= at <= end
        ]
        return max(within, default=0.0) / 1e3

    @property
    def whole(self) -> set[str]:
        """Decisions all of whose events were acknowledged: each must become a training row."""
        return self.decisions & self.completions & self.feedbacks


def read_acks(paths: Iterable[Path]) -> Acknowledged:
    """Everything that was acknowledged, by those of the files that exist."""
    found = Acknowledged()
    sets = (found.decisions, found.completions, found.feedbacks, found.unlogged)
    by_kind = dict(zip(KINDS, sets, strict=True))
    for path in paths:
        text = path.read_text("ascii") if path.exists() else ""
        for line in text.split("\n")[:-1]:
            kind, event_id, at_s, took_us = line.split(" ")
            by_kind[kind].add(event_id)
            if kind in {"d", UNLOGGED}:
                found.times_s.append(float(at_s))
                found.took_us[float(at_s)] = float(took_us)
    found.times_s.sort()
    return found


def lines_in(path: Path) -> tuple[int, int]:
    """How many events a file says were acknowledged, and how many decisions served unlogged."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    unlogged = sum(line.startswith(b"u") for line in lines)
    return len(lines) - unlogged, unlogged
