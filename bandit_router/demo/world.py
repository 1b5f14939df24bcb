"""The simulated world: a source of events, and nothing that decides or learns.

Everything in it is a function of the log, the seed and the choices that were made, so a world that
is set up again goes on where the stored events of the last one end.
"""

from __future__ import annotations

import dataclasses
import hashlib
import heapq
from dataclasses import dataclass

import numpy as np

from bandit_router.adapters.pareto_log import LOGS, PREFIX, read_pareto_log
from bandit_router.adapters.tables import OutcomeTable
from bandit_router.events import Completion, Feedback, Outcome
from bandit_router.events.ids import uuid7
from bandit_router.regret import rewards
from bandit_router.types import Context, Decision

APP = "demo"
START_TS = 1_767_225_600.0
"""2026-01-01T00:00:00Z, when the simulated clock starts. Queries arrive one per second, in the
mean, so that seconds of delay are about as many queries."""

ANSWER_S = 1.2
JUDGED_AFTER_S = 10.0
JUDGED_MEAN_S = 20.0
JUDGED_LIMIT_S = 110.0
"""An answer takes a lognormal time about ``ANSWER_S``; what it was worth is known
``JUDGED_AFTER_S`` and an exponential time of mean ``JUDGED_MEAN_S`` later, at most the limit."""

DROP_FACTOR = 0.6
"""What is left of the failing model's scores. Its answers still come, at the same price."""


@dataclass(frozen=True)
class Drop:
    """A model that gets worse in silence.

    Attributes:
        model: which.
        query: the first query, counted from 0 in order of arrival, whose answer is worse.
        factor: what every one of its scores is multiplied with from then on.
    """

    model: str
    query: int
    factor: float


@dataclass(frozen=True)
class World:
    """What happens, whatever is chosen. All arrays have shape (n,), in order of arrival.

    Attributes:
        table: what each model would answer each query, the drop included.
        seed: of the order, the times and the ids.
        drop: which model fails and when; None when none does.
        arrival_ts: when each query comes, seconds since the Unix epoch, ascending.
        answer_s: seconds until its answer is there.
        judged_s: seconds from the answer until its score is known.
    """

    table: OutcomeTable
    seed: int
    drop: Drop | None
    arrival_ts: np.ndarray
    answer_s: np.ndarray
    judged_s: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    def event_id(self, query: int) -> str:
        """Id of a query's decision, a UUIDv7 of its arrival."""
        random = hashlib.blake2b(f"{self.seed}/{query}".encode(), digest_size=10).digest()
        return uuid7(float(self.arrival_ts[query]), random)

    def context(self, query: int) -> Context:
        """A query as it comes in, with its embedding if the table has embeddings."""
        embeddings = self.table.embeddings
        return Context(
            event_id=self.event_id(query),
            ts=float(self.arrival_ts[query]),
            prompt=self.table.prompts[query],
            app=APP,
            embedding=None if embeddings is None else embeddings[query],
        )

    def outcomes(self, query: int, decision: Decision) -> tuple[Outcome, Outcome]:
        """What comes back for a decision: the answer's cost, and later its score.

        They are those of the model that was chosen; no other cell of the table is read.
        """
        column = self.table.models.index(decision.action)
        answered = decision.ts + float(self.answer_s[query])
        return (
            Completion(
                event_id=decision.event_id,
                ts=answered,
                app=APP,
                model=decision.action,
                cost_usd=float(self.table.costs_usd[query, column]),
                latency_s=float(self.answer_s[query]),
            ),
            Feedback(
                event_id=decision.event_id,
                ts=answered + float(self.judged_s[query]),
                app=APP,
                metric="score",
                value=float(self.table.scores[query, column]),
                source="judge",
                feedback_id="judge",
            ),
        )


class OnTheirWay:
    """Outcomes that have not arrived yet, in the order of their event times."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Outcome]] = []
        self._added = 0

    def add(self, outcomes: tuple[Outcome, ...]) -> None:
        """Send outcomes off."""
        for outcome in outcomes:
            heapq.heappush(self._heap, (outcome.ts, self._added, outcome))
            self._added += 1

    def arrived(self, until_ts: float) -> list[Outcome]:
        """Take out what arrives up to then."""
        found = []
        while self._heap and self._heap[0][0] <= until_ts:
            found.append(heapq.heappop(self._heap)[2])
        return found


def demo_log(limit: int | None = None) -> OutcomeTable:
    """The packaged prompts with every model's outcome: ``val``, then ``test_holdout``.

    Args:
        limit: take the first so many only, >= 1.

    Raises:
        DependencyError: package ``paretobandit`` is not installed.
        LogFormatError: its files have another form.
    """
    first, second = (read_pareto_log(name) for name in LOGS)
    both = OutcomeTable(
        path=PREFIX + "+".join(LOGS),
        sha256=hashlib.sha256((first.sha256 + second.sha256).encode()).hexdigest(),
        models=first.models,
        query_ids=first.query_ids + second.query_ids,
        prompts=first.prompts + second.prompts,
        scores=np.concatenate([first.scores, second.scores]),
        costs_usd=np.concatenate([first.costs_usd, second.costs_usd]),
        folds=np.repeat([0, 1], [len(first), len(second)]),
    )
    return both if limit is None else both.take(range(min(limit, len(both))))


def make_world(
    log: OutcomeTable, *, seed: int, quality_value_usd: float, failing: bool = True
) -> World:
    """The world over a log: its queries shuffled inside each fold, and their times.

    Args:
        log: folds follow each other; without folds it is shuffled as a whole.
        seed: of everything random.
        quality_value_usd: what a fully good answer is worth, USD, > 0.
        failing: half-way, the model whose mean reward was best until then loses a part of its
            scores (:data:`DROP_FACTOR`), because losing the favourite is what hurts.
    """
    rng = np.random.default_rng([seed, 0xDE30])
    folds = np.zeros(len(log), int) if log.folds is None else log.folds
    order = np.concatenate([rng.permutation(np.flatnonzero(folds == f)) for f in np.unique(folds)])
    table, drop = log.take(order), None
    if failing:
        table, drop = _with_drop(table, quality_value_usd)
    n = len(table)
    # Whole milliseconds: event times as a log would have them.
    return World(
        table=table,
        seed=seed,
        drop=drop,
        arrival_ts=START_TS + np.cumsum(rng.exponential(1.0, n)).round(3),
        answer_s=rng.lognormal(np.log(ANSWER_S), 0.4, n).round(3),
        judged_s=np.minimum(
            JUDGED_AFTER_S + rng.exponential(JUDGED_MEAN_S, n), JUDGED_LIMIT_S
        ).round(3),
    )


def _with_drop(table: OutcomeTable, quality_value_usd: float) -> tuple[OutcomeTable, Drop]:
    query = len(table) // 2
    reward = rewards(table.scores[:query], table.costs_usd[:query], quality_value_usd)
    column = int(np.argmax(reward.mean(axis=0)))
    scores = table.scores.copy()
    scores[query:, column] *= DROP_FACTOR
    drop = Drop(table.models[column], query, DROP_FACTOR)
    return dataclasses.replace(table, scores=scores), drop
