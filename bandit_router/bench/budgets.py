"""ParetoBandit's own protocol: hold a budget, learn on ``val``, be judged on ``test_holdout``.

Both sides see the same prompts in the same order: that of ParetoBandit's demo, ``val`` shuffled,
then ``test_holdout`` shuffled, learning from every answer until the end.

ParetoBandit runs through ``run_trial`` of its own demo (scenario 1): its shipped priors, its
``BEST_K3_HPARAMS``, its adaptive pacer, no static penalty. Its 25 principal components are computed
from the embeddings of this package's encoder, the int8 all-MiniLM-L6-v2 of at most 256 tokens; its
demo uses the float32 weights of the same model through sentence-transformers.

Ours starts cold: no priors. Its prices are the mean costs in ``val``, blurred.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from bandit_router.adapters.embedding import make_embedder
from bandit_router.adapters.pareto_log import read_pareto_log
from bandit_router.adapters.tables import OutcomeTable
from bandit_router.bench.entrants import OURS, PARETO
from bandit_router.bootstrap import make_featurizer, make_policy
from bandit_router.regret import fixed_hull
from bandit_router.replay import Plan, Player, blurred_catalog, embedded, table_features
from bandit_router.types import Features

BUDGETS_USD = (8.3e-5, 2.35e-4, 6.5e-4, 1.7e-3, 4.7e-3, 1.1e-2)


@dataclass(frozen=True)
class BudgetRun:
    """One side's means on ``test_holdout``.

    Attributes:
        spend: mean cost over budget.
        lift: mean score above the fixed-arm hull of ``test_holdout`` at the spend.
    """

    entrant: str
    budget_usd: float
    seed: int
    score: float
    cost_usd: float
    spend: float
    lift: float


@dataclass(frozen=True)
class BudgetJob:
    """One side, one budget, one seed."""

    entrant: str
    budget_usd: float
    seed: int


@dataclass(frozen=True)
class BudgetLogs:
    """What the jobs of a process share; features are made when first asked for."""

    val: OutcomeTable
    test: OutcomeTable
    made: dict[str, list[list[Features]]] = field(default_factory=dict)

    def features(self, entrant: str) -> list[list[Features]]:
        """Features of ``val`` and of ``test_holdout``."""
        if entrant not in self.made:
            if entrant == PARETO.name:
                from bandit_router.adapters.pareto import ParetoFeaturizer

                featurizer = ParetoFeaturizer()
            else:
                featurizer = make_featurizer(embed=False)
            tables = (self.val, self.test)
            self.made[entrant] = [table_features(table, featurizer) for table in tables]
        return self.made[entrant]


def read_budget_logs(
    tick: Callable[[int], None] | None = None,
    *,
    limit: int | None = None,
    cache: Path | None = None,
    holdout: bool = True,
) -> BudgetLogs:
    """The packaged logs with embeddings of this package's encoder.

    Args:
        tick: progress, in prompts embedded.
        limit: keep the first prompts of each log only.
        cache: a folder where embeddings are kept between runs; None keeps none.
        holdout: False leaves ``test_holdout`` alone and splits ``val``, every other prompt judged:
            for trying things out without looking at what is to be reported.

    Raises:
        DependencyError: the package ``paretobandit`` is not installed.
    """

    def read(name: str) -> OutcomeTable:
        return _embedded(read_pareto_log(name, limit=limit), tick, cache)

    val = read("val")
    if holdout:
        return BudgetLogs(val, read("test_holdout"))
    rows = range(len(val))
    return BudgetLogs(val.take(rows[::2]), val.take(rows[1::2]))


def _embedded(
    table: OutcomeTable, tick: Callable[[int], None] | None, cache: Path | None
) -> OutcomeTable:
    embedder = make_embedder()
    if cache is None:
        return embedded(table, embedder, tick)
    identity = f"{embedder.embedder_id}\0{table.sha256}\0{len(table)}"
    path = cache / f"embeddings-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npy"
    if path.is_file():
        return replace(table, embeddings=np.load(path, allow_pickle=False))
    made = embedded(table, embedder, tick)
    cache.mkdir(parents=True, exist_ok=True)
    np.save(path, made.embeddings)
    return made


def run_budget_job(logs: BudgetLogs, job: BudgetJob) -> BudgetRun:
    """Learn on ``val``, go on learning on ``test_holdout``, and measure there."""
    play = _play_theirs if job.entrant == PARETO.name else _play_ours
    score, cost = play(logs, job)
    hull = fixed_hull(logs.test.scores, logs.test.costs_usd)
    return BudgetRun(
        entrant=job.entrant,
        budget_usd=job.budget_usd,
        seed=job.seed,
        score=score,
        cost_usd=cost,
        spend=cost / job.budget_usd,
        lift=score - hull.score_at(cost),
    )


def _play_ours(logs: BudgetLogs, job: BudgetJob) -> tuple[float, float]:
    """Mean score and cost of the default policy with the budget pacer."""
    rng = np.random.default_rng(job.seed)
    orders = [rng.permutation(len(table)) for table in (logs.val, logs.test)]
    before, judged = logs.features(job.entrant)
    (setting,) = Plan((job.entrant,), (), (job.budget_usd,), seed0=job.seed).settings()
    catalog = blurred_catalog(logs.val, job.seed)
    dimension = len(before[0].dense)
    player = Player(
        make_policy(OURS.policy, catalog, dimension=dimension, seed=job.seed),
        catalog,
        quality_value_usd=setting.quality_value_usd,
        budget_usd=job.budget_usd,
        seed=job.seed,
    )
    player.play(logs.val, before, orders[0].tolist())
    chosen = player.play(logs.test, judged, orders[1].tolist()).chosen
    cells = (orders[1], chosen)
    return float(logs.test.scores[cells].mean()), float(logs.test.costs_usd[cells].mean())


def _play_theirs(logs: BudgetLogs, job: BudgetJob) -> tuple[float, float]:
    """Mean score and cost of ParetoBandit, as its demo runs it."""
    logging.getLogger("pareto_bandit").setLevel(logging.ERROR)
    from pareto_bandit.budget_pacer import BudgetPacer, PacingMode
    from pareto_bandit.demo import ARM_ORDER, DataSplit, run_trial

    def split(table: OutcomeTable, features: list[Features]) -> DataSplit:
        columns = [table.models.index(arm) for arm in ARM_ORDER]
        dense = np.array([f.dense for f in features])
        return DataSplit(
            embeddings=np.column_stack([dense, np.ones(len(dense))]),
            rewards={arm: table.scores[:, k] for arm, k in zip(ARM_ORDER, columns, strict=True)},
            costs={arm: table.costs_usd[:, k] for arm, k in zip(ARM_ORDER, columns, strict=True)},
        )

    train, holdout = logs.features(job.entrant)
    metrics = run_trial(
        split(logs.val, train),
        split(logs.test, holdout),
        cost_penalty=0.0,
        budget_pacer=BudgetPacer(target_avg_spend_usd=job.budget_usd, mode=PacingMode.ADAPTIVE),
        seed=job.seed,
    )
    return float(metrics.mean_reward), float(metrics.mean_cost)
