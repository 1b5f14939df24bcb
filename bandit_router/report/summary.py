"""Runs of several seeds as one row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bandit_router.report.document import Run

HEADERS = (
    "policy",
    "score",
    "USD/query",
    "reward",
    "lift",
    "2nd half",
    "regret",
    "±",
)
LEGEND = (
    "lift: mean score above the fixed-arm hull at the same spend (2nd half: of the log). "
    "regret: reward per query below the best fixed model; ± its standard error over seeds."
)


@dataclass(frozen=True)
class Summary:
    """Means over the seeds of one policy at one setting.

    Attributes:
        at: the setting, as text: a quality value or a budget.
        regret_error: standard error of the mean regret over seeds; None with a single seed.
    """

    policy: str
    at: str
    seeds: int
    score: float
    cost_usd: float
    reward: float
    lift: float
    second_half_lift: float
    regret: float
    regret_error: float | None


def setting_label(run: Run) -> str:
    """``quality value $0.01`` or ``budget $0.001``."""
    if run.budget_usd is not None:
        return f"budget ${run.budget_usd:.4g}"
    return f"quality value ${run.quality_value_usd:.4g}"


def grouped(runs: Sequence[Run]) -> dict[tuple[str, str], list[int]]:
    """Positions of the runs of each (setting label, policy), in order of first appearance of the
    setting, then of the policy.
    """
    labels = dict.fromkeys(setting_label(run) for run in runs)
    policies = dict.fromkeys(run.policy for run in runs)
    groups: dict[tuple[str, str], list[int]] = {(at, p): [] for at in labels for p in policies}
    for place, run in enumerate(runs):
        groups[setting_label(run), run.policy].append(place)
    return {key: places for key, places in groups.items() if places}


def summarise(runs: Sequence[Run]) -> list[Summary]:
    """One row per setting and policy."""
    rows = []
    for (at, policy), places in grouped(runs).items():
        some = [runs[place] for place in places]
        regrets = np.array([run.regret.best_fixed for run in some])
        error = float(regrets.std(ddof=1) / np.sqrt(len(some))) if len(some) > 1 else None
        rows.append(
            Summary(
                policy=policy,
                at=at,
                seeds=len(some),
                score=_mean([run.mean_score for run in some]),
                cost_usd=_mean([run.mean_cost_usd for run in some]),
                reward=_mean([run.mean_reward for run in some]),
                lift=_mean([run.lift for run in some]),
                second_half_lift=_mean([run.second_half.lift for run in some]),
                regret=float(regrets.mean()),
                regret_error=error,
            )
        )
    return rows


def summary_cells(summaries: Sequence[Summary]) -> list[tuple[str, ...]]:
    """The rows as text, under :data:`HEADERS`."""
    return [
        (
            row.policy,
            f"{row.score:.4f}",
            f"{row.cost_usd:.3g}",
            f"{row.reward:.4f}",
            f"{row.lift:+.4f}",
            f"{row.second_half_lift:+.4f}",
            f"{row.regret:+.4f}",
            "" if row.regret_error is None else f"{row.regret_error:.4f}",
        )
        for row in summaries
    ]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
