"""Feedback as the world sends it: several times, in any order, too early, too late."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import msgspec

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.bench.chaos.acks import Acknowledged
from bandit_router.bench.chaos.finding import Finding
from bandit_router.bench.chaos.judging import judge, settled_events
from bandit_router.bench.chaos.rig import Rig
from bandit_router.bench.chaos.site import Site
from bandit_router.bench.chaos.stream import drain, fill, interactions, outgoing
from bandit_router.events import Feedback
from bandit_router.types import Interaction

MOST_COPIES = 5
EARLY_OF, LATE_OF = 5, 20
WINDOW_S = 600.0


def repeated_feedback(rig: Rig, *, decisions: int, seed: int = 5) -> Finding:
    """Every feedback 1 to 5 times, shuffled; of 5 one before its decision, of 20 one too late."""
    started = time.monotonic()
    rng = random.Random(seed)  # noqa: S311 - a schedule, not a secret
    with rig.broker() as broker, rig.site(broker, window_s=WINDOW_S) as site:
        whole = list(interactions(site.settings, decisions, seed=seed, first_ts=time.time()))
        rng.shuffle(whole)
        late = {d.event_id for d, _, _ in whole[::LATE_OF]}
        early = {d.event_id for d, _, _ in whole[1::EARLY_OF]} - late
        first, then = [], []
        score: dict[str, float] = {}
        for decision, completion, feedback in whole:
            copies = rng.randint(1, MOST_COPIES)
            sent = [_late(feedback) if decision.event_id in late else feedback] * copies
            then += [decision, completion]
            if decision.event_id in early:
                first.append(sent.pop())
            then += sent
            if decision.event_id not in late:
                score[decision.event_id] = feedback.value
        rng.shuffle(first)
        rng.shuffle(then)
        outbox = site.folder / "outbox.db"
        for part in (first, then):  # what is early has arrived before the others leave
            fill(outbox, map(outgoing, part))
            drain(site.settings, outbox, timeout_s=60)
        learner = site.learner()
        learner.start()
        records = len(first) + len(then)
        settled_events(site, records)
        site.given = Acknowledged(
            decisions={d.event_id for d, _, _ in whole},
            completions={d.event_id for d, _, _ in whole},
            feedbacks=set(score),
        )
        finding = judge(
            site,
            broker,
            "feedback sent 1 to 5 times, shuffled, early and late",
            injected=records - 3 * decisions,
            started=started,
        )
        wrong, note = _against(site, score, records - 2 * decisions, decisions - len(score))
        note = f"{len(early)} early, {note}"
        return replace(finding, acknowledged=records, wrong=finding.wrong + wrong, note=note)


def _late(feedback: Feedback) -> Feedback:
    return msgspec.structs.replace(feedback, ts=feedback.ts + WINDOW_S)


def _against(
    site: Site, score: dict[str, float], feedbacks: int, late: int
) -> tuple[tuple[str, ...], str]:
    """What the learner made of it: laws that did not hold, and the counts in words."""
    (path,) = site.reference.values()
    with SqliteStore.open(path, create=False) as store:
        given = {row.event_id: row.score for _, row in store.rows() if isinstance(row, Interaction)}
        rejected = store.rejected_counts()
    wrong = []
    if given != score:
        wrong.append(f"{len(given)} scores applied, {len(score)} are distinct and in time")
    aside = sum(rejected.values())
    if aside != feedbacks - len(score):
        wrong.append(f"{aside} set aside, but {feedbacks - len(score)} were sent for nothing")
    if set(rejected) - {"duplicate", "late"}:
        wrong.append(f"set aside for other reasons: {rejected}")
    counts = ", ".join(f"{count} {reason}" for reason, count in rejected.items())
    return tuple(
        wrong
    ), f"of {feedbacks} feedbacks {len(given)} applied, {counts} ({late} decisions)"
