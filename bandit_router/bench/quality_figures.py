"""From the runs of `bench quality` to means, paired differences and figures with targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from bandit_router.bench.budgets import BudgetRun
from bandit_router.bench.entrants import BEST_FIXED, OURS, PARETO, VARIANTS, WARM
from bandit_router.bench.figures import Figure
from bandit_router.bench.intervals import Difference, paired_difference
from bandit_router.bench.lifts import CellRun

Cell = tuple[str, float]
"""(log, quality value in USD)."""

LIFT_AT_LEAST, REGRET_AT_MOST, CELL_LIFT_AT_LEAST = -0.0138, 0.022, -0.035
LIFT_AMBITION, REGRET_AMBITION = -0.008, 0.014
BUDGET_LIFT_AT_LEAST, SPEND_AT_MOST = -0.003, 1.02
WARM_LOGS = ("zeroeval", "routellm_gsm8k")

_NOT_COMPARED = frozenset({OURS.name, BEST_FIXED, *(variant.name for variant in VARIANTS)})


def cells_of(runs: Iterable[CellRun]) -> list[Cell]:
    """Cells in order of first appearance."""
    return list(dict.fromkeys((run.log, run.quality_value_usd) for run in runs))


def entrants_of(runs: Iterable[CellRun]) -> list[str]:
    """Entrants in order of first appearance."""
    return list(dict.fromkeys(run.entrant for run in runs))


def by_seed(
    runs: Iterable[CellRun], entrant: str, cell: Cell, what: Callable[[CellRun], float]
) -> list[float]:
    """One entrant's numbers in one cell, seed by seed."""
    found = [r for r in runs if r.entrant == entrant and (r.log, r.quality_value_usd) == cell]
    return [what(run) for run in sorted(found, key=lambda run: run.seed)]


@dataclass(frozen=True)
class Comparison:
    """Mean reward of the default policy less another's, in one cell."""

    cell: Cell
    other: str
    reward: Difference


def comparisons(runs: list[CellRun]) -> list[Comparison]:
    """The default policy against everyone else in every cell."""
    return [
        Comparison(
            cell,
            other,
            paired_difference(
                by_seed(runs, OURS.name, cell, lambda run: run.reward),
                by_seed(runs, other, cell, lambda run: run.reward),
            ),
        )
        for cell in cells_of(runs)
        for other in entrants_of(runs)
        if other != OURS.name
    ]


def is_baseline(entrant: str) -> bool:
    """Whether an entrant is another policy, not a variant of ours or a yardstick."""
    return entrant not in _NOT_COMPARED


def cell_means(
    runs: list[CellRun], entrant: str, what: Callable[[CellRun], float]
) -> dict[Cell, float]:
    """One entrant's mean over seeds in every cell."""
    return {cell: float(np.mean(by_seed(runs, entrant, cell, what))) for cell in cells_of(runs)}


def lift_figures(runs: list[CellRun]) -> list[Figure]:
    """The figures on the routing logs that have targets."""
    lifts = cell_means(runs, OURS.name, lambda run: run.lift)
    regrets = cell_means(runs, OURS.name, lambda run: run.regret)
    lift, regret = float(np.mean(list(lifts.values()))), float(np.mean(list(regrets.values())))
    worst = min(lifts, key=lambda cell: lifts[cell])
    n = f"mean of {len(lifts)} cells"
    figures = [
        Figure("mean lift", lift, "", at_least=LIFT_AT_LEAST, note=n),
        Figure("mean regret", regret, "", at_most=REGRET_AT_MOST, note=n),
        Figure(
            "worst cell's lift",
            lifts[worst],
            "",
            at_least=CELL_LIFT_AT_LEAST,
            note=f"{worst[0]} at ${worst[1]:g}",
        ),
        Figure("mean lift, ambition", lift, "", at_least=LIFT_AMBITION, note=n),
        Figure("mean regret, ambition", regret, "", at_most=REGRET_AMBITION, note=n),
        *_comparison_figures(runs),
    ]
    return figures + _warm_figures(runs)


def _comparison_figures(runs: list[CellRun]) -> list[Figure]:
    held = [c for c in comparisons(runs) if is_baseline(c.other)]
    if not held:
        return []
    below = [c for c in held if c.reward.mean < 0.0]
    clearly = [c for c in below if c.reward.verdict == "behind"]
    total = f"of {len(held)} comparisons with a baseline in a cell"
    return [
        Figure("mean reward below a baseline's", float(len(below)), "", at_most=0.0, note=total),
        Figure("of these, beyond noise", float(len(clearly)), "", at_most=0.0, note=total),
    ]


def _warm_figures(runs: list[CellRun]) -> list[Figure]:
    if WARM.name not in entrants_of(runs):
        return []
    lifts = cell_means(runs, WARM.name, lambda run: run.lift)
    figures = []
    for log in WARM_LOGS:
        own = [lift for cell, lift in lifts.items() if cell[0] == log]
        if own:
            figures.append(
                Figure(
                    f"mean lift, warm start, {log}",
                    float(np.mean(own)),
                    "",
                    at_least=0.0,
                    note=f"mean of {len(own)} cells; the target is above 0",
                )
            )
    return figures


@dataclass(frozen=True)
class BudgetRow:
    """Both sides at one budget, means over seeds.

    Attributes:
        score_gap: ours less theirs.
        worst_spend: our largest spend over budget of any seed.
    """

    budget_usd: float
    score: float
    their_score: float
    score_gap: Difference
    spend: float
    worst_spend: float
    their_spend: float
    lift: float
    their_lift: float


def budget_rows(runs: list[BudgetRun]) -> list[BudgetRow]:
    """One row per budget."""
    return [_budget_row(runs, budget) for budget in dict.fromkeys(r.budget_usd for r in runs)]


def _budget_row(runs: list[BudgetRun], budget: float) -> BudgetRow:
    def side(entrant: str) -> list[BudgetRun]:
        own = [r for r in runs if r.entrant == entrant and r.budget_usd == budget]
        return sorted(own, key=lambda run: run.seed)

    ours, theirs = side(OURS.name), side(PARETO.name)
    return BudgetRow(
        budget_usd=budget,
        score=float(np.mean([r.score for r in ours])),
        their_score=float(np.mean([r.score for r in theirs])),
        score_gap=paired_difference([r.score for r in ours], [r.score for r in theirs]),
        spend=float(np.mean([r.spend for r in ours])),
        worst_spend=max(r.spend for r in ours),
        their_spend=float(np.mean([r.spend for r in theirs])),
        lift=float(np.mean([r.lift for r in ours])),
        their_lift=float(np.mean([r.lift for r in theirs])),
    )


def budget_figures(runs: list[BudgetRun]) -> list[Figure]:
    """The figures of the paretobandit protocol that have targets: each the worst of the budgets."""
    rows = budget_rows(runs)
    behind = min(rows, key=lambda row: row.score_gap.mean)
    under = min(rows, key=lambda row: row.lift)
    dear = max(rows, key=lambda row: row.spend)
    return [
        Figure(
            "score less paretobandit's, worst budget",
            behind.score_gap.mean,
            "",
            at_least=0.0,
            note=f"at ${behind.budget_usd:g}: {behind.score_gap.verdict}",
        ),
        Figure(
            "score above the hull, worst budget",
            under.lift,
            "",
            at_least=BUDGET_LIFT_AT_LEAST,
            note=f"at ${under.budget_usd:g}",
        ),
        Figure(
            "spend over budget, worst budget",
            dear.spend,
            "",
            at_most=SPEND_AT_MOST,
            note=f"at ${dear.budget_usd:g}; mean over seeds, at most {dear.worst_spend:.3f}",
        ),
    ]
