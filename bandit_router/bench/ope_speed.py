"""How fast a large log is evaluated, and in how much memory."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bandit_router.adapters.interactions_parquet import write_columns
from bandit_router.bench.figures import Figure
from bandit_router.bench.workers import run_apart
from bandit_router.store_ops.evaluating import Request, evaluate
from bandit_router.store_ops.part_workers import PartWorkers

FEATURES = 33
MODELS = tuple(f"model{k}" for k in range(5))
TARGETS = tuple(f"fixed:{model}" for model in MODELS)


@dataclass(frozen=True)
class SpeedJob:
    """One evaluation of a log on disk."""

    log: Path
    processes: int


def evaluation_figures(interactions: int = 1_000_000) -> list[Figure]:
    """Evaluate five fixed models on a synthetic Parquet log, by all three estimators.

    Each evaluation runs in a process of its own, so that its memory is its own. Reading the file is
    part of the time. The targets are those of a million interactions.
    """
    whole = interactions >= 1_000_000
    with TemporaryDirectory() as folder:
        log = Path(folder, "log.parquet")
        write_synthetic(log, interactions)
        one_s, megabytes = run_apart(_timed, SpeedJob(log, 1))
        two_s, _ = run_apart(_timed, SpeedJob(log, 2))
    what = f"{interactions:,} interactions, 5 targets, 3 estimators"
    note = f"{len(MODELS)} models, {FEATURES} features, from Parquet"
    return [
        Figure(f"evaluate {what}", one_s, "s", at_most=20.0 if whole else None, note=note),
        Figure("evaluate, memory", megabytes, "MB", at_most=1000.0 if whole else None, note="peak"),
        Figure("evaluate, two processes over one", two_s / one_s, "x", note="wall time"),
    ]


def write_synthetic(to: Path, n: int, seed: int = 0) -> None:
    """Interactions of a policy with a small share of exploration, as a Parquet log."""
    rng, k = np.random.default_rng(seed), len(MODELS)
    dense = rng.standard_normal((n, FEATURES), dtype=np.float32)
    lean = np.exp(3.0 * dense[:, :k].astype(np.float64))
    pmf = 0.98 * lean / lean.sum(axis=1, keepdims=True) + 0.02 / k
    pmf /= pmf.sum(axis=1, keepdims=True)
    action = np.minimum((rng.random(n)[:, None] >= pmf.cumsum(axis=1)).sum(axis=1), k - 1)
    blank = [""] * n
    texts = dict.fromkeys(("unit_id", "app", "tenant", "variant"), blank)
    write_columns(
        to,
        texts={
            **texts,
            "event_id": [f"event-{i}" for i in range(n)],
            "action": [MODELS[a] for a in action.tolist()],
            "slice": ["policy"] * n,
        },
        learn=np.ones(n, dtype=bool),
        numbers={
            "propensity": pmf[np.arange(n), action],
            "quality_value_usd": np.full(n, 0.1),
            "score": (rng.random(n) < 0.5 + 0.1 * action).astype(np.float64),
            "cost_usd": 0.001 * 2.0**action * (0.5 + rng.random(n)),
        },
        pmf=dict(zip(MODELS, pmf.T, strict=True)),
        dense=dense,
    )


def _timed(job: SpeedJob) -> tuple[float, float]:
    """Seconds of a whole evaluation, compilers warm, and the peak of memory in MB."""
    small = job.log.parent / "small.parquet"
    write_synthetic(small, 200)
    evaluate(Request(log=small, policies=TARGETS))
    request = Request(log=job.log, policies=TARGETS, parts=job.processes)
    start = time.perf_counter()
    if job.processes == 1:
        evaluate(request)
    else:
        with PartWorkers(job.processes) as run:
            evaluate(request, run)
    seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000.0
