"""`bench speed`: every figure of speed in one run."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bandit_router.adapters.embedding import make_embedder
from bandit_router.adapters.pareto_log import read_pareto_log
from bandit_router.bench.decide_speed import decide_figures
from bandit_router.bench.figures import Figure, skipped
from bandit_router.bench.memory import memory_figures
from bandit_router.bench.replay_speed import NO_PARETO, replay_figures
from bandit_router.bench.route_speed import route_figures
from bandit_router.bench.routing_logs import has_paretobandit
from bandit_router.bench.startup import first_use_figures, help_figures
from bandit_router.bench.synthetic import synthetic_log
from bandit_router.progress import progress
from bandit_router.replay import embedded

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = "bandit_router.bench.speed/1"
LEGEND = (
    "Medians, and the smallest and largest of the repeats. What is compared ran in turn. "
    "Compilers were warm unless said otherwise."
)


@dataclass(frozen=True)
class SpeedPlan:
    """How much is run.

    Attributes:
        queries: of a synthetic log.
        prompts: of the packaged log, embedded first; 0 leaves it out.
        rounds: how often each replay is run.
        learns: over which memory is measured.
        decisions: timed per round, after ``learned`` queries.
        starts: processes started for the help page.
        compiling: whether a first use without compiled kernels is measured (half a minute).
        routed: prompts routed.
    """

    queries: int = 4000
    prompts: int = 1785
    rounds: int = 5
    learns: int = 100_000
    decisions: int = 2000
    learned: int = 1500
    starts: int = 7
    compiling: bool = True
    routed: int = 200


QUICK = SpeedPlan(
    queries=1500, prompts=300, rounds=3, learns=20_000, decisions=1000, starts=5, routed=100
)


def run_speed(plan: SpeedPlan, console: Console) -> list[Figure]:
    """Measure everything, one thing after the other; progress goes to ``console``."""
    parts: list[Callable[[], list[Figure]]] = [
        partial(decide_figures, decisions=plan.decisions, learned=plan.learned),
        *(
            partial(replay_figures, synthetic_log(k, plan.queries), "synthetic log", plan.rounds)
            for k in (3, 12)
        ),
        partial(_packaged_figures, plan),
        partial(route_figures, prompts=plan.routed),
        partial(memory_figures, learns=plan.learns),
        partial(help_figures, rounds=plan.starts),
    ]
    if plan.compiling:
        parts.append(first_use_figures)
    figures: list[Figure] = []
    with progress(console, "speed", len(parts)) as tick:
        for part in parts:
            figures += part()
            tick(1)
    return figures


def _packaged_figures(plan: SpeedPlan) -> list[Figure]:
    """Replay of real prompts: the first of paretobandit's validation log."""
    if not plan.prompts:
        return []
    if not has_paretobandit():
        return [skipped("replay, 3 models, paretobandit log", "queries/s", NO_PARETO)]
    table = embedded(read_pareto_log("val", limit=plan.prompts), make_embedder())
    return replay_figures(table, "paretobandit log", plan.rounds)


def machine() -> dict[str, Any]:
    """Where it is measured, and how busy it is now."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
    }


def to_builtins(figures: list[Figure], where: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "schema": SCHEMA,
        "machine": where,
        "seconds": seconds,
        "figures": [figure.to_builtins() for figure in figures],
    }
