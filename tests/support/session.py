"""A live session over a store, every step a function of its position: it can be killed anywhere
and resumed by the same call.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable
from pathlib import Path

from support.streams import DIMENSION, SALT, catalog, features, outcomes, router_for

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.events import Change, Event
from bandit_router.joiner import JoinRules
from bandit_router.loop import Loop
from bandit_router.snapshot import Recipe
from bandit_router.store_ops import SALT as SALT_KEY
from bandit_router.store_ops import resume
from bandit_router.types import Context, Decision

DELAY = 4
COMMIT_EVERY = 7
SNAPSHOT_EVERY = 25


def recipe(policy: str = "linucb", **fields) -> Recipe:
    """An untrained router of the test catalog."""
    defaults = {
        "app": "default",
        "policy": policy,
        "dimension": DIMENSION,
        "featurizer_id": "test",
        "catalog": tuple(catalog()),
        "quality_value_usd": 0.05,
        "target_cost_usd": 0.004,
    }
    return Recipe(**(defaults | fields))


def changes(tick: int) -> list[Change]:
    """The catalog changes of a session."""
    if tick == 30:
        spec = {"model": "a", "expected_cost_usd": 0.002}
        return [Change(ts=30.0, kind="model_repriced", data=spec)]
    return []


class Session:
    """Decides, stores, learns; its outcomes come ``DELAY`` decisions later.

    Args:
        store: is resumed from, and appended to.
        made_from: the recipe.
        at: called with the name of each point that is passed, to be killed there.
    """

    def __init__(
        self, store: SqliteStore, made_from: Recipe, at: Callable[[str], None] = lambda _: None
    ) -> None:
        store.set_meta(SALT_KEY, SALT)
        self.loop: Loop = resume(store, made_from, snapshot_every=SNAPSHOT_EVERY)
        self._store = store
        self._at = at
        self._router = router_for(self.loop.learner)
        self._stored = store.last_offset()
        self._position = 0

    def run(self, ticks: int) -> Loop:
        """Go on to the given tick."""
        waiting: deque[list[Event]] = deque()
        for tick in range(ticks):
            for change in changes(tick):
                self._publish(change)
            waiting.append(outcomes(self._decide(tick), seed=tick))
            if len(waiting) > DELAY:
                for event in waiting.popleft():
                    self._publish(event)
            if tick % COMMIT_EVERY == 0:
                self._at("before commit")
                self.loop.sink.commit()
                self._at("after commit")
        self.loop.sink.commit()
        return self.loop

    def _decide(self, tick: int) -> Decision:
        if self._position < self._stored:
            self._position += 1
            made = self._store.decision(f"d{tick}")
            assert made is not None
            return made
        # Three at a time, so that one event ends the windows of several.
        context = Context(event_id=f"d{tick}", ts=float(tick // 3 * 3))
        decision = self._router.decide(context, features=features(tick))
        self._publish(decision)
        return decision

    def _publish(self, event: Event) -> None:
        self._position += 1
        if self._position <= self._stored:
            return
        self._at("before append")
        (offset,) = self._store.append([event])
        self._at("after append")
        self.loop.feed(event, offset)
        self._at("after feed")


WINDOW = JoinRules(closing="window", window_s=20.0, slack_s=5.0, max_jump_s=10.0)


def run_and_die(path: str, ticks: int, die_at: int | None, closing: str = "first") -> None:
    """Run a session in this process; with ``die_at``, SIGKILL it at that many-th point."""
    passed = 0

    def at(_: str) -> None:
        nonlocal passed
        passed += 1
        if passed == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    with SqliteStore.open(Path(path)) as store:
        rules = WINDOW if closing == "window" else JoinRules()
        Session(store, recipe(rules=rules), at).run(ticks)


def contents(path: Path) -> dict[str, list[tuple]]:
    """Every row of the tables that a session writes."""
    tables = ("events", "training", "rejected", "snapshots", "changes", "meta")
    with SqliteStore.open(path, create=False) as store:
        return {
            table: sorted(tuple(row.values()) for row in store.database[table].rows)
            for table in tables
        }
