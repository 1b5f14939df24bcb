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

A duplicate decision is recognised while its first is open and for at least ``window_s + slack_s``
after it closed (or for ``max_closed`` decisions). Whoever may resend after longer than that must
drop duplicates by event_id before they come here.
"""

from __future__ import annotations

import msgspec

from bandit_router.errors import SnapshotError
from bandit_router.events import Feedback, Outcome
from bandit_router.joiner.clock import StreamClock
from bandit_router.joiner.expiring import Expiring
from bandit_router.joiner.pending import Pending, key_of
from bandit_router.joiner.rules import JoinRules
from bandit_router.joiner.state import Closed, Early, JoinerState, PendingState
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


class Discarded(msgspec.Struct, frozen=True, eq=False):
    """An event that is kept but never learned from. ``reason`` is one of the joiner's counts."""

    reason: str
    event: Decision | Outcome


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
        self._open: Expiring[Pending] = Expiring()
        self._early: Expiring[Early] = Expiring()
        self._closed: Expiring[Closed] = Expiring()
        self._n_early = 0
        # (ts, event_id) of events that came too far ahead of the clock to be believed yet.
        self._ahead: list[tuple[float, str]] = []
        self._next = float("inf")  # until this stream time nothing ends

    @property
    def now(self) -> float:
        """Stream time, seconds; -inf before the first event."""
        return self._clock.now

    @property
    def open_decisions(self) -> int:
        """How many decisions wait for outcomes."""
        return len(self._open)

    def waits_for(self, event_id: str) -> tuple[str, ...] | None:
        """What an open decision still needs to be closed; None when no such one is open.

        ``answer`` (a completion or error), ``score`` (feedback on the score metric),
        ``escalation`` (a step between the drawn model and the one that served), ``window`` (its
        end, which alone closes in ``window`` closing).
        """
        pending = self._open.entries.get(event_id)
        if pending is None:
            return None
        return pending.missing() if self._first else (*pending.missing(), "window")

    def decision(self, decision: Decision) -> list[Interaction]:
        """Take a decision; returns the interactions that this event closes."""
        event_id = decision.event_id
        now = self._clock.advance(decision.ts, event_id)
        rows = self._tick(now) if now > self._next or self._clock.leapt else []
        if event_id in self._open.entries or event_id in self._closed.entries:
            self._discard("duplicate", decision)
            return rows
        self.counts["decisions"] += 1
        pending = Pending(decision, now + self._hold)
        self._open.put(event_id, pending)
        self._next = min(self._next, pending.deadline)
        if event_id in self._early.entries:
            self._take_early(pending, rows)
        if self._clock.suspects:
            self._note_ahead(decision.ts, event_id)
        if len(self._open.entries) > self.rules.max_open:
            self._close(self._open.oldest(), "evicted", rows)
        return rows

    def outcome(self, outcome: Outcome) -> list[Interaction]:
        """Take a completion, escalation, feedback or error; returns what it closes."""
        event_id = outcome.event_id
        now = self._clock.advance(outcome.ts, event_id)
        rows = self._tick(now) if now > self._next or self._clock.leapt else []
        pending = self._open.entries.get(event_id)
        if pending is not None:
            self._accept(pending, outcome, rows)
        elif event_id in self._closed.entries:
            self._after_closing(outcome)
        else:
            self._buffer(outcome, now)
        if self._clock.suspects and event_id not in self._open.entries:
            self._note_ahead(outcome.ts, event_id)
        return rows

    def drain(self) -> list[Interaction]:
        """Close everything as if its window had ended: for the end of a finite stream."""
        rows: list[Interaction] = []
        while len(self._open):
            self._close(self._open.oldest(), "expired", rows)
        while len(self._early):
            self._orphan(self._early.oldest())
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
                self._open.pop(row.event_id)
                self._emit(pending, row, "joined", rows)

    def _close(self, pending: Pending, how: str, rows: list[Interaction]) -> None:
        """Close with what there is, a decision that is no longer among the open ones."""
        self._emit(pending, pending.expired(self.rules), how, rows)

    def _emit(self, pending: Pending, row: Interaction, how: str, rows: list[Interaction]) -> None:
        now = self._clock.now
        self._closed.put(row.event_id, Closed(row.event_id, now + self._hold, tuple(pending.keys)))
        # Two for one: enough to forget in time, and no event pays for more.
        if self._closed.due(now) is not None:
            self._closed.due(now)
        if len(self._closed.entries) > self.rules.max_closed:
            self._closed.oldest()
        self.counts[how] += 1
        if row.learn is not pending.decision.learn:
            self.counts["off_action"] += 1
        if pending.disputable:
            for feedback in pending.misattributed():
                self._discard("forged_model", feedback)
        rows.append(row)

    def _after_closing(self, outcome: Outcome) -> None:
        if key_of(outcome) in self._closed.entries[outcome.event_id].keys:
            self._discard("duplicate", outcome)
        elif type(outcome) is Feedback and outcome.retracts:
            self._discard("late_retraction", outcome)
        else:
            self._discard("late", outcome)

    def _buffer(self, outcome: Outcome, now: float) -> None:
        """Keep an outcome whose decision has not come yet; it may never come."""
        early = self._early.entries.get(outcome.event_id)
        if early is None:
            early = Early(outcome.event_id, now + self._hold, [])
            self._early.put(outcome.event_id, early)
            self._next = min(self._next, early.deadline)
        if len(early.outcomes) >= self.rules.max_outcomes:
            self._discard("too_many", outcome)
            return
        early.outcomes.append(outcome)
        self._n_early += 1
        self.counts["early"] += 1
        while self._n_early > self.rules.max_early:
            self._orphan(self._early.oldest())

    def _take_early(self, pending: Pending, rows: list[Interaction]) -> None:
        event_id = pending.decision.event_id
        outcomes = self._early.pop(event_id).outcomes
        self._n_early -= len(outcomes)
        for outcome in outcomes:
            if event_id in self._open.entries:
                self._accept(pending, outcome, rows)
            else:
                self._after_closing(outcome)

    def _orphan(self, early: Early) -> None:
        self._n_early -= len(early.outcomes)
        for outcome in early.outcomes:
            self._discard("orphan", outcome)

    def _tick(self, now: float) -> list[Interaction]:
        """End what has reached its deadline."""
        if self._clock.leapt:
            self._catch_up(now)
        rows: list[Interaction] = []
        while (pending := self._open.due(now)) is not None:
            self._close(pending, "expired", rows)
        while (early := self._early.due(now)) is not None:
            self._orphan(early)
        self._next = self._first_deadline()
        return rows

    def _note_ahead(self, ts: float, event_id: str) -> None:
        """Remember what came with an event far ahead of the clock.

        Its deadline was set by a clock that may be slow, and is too early then.
        """
        if self._clock.lead(ts) <= self.rules.max_jump_s:
            return
        self._ahead.append((ts, event_id))
        memories = (self._open.entries, self._early.entries, self._closed.entries)
        if len(self._ahead) > 2 * sum(map(len, memories)) + 1024:
            self._ahead = [a for a in self._ahead if any(a[1] in known for known in memories)]

    def _catch_up(self, now: float) -> None:
        """Prolong what came while the clock was slow, now that it has leapt.

        What is still ahead of it came after the time it has leapt to, so it gets a new deadline
        too, and stays remembered.
        """
        self._clock.leapt = False
        still_ahead = []
        for ts, event_id in self._ahead:
            lead = self._clock.lead(ts)
            near = lead <= self.rules.max_jump_s
            deadline = now + self._hold + (max(lead, 0.0) if near else 0.0)
            for memory in (self._open, self._early, self._closed):
                memory.prolong(event_id, deadline)
            if not near:
                still_ahead.append((ts, event_id))
        self._ahead = still_ahead

    def _first_deadline(self) -> float:
        return min(self._open.first_deadline(), self._early.first_deadline())

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
            open=[PendingState.of(pending) for pending in self._open.entries.values()],
            early=list(self._early.entries.values()),
            closed=list(self._closed.entries.values()),
            ahead=self._ahead,
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
        self._open, self._early, self._closed = Expiring(), Expiring(), Expiring()
        for stored in loaded.open:
            self._open.put(stored.decision.event_id, stored.pending())
        for early in loaded.early:
            self._early.put(early.event_id, early)
        for closed in loaded.closed:
            self._closed.put(closed.event_id, closed)
        self._n_early = sum(len(early.outcomes) for early in loaded.early)
        self._ahead = list(loaded.ahead)
        self._next = self._first_deadline()
