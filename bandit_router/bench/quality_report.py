"""The result of `bench quality` as tables and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from bandit_router.bench.entrants import OURS
from bandit_router.bench.figures import Figure
from bandit_router.bench.grid import Grid, figure_grid
from bandit_router.bench.intervals import Difference
from bandit_router.bench.lifts import CellRun
from bandit_router.bench.quality import QualityResult
from bandit_router.bench.quality_figures import (
    BudgetRow,
    Cell,
    Comparison,
    budget_figures,
    budget_rows,
    by_seed,
    cell_means,
    cells_of,
    comparisons,
    entrants_of,
    lift_figures,
)

SCHEMA = "bandit_router.bench.quality/1"
LEGEND = (
    "Lift: mean score above the fixed-arm hull at the same spend. Regret: reward per query below "
    "the best fixed model. Reward: score - cost / quality value. Means over seeds; an interval is "
    "the 95 % one of the paired differences, and 'within noise' says that it covers 0."
)
BUDGET_LEGEND = (
    "Protocol: theirs is paretobandit with its own priors and pacer. Spend: mean cost over budget, "
    "mean and most of the seeds. Hull: mean score above the fixed-arm hull of the holdout."
)
_SHORT = {"routellm_gsm8k": "gsm8k", "alpaca_eval1": "alpaca"}
_MARKS = {"within noise": "~", "behind": "!", "ahead": "", "equal": "=", "one seed": "?"}


def figures(result: QualityResult) -> list[Figure]:
    """Everything that has a target."""
    found = lift_figures(result.cells) if result.cells else []
    return found + (budget_figures(result.budgets) if result.budgets else [])


def grids(result: QualityResult) -> list[Grid]:
    """The tables, most important first."""
    found = [figure_grid("Targets", figures(result))]
    if result.cells:
        found += _cell_grids(result.cells)
    if result.budgets:
        found.append(_budget_grid(budget_rows(result.budgets)))
    return found


def _cell_grids(runs: list[CellRun]) -> list[Grid]:
    compared = comparisons(runs)
    return [
        _matrix("Mean lift, in thousandths", runs, lambda run: run.lift),
        _matrix("Mean regret, in thousandths", runs, lambda run: run.regret),
        _gap_matrix(runs, compared),
        *(_cell_grid(runs, compared, cell) for cell in cells_of(runs)),
    ]


def _matrix(title: str, runs: list[CellRun], what: Callable[[CellRun], float]) -> Grid:
    """Entrants by cells, and the mean over cells."""
    rows = []
    for entrant in entrants_of(runs):
        means = list(cell_means(runs, entrant, what).values())
        rows.append((entrant, *(f"{mean * 1e3:+.1f}" for mean in [*means, np.mean(means)])))
    return Grid(title, (*_headers(runs), "mean"), tuple(rows))


def _headers(runs: list[CellRun]) -> tuple[str, ...]:
    return ("policy", *map(_cell_name, cells_of(runs)))


def _cell_name(cell: Cell) -> str:
    log, value = cell
    return f"{_SHORT.get(log, log)}\n{value:.2g}"


def _gap_matrix(runs: list[CellRun], compared: list[Comparison]) -> Grid:
    """Ours less theirs, marked where it is not clearly more."""
    found = {(c.other, c.cell): c.reward for c in compared}
    others = [entrant for entrant in entrants_of(runs) if entrant != OURS.name]
    return Grid(
        "Mean reward of bandit less theirs, in thousandths (~ within noise, ! behind)",
        _headers(runs),
        tuple((other, *(_gap(found[other, cell]) for cell in cells_of(runs))) for other in others),
    )


def _gap(difference: Difference) -> str:
    return f"{difference.mean * 1e3:+.1f}{_MARKS[difference.verdict]}"


def _cell_grid(runs: list[CellRun], compared: list[Comparison], cell: Cell) -> Grid:
    """Everyone in one cell, with the interval of the difference in reward."""
    gaps = {c.other: c.reward for c in compared if c.cell == cell}
    numbers = (
        lambda run: run.score, lambda run: run.lift, lambda run: run.regret, lambda run: run.reward
    )  # fmt: skip
    rows = []
    for entrant in entrants_of(runs):
        means = [float(np.mean(by_seed(runs, entrant, cell, what))) for what in numbers]
        gap = gaps.get(entrant)
        end = ("", "") if gap is None else (_interval(gap), gap.verdict)
        rows.append((entrant, *(f"{mean:.4f}" for mean in means), *end))
    return Grid(
        f"{cell[0]}, quality value ${cell[1]:g}",
        ("policy", "score", "lift", "regret", "reward", "bandit less it, 95 %", "verdict"),
        tuple(rows),
        texts=(6,),
    )


def _interval(difference: Difference) -> str:
    if difference.low is None or difference.high is None:
        return "-"
    return f"{difference.low:+.4f} to {difference.high:+.4f}"


def _budget_grid(rows: list[BudgetRow]) -> Grid:
    return Grid(
        "paretobandit's protocol: learn on val, judged on the holdout",
        ("budget USD", "score", "theirs", "difference, 95 %", "verdict", "spend", "most", "theirs",
         "hull", "theirs"),
        tuple(
            (
                f"{row.budget_usd:g}",
                f"{row.score:.4f}",
                f"{row.their_score:.4f}",
                _interval(row.score_gap),
                row.score_gap.verdict,
                f"{row.spend:.3f}",
                f"{row.worst_spend:.3f}",
                f"{row.their_spend:.3f}",
                f"{row.lift:+.4f}",
                f"{row.their_lift:+.4f}",
            )
            for row in rows
        ),
        texts=(4,),
    )  # fmt: skip


def legend(result: QualityResult) -> list[str]:
    """What the tables' words mean, and what was left out."""
    budgets = [BUDGET_LEGEND] if result.budgets else []
    return [*result.notes, *([LEGEND] if result.cells else []), *budgets]


def to_builtins(result: QualityResult, seconds: float) -> dict[str, Any]:
    """Everything: settings, figures, comparisons and every single run."""
    plan = result.plan
    compared = comparisons(result.cells) if result.cells else []
    return {
        "schema": SCHEMA,
        "settings": {
            "seeds": plan.seeds,
            "seed0": plan.seed0,
            "folds": list(plan.folds),
            "warm_folds": list(plan.warm_folds),
            "quick": plan.quick,
            "limit": plan.limit,
            "holdout": plan.holdout,
            "processes": plan.processes,
        },
        "queries": result.queries,
        "notes": result.notes,
        "seconds": {**result.seconds, "all": seconds},
        "figures": [figure.to_builtins() for figure in figures(result)],
        "comparisons": [
            {
                "log": c.cell[0],
                "quality_value_usd": c.cell[1],
                "other": c.other,
                "reward": {**dataclasses.asdict(c.reward), "verdict": c.reward.verdict},
            }
            for c in compared
        ],
        "runs": [dataclasses.asdict(run) for run in result.cells],
        "budgets": [
            {**dataclasses.asdict(row), "verdict": row.score_gap.verdict}
            for row in (budget_rows(result.budgets) if result.budgets else [])
        ],
        "budget_runs": [dataclasses.asdict(run) for run in result.budgets],
    }
