"""`bench quality`: the default policy beside every baseline, on the routing logs and on budgets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bandit_router.bench.budgets import (
    BUDGETS_USD,
    BudgetJob,
    BudgetRun,
    read_budget_logs,
    run_budget_job,
)
from bandit_router.bench.entrants import OURS, PARETO, WARM, Entrant, entrants
from bandit_router.bench.lifts import (
    CellRun,
    LiftJob,
    LiftLogs,
    best_fixed_runs,
    run_lift_job,
    warm_logs,
)
from bandit_router.bench.routing_logs import DEFAULT_DATA, find_data, has_paretobandit, read_logs
from bandit_router.bench.workers import run_jobs
from bandit_router.errors import DependencyError
from bandit_router.progress import Tick, progress

if TYPE_CHECKING:
    from rich.console import Console

QUICK_PROMPTS, QUICK_BUDGETS_USD = 500, BUDGETS_USD[::2]
_PROMPTS = {True: (1785, 1824), False: (1785,)}
NO_PARETO = "package paretobandit is not installed (pip install 'bandit-router[bench]')"


@dataclass(frozen=True)
class QualityPlan:
    """What a run of the bench covers.

    Attributes:
        data: folder of the routing logs; None for the usual place, where it exists.
        folds: replayed folds; ``warm_folds``: those a warm start learns first.
        limit: the first queries of each log only.
        holdout: whether the paretobandit protocol is judged on ``test_holdout``; else on every
            other prompt of ``val``.
        cache: folder that keeps the embeddings of the packaged prompts between runs.
    """

    data: Path | None = None
    seeds: int = 20
    seed0: int = 0
    folds: tuple[int, ...] = (2, 3, 4)
    warm_folds: tuple[int, ...] = (0, 1)
    quick: bool = False
    processes: int = 2
    limit: int | None = None
    holdout: bool = True
    cache: Path | None = None

    @property
    def seed_range(self) -> range:
        """The seeds, ascending."""
        return range(self.seed0, self.seed0 + self.seeds)


@dataclass
class QualityResult:
    """Every run, and what was left out and why.

    Attributes:
        queries: log to number of queries replayed.
        seconds: part of the bench to its wall time.
    """

    plan: QualityPlan
    queries: dict[str, int] = field(default_factory=dict)
    cells: list[CellRun] = field(default_factory=list)
    budgets: list[BudgetRun] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def run_quality(plan: QualityPlan, console: Console) -> QualityResult:
    """Run the whole bench; progress goes to ``console``.

    Raises:
        InputError: a log is missing or wrong.
        DependencyError: there is no log at all to run on.
    """
    result = QualityResult(plan)
    folder = find_data(plan.data)
    if folder is None:
        result.notes.append(
            f"no routing logs in {DEFAULT_DATA} (--data names another folder): only the "
            "paretobandit protocol was run"
        )
        if not has_paretobandit():
            raise DependencyError(f"nothing to run: {result.notes[0]}; and {NO_PARETO}")
    else:
        _run_lifts(plan, folder, result, console)
    if has_paretobandit():
        _run_budgets(plan, result, console)
    else:
        result.notes.append(f"paretobandit was left out: {NO_PARETO}")
    return result


def _run_lifts(plan: QualityPlan, folder: Path, result: QualityResult, console: Console) -> None:
    tables = read_logs(folder, plan.folds, plan.limit)
    some = [
        e for e in entrants(quick=plan.quick) if e.policy != PARETO.policy or has_paretobandit()
    ]
    warm = {}
    if set(plan.folds) & set(plan.warm_folds):
        some = [e for e in some if not e.warm]
        result.notes.append(f"no {WARM.name!r}: its folds are among those that are replayed")
    elif any(e.warm for e in some):
        warm = warm_logs(tables, read_logs(folder, plan.warm_folds))
    logs = LiftLogs(tables, warm)
    jobs = _lift_jobs(tables, some, plan.seed_range)
    with _part(result, console, "routing logs", len(jobs)) as tick:
        done = run_jobs(run_lift_job, logs, jobs, processes=plan.processes, tick=tick)
    result.queries = {log: len(table) for log, table in tables.items()}
    result.cells = [run for runs in done for run in runs] + best_fixed_runs(logs, plan.seed_range)


def _lift_jobs(logs: Sequence[str], some: Sequence[Entrant], seeds: range) -> list[LiftJob]:
    """Seed by seed, so that every entrant meets the machine's good and bad minutes alike."""
    return [LiftJob(log, entrant, seed) for seed in seeds for log in logs for entrant in some]


def _run_budgets(plan: QualityPlan, result: QualityResult, console: Console) -> None:
    limit, budgets = plan.limit, BUDGETS_USD
    if plan.quick:
        limit, budgets = min(limit or QUICK_PROMPTS, QUICK_PROMPTS), QUICK_BUDGETS_USD
        result.notes.append(f"quick: the first {limit:,} prompts of each paretobandit log")
    prompts = sum(min(n, limit or n) for n in _PROMPTS[plan.holdout])
    with _part(result, console, "embedding prompts", prompts) as tick:
        logs = read_budget_logs(tick, limit=limit, cache=plan.cache, holdout=plan.holdout)
    if not plan.holdout:
        result.notes.append("paretobandit protocol judged on every other prompt of val")
    jobs = [
        BudgetJob(entrant, budget, seed)
        for seed in plan.seed_range
        for budget in budgets
        for entrant in (OURS.name, PARETO.name)
    ]
    with _part(result, console, "paretobandit protocol", len(jobs)) as tick:
        result.budgets = run_jobs(run_budget_job, logs, jobs, processes=plan.processes, tick=tick)


@contextmanager
def _part(result: QualityResult, console: Console, what: str, total: int) -> Iterator[Tick]:
    """A progress bar, and the time it took."""
    start = time.perf_counter()
    with progress(console, what, total) as tick:
        yield tick
    result.seconds[what] = time.perf_counter() - start
