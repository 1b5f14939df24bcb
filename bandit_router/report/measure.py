"""From a run's trace and the full-information log to the run's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bandit_router.adapters.tables import OutcomeTable
from bandit_router.ope.regret_rows import Choices
from bandit_router.regret import (
    Comparators,
    ErrorLedger,
    best_reward_choice,
    cheapest_best,
    comparators,
    error_ledger,
    fixed_hull,
    rewards,
)
from bandit_router.replay import Setting, Trace, budget_quality_value
from bandit_router.report.document import (
    EstimatedRegret,
    HalfMeans,
    Interval,
    LogInfo,
    Means,
    Regret,
    ReportDocument,
    Run,
)
from bandit_router.report.regret_curve import Observed, RegretCurve, regret_curve


@dataclass(frozen=True)
class Measured:
    """A run's numbers, and what the pictures need beside them, in order of arrival.

    Attributes:
        run: its entry of ``report.json``.
        chosen: shape (n,), column of the model chosen.
        best: shape (n,), column of the model with the largest reward.
        reward: shape (n,), of the model chosen.
        against: reward per query of every comparator.
        errors: errors towards quality and towards cost.
        estimated: regret as the run's own log tells it; None when it was not asked for, or when
            the run gave some model no chance.
    """

    run: Run
    chosen: np.ndarray
    best: np.ndarray
    reward: np.ndarray
    against: Comparators
    errors: ErrorLedger
    estimated: RegretCurve | None = None


def measuring_value(table: OutcomeTable, setting: Setting) -> float:
    """The quality value a run is measured at: its own, or the hull's at its budget."""
    if setting.budget_usd is None:
        return setting.quality_value_usd
    return budget_quality_value(table, setting.budget_usd)


def observed(table: OutcomeTable, trace: Trace) -> Observed | None:
    """What the run itself saw of the table; None for a trace without its pmfs."""
    if trace.pmf is None:
        return None
    cells = (trace.queries, trace.chosen)
    choices = Choices(
        trace.chosen, trace.propensities, trace.pmf, table.scores[cells], table.costs_usd[cells]
    )
    return Observed(np.arange(len(choices)), choices)


def measure(table: OutcomeTable, trace: Trace, log: Observed | None = None) -> Measured:
    """Everything that is reported of one run.

    Args:
        log: what the run logged, to estimate its regret from; its ``places`` count arrivals. None
            leaves the estimate out.
    """
    value = measuring_value(table, trace.setting)
    scores, costs = table.scores[trace.queries], table.costs_usd[trace.queries]
    curve = None if log is None else regret_curve(log, scores, costs, value)
    rows = np.arange(len(trace.chosen))
    score, cost = scores[rows, trace.chosen], costs[rows, trace.chosen]
    reward = rewards(score, cost, value)
    against = comparators(scores, costs, value, float(cost.mean()))
    hull_score = fixed_hull(scores, costs).score_at(float(cost.mean()))
    run = Run(
        policy=trace.setting.policy,
        quality_value_usd=value,
        budget_usd=trace.setting.budget_usd,
        seed=trace.setting.seed,
        queries=len(rows),
        mean_score=float(score.mean()),
        mean_cost_usd=float(cost.mean()),
        mean_reward=float(reward.mean()),
        hull_score_at_cost=hull_score,
        lift=float(score.mean()) - hull_score,
        second_half=_second_half(scores, costs, score, cost),
        share=_shares(table, trace),
        explore_share=float(trace.explored.mean()),
        regret=Regret(
            best_fixed=float(against.best_fixed.mean() - reward.mean()),
            hull=float(against.hull.mean() - reward.mean()),
            oracle=float(against.oracle.mean() - reward.mean()),
        ),
        estimated_regret=None if curve is None else _estimated(curve),
        decisions_per_second=len(rows) / max(trace.seconds, 1e-9),
    )
    return Measured(
        run=run,
        chosen=trace.chosen,
        best=best_reward_choice(scores, costs, value),
        reward=reward,
        against=against,
        errors=error_ledger(scores, costs, trace.chosen, value),
        estimated=curve,
    )


def _estimated(curve: RegretCurve) -> EstimatedRegret:
    value, lower, upper, _ = curve.last
    return EstimatedRegret(best_fixed=Interval(value=value, lower=lower, upper=upper))


def _second_half(
    scores: np.ndarray, costs: np.ndarray, score: np.ndarray, cost: np.ndarray
) -> HalfMeans:
    half = slice(len(score) // 2, None)
    mean_score, mean_cost = float(score[half].mean()), float(cost[half].mean())
    hull = fixed_hull(scores[half], costs[half])
    return HalfMeans(
        mean_score=mean_score,
        mean_cost_usd=mean_cost,
        lift=mean_score - hull.score_at(mean_cost),
    )


def _shares(table: OutcomeTable, trace: Trace) -> dict[str, float]:
    counts = np.bincount(trace.chosen, minlength=len(table.models)) / len(trace.chosen)
    return dict(zip(table.models, counts.tolist(), strict=True))


def document(table: OutcomeTable, measured: Sequence[Measured]) -> ReportDocument:
    """``report.json`` of a replay."""
    hull = fixed_hull(table.scores, table.costs_usd)
    means = zip(
        table.scores.mean(axis=0).tolist(), table.costs_usd.mean(axis=0).tolist(), strict=True
    )
    rows = np.arange(len(table))
    oracle = cheapest_best(table.scores, table.costs_usd)
    return ReportDocument(
        log=LogInfo(path=table.path, sha256=table.sha256, queries=len(table), models=table.models),
        fixed={
            model: Means(mean_score=score, mean_cost_usd=cost)
            for model, (score, cost) in zip(table.models, means, strict=True)
        },
        hull=tuple(zip(hull.costs_usd.tolist(), hull.scores.tolist(), strict=True)),
        oracle=Means(
            mean_score=float(table.scores[rows, oracle].mean()),
            mean_cost_usd=float(table.costs_usd[rows, oracle].mean()),
        ),
        runs=tuple(m.run for m in measured),
    )
