"""One entrant on one routing log with one seed, at each of the log's quality values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bandit_router.adapters.artefacts import load_projection
from bandit_router.adapters.tables import OutcomeTable
from bandit_router.bench.entrants import BEST_FIXED, Entrant, FeatureKind
from bandit_router.bench.routing_logs import QUALITY_VALUES_USD
from bandit_router.bootstrap import make_featurizer, make_policy
from bandit_router.features.featurizer import Featurizer
from bandit_router.features.projection import fit_projection
from bandit_router.models import Catalog
from bandit_router.policy.base import Policy
from bandit_router.regret import fixed_hull
from bandit_router.replay import (
    FeatureMaker,
    Labelled,
    Plan,
    query_order,
    replay,
    table_features,
    without_queries,
)
from bandit_router.report.measure import measure
from bandit_router.types import Features

STREAM_PROMPTS = 200


@dataclass(frozen=True)
class CellRun:
    """Means over the queries of one run."""

    log: str
    quality_value_usd: float
    entrant: str
    seed: int
    score: float
    cost_usd: float
    reward: float
    lift: float
    second_half_lift: float | None
    regret: float
    queries_per_second: float


@dataclass(frozen=True)
class LiftJob:
    """One entrant, one log, one seed."""

    log: str
    entrant: Entrant
    seed: int


@dataclass(frozen=True)
class LiftLogs:
    """What the jobs of a process share; features are made when first asked for.

    Attributes:
        tables: logs to replay.
        warm: logs to warm-start from.
    """

    tables: dict[str, OutcomeTable]
    warm: dict[str, OutcomeTable]
    made: dict[tuple[str, str, bool], list[Features]] = field(default_factory=dict)

    def features(self, job: LiftJob, *, warm: bool = False) -> tuple[list[Features], int]:
        """Features of every row of the job's log (or of its warm-start log), and their number."""
        table = (self.warm if warm else self.tables)[job.log]
        kind = job.entrant.features
        featurizer = _featurizer(kind, self.tables[job.log], job.seed)
        if kind == "none":
            nothing = Features(dense=np.zeros(featurizer.dimension))
            return [nothing] * len(table), featurizer.dimension
        columns = ("task",) if kind == "task" else ()
        if kind == "first-200":
            return table_features(table, featurizer, columns), featurizer.dimension
        key = (job.log, kind, warm)
        if key not in self.made:
            self.made[key] = table_features(table, featurizer, columns)
        return self.made[key], featurizer.dimension


def _featurizer(kind: FeatureKind, table: OutcomeTable, seed: int) -> FeatureMaker:
    if kind == "paretobandit":
        from bandit_router.adapters.pareto import ParetoFeaturizer

        return ParetoFeaturizer()
    if kind != "first-200":
        return make_featurizer(embed=False)
    shipped, scaling = load_projection()
    first = query_order(len(table), seed)[:STREAM_PROMPTS]
    projection = fit_projection(
        table.embeddings[first], np.ones(len(first)), 16, embedder_id=shipped.embedder_id
    )
    return Featurizer(projection, scaling)


def run_lift_job(logs: LiftLogs, job: LiftJob) -> list[CellRun]:
    """Replay the job's log, cold and with bandit feedback only, at each quality value."""
    features, dimension = logs.features(job)
    table, entrant = logs.tables[job.log], job.entrant
    labelled = None
    if entrant.warm:
        warm = logs.features(job, warm=True)[0]
        labelled = Labelled(logs.warm[job.log], lambda _: warm)

    def make(name: str, catalog: Catalog, seed: int, budget_usd: float | None) -> Policy:
        del name, budget_usd  # one entrant, no budgets
        options = dict(entrant.options)
        return make_policy(entrant.policy, catalog, dimension=dimension, seed=seed, **options)

    plan = Plan((entrant.name,), QUALITY_VALUES_USD[job.log], seed0=job.seed)
    traces = replay(plan, table, lambda _: features, make, warm=labelled)
    runs = [measure(table, trace).run for trace in traces]
    return [
        CellRun(
            log=job.log,
            quality_value_usd=run.quality_value_usd,
            entrant=entrant.name,
            seed=job.seed,
            score=run.mean_score,
            cost_usd=run.mean_cost_usd,
            reward=run.mean_reward,
            lift=run.lift,
            second_half_lift=run.second_half.lift,
            regret=run.regret.best_fixed,
            queries_per_second=run.decisions_per_second,
        )
        for run in runs
    ]


def best_fixed_runs(logs: LiftLogs, seeds: Sequence[int]) -> list[CellRun]:
    """The best single model in hindsight, as if it had run with each seed."""
    found = []
    for log, table in logs.tables.items():
        score, cost = table.scores.mean(axis=0), table.costs_usd.mean(axis=0)
        hull = fixed_hull(table.scores, table.costs_usd)
        for value in QUALITY_VALUES_USD[log]:
            best = int(np.argmax(score - cost / value))
            lift = float(score[best]) - hull.score_at(float(cost[best]))
            found += [
                CellRun(
                    log=log,
                    quality_value_usd=value,
                    entrant=BEST_FIXED,
                    seed=seed,
                    score=float(score[best]),
                    cost_usd=float(cost[best]),
                    reward=float(score[best] - cost[best] / value),
                    lift=lift,
                    second_half_lift=None,
                    regret=0.0,
                    queries_per_second=0.0,
                )
                for seed in seeds
            ]
    return found


def warm_logs(
    tables: dict[str, OutcomeTable], labelled: dict[str, OutcomeTable]
) -> dict[str, OutcomeTable]:
    """``labelled`` without the queries that are replayed. Raises InputError when none is left."""
    return {log: without_queries(labelled[log], tables[log]) for log in tables}
