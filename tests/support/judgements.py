"""Streams of judgements that arrive as badly as they may, and what must come of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from support.streams import completion, decision, feedback

from bandit_router.events import Event, Feedback
from bandit_router.joiner import JoinRules
from bandit_router.joiner.rules import DEFAULT_METRICS
from bandit_router.reward import aggregate
from bandit_router.types import Interaction

WINDOW_S, SLACK_S = 100.0, 10.0


def rules(closing: str, aggregation: str = "last") -> JoinRules:
    return JoinRules(
        window_s=WINDOW_S,
        slack_s=SLACK_S,
        max_jump_s=300.0,
        closing=closing,
        aggregation=aggregation,
        metrics={**DEFAULT_METRICS},
    )


@dataclass
class Sent:
    """What was sent, in order of arrival, and what must come of it."""

    events: list[Event]
    scores: dict[str, float | None]  # by event_id
    applied: int
    set_aside: Counter[str]


def judged(
    rng: random.Random, decisions: int, *, apart_s: float, judges: int, aggregation: str
) -> Sent:
    """Decisions with their answers and feedback; each feedback 1 to 5 times.

    A fifth of the feedback arrives before its decision, a twentieth is given after the window, some
    is of an unknown metric, of an impossible value, or of another app. Arrival is out of order by
    less than the slack.
    """
    arrivals: list[tuple[float, Event]] = []
    scores: dict[str, float | None] = {}
    set_aside: Counter[str] = Counter()
    applied = 0
    for i in range(decisions):
        event_id, ts = f"d{i}", 1000.0 + i * apart_s + rng.uniform(0.0, apart_s)
        taken = ts + rng.uniform(0.4, 0.5) * SLACK_S
        arrivals.append((taken, decision(event_id, ts)))
        arrivals.append((taken + rng.uniform(0.0, 0.5) * SLACK_S, completion(event_id, ts)))
        ratings = []
        for judge in range(rng.randint(0, judges)):
            event, fate = judgement(rng, event_id, ts, f"f{judge}")
            copies = rng.randint(1, 5)
            if fate == "good":
                ratings.append((event.ts, event.feedback_id, event.value))
                set_aside["duplicate"] += copies - 1
            else:
                set_aside[fate] += copies
            early = event.ts <= ts + 0.1 * SLACK_S
            for _ in range(copies):
                spread = (0.1, 0.4) if early else (0.4, 1.0)
                arrivals.append(
                    ((ts if early else event.ts) + rng.uniform(*spread) * SLACK_S, event)
                )
        scores[event_id] = aggregate(aggregation, ratings) if ratings else None
        applied += len(ratings)
    arrivals.sort(key=lambda arrival: arrival[0])
    return Sent([event for _, event in arrivals], scores, applied, +set_aside)


def judgement(
    rng: random.Random, event_id: str, ts: float, feedback_id: str
) -> tuple[Feedback, str]:
    """A feedback, and the reason for which it must be set aside; ``good`` for none."""
    place = rng.random()
    if place < 0.2:
        at = ts + rng.uniform(0.0, 0.1) * SLACK_S  # it will arrive before its decision
    elif place < 0.25:
        at = ts + WINDOW_S + rng.uniform(1e-3, 0.4) * SLACK_S
    else:
        at = ts + rng.uniform(0.1 * SLACK_S, WINDOW_S)
    late = at - ts > WINDOW_S
    fault = rng.random()
    common = {"feedback_id": feedback_id, "value": rng.random()}
    if fault < 0.03 and not late:  # of a closed decision nobody remembers the app
        return feedback(event_id, at, **common, app="another"), "forged_app"
    if fault < 0.06:
        return feedback(event_id, at, **common, metric="mood"), "late" if late else "unknown_metric"
    if fault < 0.09:
        common["value"] = 0.3
        why = "late" if late else "forged_value"
        return feedback(event_id, at, **common, metric="thumbs"), why
    return feedback(event_id, at, **common), "late" if late else "good"


def check(sent: Sent, rows: Sequence[Interaction], set_aside: Counter[str]) -> None:
    assert {row.event_id: row.score for row in rows} == sent.scores
    assert len(rows) == len(sent.scores)
    assert set_aside == sent.set_aside
    feedbacks = sum(isinstance(event, Feedback) for event in sent.events)
    assert sent.applied + set_aside.total() == feedbacks
