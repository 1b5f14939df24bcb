"""The joiner: events in, interactions out. It has no clock but the events.

Laws:

* Each decision gives exactly one interaction: when its answer and score are there (``first``),
  at the end of its attribution window (``window``, or when something never came), or when memory
  is full. A duplicate of it gives none.
* Whether an outcome is late is a matter of event times alone (``outcome.ts - decision.ts >
  window_s``), not of the order of arrival. Together with the slack by which closing waits, any
  order of the same events within the slack gives the same interactions. In ``first`` closing this
  holds for decisions with one score feedback; with several, the first to arrive closes.
* What is not joined is not lost: it is appended to ``discarded`` with its reason.
* Equal events in equal order give equal bytes from :meth:`Joiner.dump`, stopped and resumed
  anywhere.

A duplicate decision is recognised while its first is open and for ``window_s + slack_s`` after it
closed (or for ``max_closed`` decisions). Whoever may resend after longer than that must drop
duplicates by event_id before they come here.
"""

from __future__ import annotations

import math
from collections import deque

import msgspec

from bandit_router.errors import SnapshotError
from bandit_router.events import Feedback, Outcome
from bandit_router.joiner.clock import StreamClock
from bandit_router.joiner.pending import Pending, key_of
from bandit_router.joiner.rules import JoinRules
from bandit_router.joiner.state import EarlyState, JoinerState, PendingState
from bandit_router.types import Decision, Interaction

COUNTS = (
    "decisions",
    "joined",
    "expired",
    "evicted",
    "early",
    "late",
    "late_retraction",
    "duplicate",
    "orphan",
    "forged_app",
    "forged_value",
    "forged_model",
    "unknown_metric",
    "too_many",
    "off_action",
)

Queue = deque[tuple[float, str]]


class Discarded(msgspec.Struct, frozen=True, eq=False):
    """An event that is kept but never learned from. ``reason`` is one of the joiner's counts."""

    reason: str
    event: Decision | Outcome


class Early(msgspec.Struct):
    """Outcomes that came before their decision. ``deadline`` is in stream time."""

    deadline: float
    outcomes: list[Outcome]


class Joiner:
    """Joins by ``event_id``.

    Args:
        rules: window, slack, closing and aggregation.

    Attributes:
        counts: how many decisions came, interactions closed (``joined`` with a score and answer,
            ``expired`` at the end of the window, ``evicted`` for lack of memory, ``off_action``
            served by another model than the drawn one), outcomes buffered (``early``), and events
            discarded, by reason.
        discarded: events set aside since the caller last emptied it.
    """

    def __init__(self, rules: JoinRules | None = None) -> None:
        self.rules = rules or JoinRules()
        self.counts = dict.fromkeys(COUNTS, 0)
        self.discarded: list[Discarded] = []
        self._clock = StreamClock(self.rules.max_jump_s, self.rules.jump_witnesses)
        self._hold = self.rules.window_s + self.rules.slack_s
        self._first = self.rules.closing == "first"
        self._metrics = dict(self.rules.metrics)
        self._score_metric = self.rules.score_metric
        self._open: dict[str, Pending] = {}
        self._early: dict[str, Early] = {}
        self._n_early = 0
        self._closed: dict[str, tuple[str, ...]] = {}
        # Queues of (deadline, event_id), ascending, since the clock is monotone. An entry counts
        # only while what it names is there with that deadline.
        self._open_queue: Queue = deque()
        self._early_queue: Queue = deque()
        self._closed_queue: Queue = deque()
        self._next = math.inf

    @property
    def now(self) -> float:
        """Stream time, seconds; -inf before the first event."""
        return self._clock.now

    @property
    def open_decisions(self) -> int:
        """How many decisions wait for outcomes."""
        return len(self._open)

    def decision(self, decision: Decision) -> list[Interaction]:
        """Take a decision; returns the interactions that this event closes."""
        event_id = decision.event_id
        now = self._clock.advance(decision.ts, event_id)
        rows = self._expire(now) if now > self._next else []
        if event_id in self._open or event_id in self._closed:
            self._discard("duplicate", decision)
            return rows
        self.counts["decisions"] += 1
        deadline = now + self._hold
        pending = self._open[event_id] = Pending(decision, deadline)
        self._open_queue.append((deadline, event_id))
        self._next = min(self._next, deadline)
        if event_id in self._early:
            self._take_early(pending, rows)
        if len(self._open_queue) > 2 * len(self._open) + 1024:
            self._open_queue = deque(e for e in self._open_queue if e[1] in self._open)
        if len(self._open) > self.rules.max_open:
            self._evict(rows)
        return rows

    def outcome(self, outcome: Outcome) -> list[Interaction]:
        """Take a completion, escalation, feedback or error; returns what it closes."""
        event_id = outcome.event_id
        now = self._clock.advance(outcome.ts, event_id)
        rows = self._expire(now) if now > self._next else []
        pending = self._open.get(event_id)
        if pending is not None:
            self._accept(pending, outcome, rows)
        elif event_id in self._closed:
            self._after_closing(outcome)
        else:
            self._buffer(outcome, now)
        return rows

    def drain(self) -> list[Interaction]:
        """Close everything as if its window had ended: for the end of a finite stream."""
        rows: list[Interaction] = []
        for pending in list(self._open.values()):
            self._close(pending, pending.expired(self.rules), "expired", rows)
        for event_id in list(self._early):
            self._orphan(event_id)
        return rows

    def _accept(self, pending: Pending, outcome: Outcome, rows: list[Interaction]) -> None:
        key, keys = key_of(outcome), pending.keys
        score: float | None = None
        if outcome.app != pending.decision.app:
            self._discard("forged_app", outcome)
        elif key in keys:
            self._discard("duplicate", outcome)
        elif outcome.ts - pending.decision.ts > self.rules.window_s:
            self._discard("late", outcome)
        elif len(keys) >= self.rules.max_outcomes:
            self._discard("too_many", outcome)
        else:
            if type(outcome) is Feedback:
                metric = self._metrics.get(outcome.metric)
                if metric is None:
                    self._discard("unknown_metric", outcome)
                    return
                score = metric.score(outcome.value)
                if score is None:
                    self._discard("forged_value", outcome)
                    return
                if outcome.metric != self._score_metric:
                    score = None
            pending.add(outcome, key, score)
            row = pending.finished(self.rules) if self._first else None
            if row is not None:
                self._close(pending, row, "joined", rows)

    def _close(self, pending: Pending, row: Interaction, how: str, rows: list[Interaction]) -> None:
        event_id = row.event_id
        del self._open[event_id]
        self._closed[event_id] = tuple(pending.keys)
        forget = self._clock.now + self._hold
        self._closed_queue.append((forget, event_id))
        self._next = min(self._next, forget)
        if len(self._closed) > self.rules.max_closed:
            self._closed.pop(self._closed_queue.popleft()[1], None)
        self.counts[how] += 1
        if row.learn is not pending.decision.learn:
            self.counts["off_action"] += 1
        if pending.disputable:
            for feedback in pending.misattributed():
                self._discard("forged_model", feedback)
        rows.append(row)

    def _after_closing(self, outcome: Outcome) -> None:
        if key_of(outcome) in self._closed[outcome.event_id]:
            self._discard("duplicate", outcome)
        elif type(outcome) is Feedback and outcome.retracts:
            self._discard("late_retraction", outcome)
        else:
            self._discard("late", outcome)

    def _buffer(self, outcome: Outcome, now: float) -> None:
        """Keep an outcome whose decision has not come yet; it may never come."""
        event_id = outcome.event_id
        early = self._early.get(event_id)
        if early is None:
            early = self._early[event_id] = Early(now + self._hold, [])
            self._early_queue.append((early.deadline, event_id))
            self._next = min(self._next, early.deadline)
            if len(self._early_queue) > 2 * len(self._early) + 1024:
                self._early_queue = deque(e for e in self._early_queue if e[1] in self._early)
        if len(early.outcomes) >= self.rules.max_outcomes:
            self._discard("too_many", outcome)
            return
        early.outcomes.append(outcome)
        self._n_early += 1
        self.counts["early"] += 1
        while self._n_early > self.rules.max_early:
            self._orphan_at(*self._early_queue.popleft())

    def _take_early(self, pending: Pending, rows: list[Interaction]) -> None:
        event_id = pending.decision.event_id
        outcomes = self._early.pop(event_id).outcomes
        self._n_early -= len(outcomes)
        for outcome in outcomes:
            if event_id in self._open:
                self._accept(pending, outcome, rows)
            else:
                self._after_closing(outcome)

    def _orphan_at(self, deadline: float, event_id: str) -> None:
        early = self._early.get(event_id)
        if early is not None and early.deadline == deadline:
            self._orphan(event_id)

    def _orphan(self, event_id: str) -> None:
        outcomes = self._early.pop(event_id).outcomes
        self._n_early -= len(outcomes)
        for outcome in outcomes:
            self._discard("orphan", outcome)

    def _open_at(self, deadline: float, event_id: str) -> Pending | None:
        pending = self._open.get(event_id)
        return pending if pending is not None and pending.deadline == deadline else None

    def _evict(self, rows: list[Interaction]) -> None:
        """Close the oldest open decision early, with what there is."""
        while True:
            pending = self._open_at(*self._open_queue.popleft())
            if pending is not None:
                self._close(pending, pending.expired(self.rules), "evicted", rows)
                return

    def _expire(self, now: float) -> list[Interaction]:
        rows: list[Interaction] = []
        queue = self._open_queue
        while queue and queue[0][0] < now:
            pending = self._open_at(*queue.popleft())
            if pending is not None:
                self._close(pending, pending.expired(self.rules), "expired", rows)
        queue = self._early_queue
        while queue and queue[0][0] < now:
            self._orphan_at(*queue.popleft())
        queue = self._closed_queue
        while queue and queue[0][0] < now:
            self._closed.pop(queue.popleft()[1], None)
        self._set_next()
        return rows

    def _set_next(self) -> None:
        """The earliest deadline; until then an event need not look at the queues."""
        self._next = math.inf
        for queue in (self._open_queue, self._early_queue, self._closed_queue):
            if queue and queue[0][0] < self._next:
                self._next = queue[0][0]

    def _discard(self, reason: str, event: Decision | Outcome) -> None:
        self.counts[reason] += 1
        self.discarded.append(Discarded(reason, event))

    def dump(self) -> bytes:
        """The whole state, deterministic: the same events in the same order, the same bytes.

        ``discarded`` is not part of it; the caller has taken it.
        """
        return JoinerState(
            rules=self.rules,
            clock=self._clock.dump(),
            counts=self.counts,
            open=[PendingState.of(pending) for pending in self._open.values()],
            early=[EarlyState(i, e.deadline, e.outcomes) for i, e in self._early.items()],
            closed=[(at, i, self._closed[i]) for at, i in self._closed_queue],
        ).encode()

    def load(self, state: bytes) -> None:
        """Go on from what :meth:`dump` gave; what follows is as if nothing had happened.

        Raises:
            SnapshotError: the bytes are no joiner state, or of a joiner with other rules.
        """
        loaded = JoinerState.decode(state)
        if loaded.rules != self.rules:
            raise SnapshotError(
                "the joiner's state was made with other rules than the ones configured; it cannot "
                f"go on under new ones: stored {loaded.rules}, configured {self.rules}"
            )
        self._clock.load(loaded.clock)
        self.counts = dict.fromkeys(COUNTS, 0) | loaded.counts
        self.discarded = []
        self._open = {p.decision.event_id: p.pending() for p in loaded.open}
        self._early = {e.event_id: Early(e.deadline, e.outcomes) for e in loaded.early}
        self._n_early = sum(len(e.outcomes) for e in loaded.early)
        self._closed = {event_id: keys for _, event_id, keys in loaded.closed}
        self._open_queue = deque((p.deadline, i) for i, p in self._open.items())
        self._early_queue = deque((e.deadline, i) for i, e in self._early.items())
        self._closed_queue = deque((at, event_id) for at, event_id, _ in loaded.closed)
        self._set_next()
