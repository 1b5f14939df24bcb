"""How much memory a long life costs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bandit_router.bench.figures import Figure, skipped
from bandit_router.bench.workers import run_apart
from bandit_router.bootstrap import make_policy
from bandit_router.events import Completion, Feedback
from bandit_router.joiner import Joiner
from bandit_router.learner import Learner
from bandit_router.loop import Loop, MemorySink
from bandit_router.models import Catalog, ModelSpec
from bandit_router.router import Router
from bandit_router.types import Context, Features

LEARNS = 100_000
AT_MOST_MB = 20.0
DIMENSION = 24
_STATM = Path("/proc/self/statm")
_WARM_UP = 2000
_NAME = "memory growth over {:,} learns"


def memory_figures(*, learns: int = LEARNS) -> list[Figure]:
    """Growth of resident memory over that many decisions, joined and learned, 3 models.

    It is measured in a process of its own, after up to 2,000 queries that are not counted; the
    rows that come out are dropped, as a store would write them away. Every query has numbers and
    n-grams of its own, and a tenant: first one of 20, then one never seen before.
    """
    name = _NAME.format(learns)
    tenants = {name: 20, f"{name}, each of a tenant of its own": learns + _WARM_UP}
    if not _STATM.exists():
        why = f"{sys.platform} has no {_STATM}"
        return [skipped(name, "MB", why, at_most=AT_MOST_MB) for name in tenants]
    note = "resident memory, whole loop, a process of its own"
    return [
        Figure(name, run_apart(_growth_mb, (learns, n)), "MB", at_most=AT_MOST_MB, note=note)
        for name, n in tenants.items()
    ]


def _growth_mb(size: tuple[int, int]) -> float:
    learns, tenants = size
    loop, router = _live()
    rng = np.random.default_rng(0)
    start = min(_WARM_UP, learns)
    _run(loop, router, rng, range(start), tenants)
    before = _resident_mb()
    _run(loop, router, rng, range(start, start + learns), tenants)
    return _resident_mb() - before


class _Dropping(MemorySink):
    """Drops what a store would keep."""

    def put(self, *step: Any) -> None:
        """Take one step, and forget it."""
        super().put(*step)
        self.rows.clear()
        self.rejected.clear()


class _Given:
    """The features are always given."""

    featurizer_id = "bench"

    def features(self, context: Context) -> Features:
        raise AssertionError(context.event_id)


def _live() -> tuple[Loop, Router]:
    catalog = Catalog(
        ModelSpec(model=f"model-{k}", expected_cost_usd=1e-4 * 8.0**k) for k in range(3)
    )
    policy = make_policy("bandit", catalog, dimension=DIMENSION)
    learner = Learner(policy, catalog)
    router = Router(
        policy, _Given(), catalog, salt="bench", quality_value_usd=lambda: 0.02, state=learner
    )
    return Loop(Joiner(), learner, _Dropping()), router


def _run(loop: Loop, router: Router, rng: np.random.Generator, places: range, tenants: int) -> None:
    for place in places:
        features = Features(
            dense=rng.standard_normal(DIMENSION).astype(np.float32).astype(np.float64),
            ngrams=tuple(sorted(set(rng.integers(2**18, size=32).tolist()))),
            columns={"tenant": f"tenant-{place % tenants}"},
        )
        event_id, now = f"memory-{place}", float(place)
        decision = router.decide(Context(event_id=event_id, ts=now), features=features)
        loop.feed(decision, 3 * place)
        cost = 1e-4 * 8.0 ** decision.eligible.index(decision.action)
        loop.feed(
            Completion(event_id=event_id, ts=now, model=decision.action, cost_usd=cost),
            3 * place + 1,
        )
        score = float(rng.random() < 0.6)
        loop.feed(
            Feedback(
                event_id=event_id, ts=now, metric="score", value=score, source="bench",
                feedback_id="f",
            ),
            3 * place + 2,
        )  # fmt: skip


def _resident_mb() -> float:
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
