"""The accuracy of off-policy estimates over many runs: figures with their targets, and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bandit_router.bench.figures import Figure
from bandit_router.bench.grid import Grid
from bandit_router.bench.ope_accuracy import (
    Accuracy,
    accuracy,
    features_of,
    replayed,
    six_targets,
)
from bandit_router.bench.routing_logs import QUALITY_VALUES_USD, read_logs
from bandit_router.bench.workers import run_jobs
from bandit_router.bootstrap import make_featurizer, make_policy
from bandit_router.models import Catalog
from bandit_router.ope.outcomes import Folding
from bandit_router.policy.base import Policy

FOLDS = (2, 3, 4)
_CHUNK = 50


@dataclass(frozen=True)
class AccuracyPlan:
    """What is run on each log.

    Attributes:
        data: folder of the routing logs.
        runs: estimates of each target.
        adaptive: replay the policy anew for every run, so that it learns from what it drew; else
            actions are drawn anew from the probabilities of one replay, which is 10 times faster.
        folding: of doubly robust.
        processes: to use.
    """

    data: Path
    runs: int = 1000
    adaptive: bool = True
    folding: Folding = "crossed"
    processes: int = 2


@dataclass(frozen=True)
class _Job:
    log: str
    first: int
    count: int


def run_accuracy(
    plan: AccuracyPlan, tick: Callable[[int], None] | None = None
) -> dict[str, list[Accuracy]]:
    """Per log the accuracy of IPS, SNIPS and doubly robust on six targets, in the mean score."""
    jobs = [
        _Job(log, first, min(_CHUNK, plan.runs - first))
        for log in QUALITY_VALUES_USD
        for first in range(0, plan.runs, _CHUNK)
    ]
    found = run_jobs(_work, plan, jobs, processes=plan.processes, tick=tick)
    result: dict[str, list[Accuracy]] = {}
    for job, part in zip(jobs, found, strict=True):
        result[job.log] = _joined(result[job.log], part) if job.log in result else part
    return result


def _work(plan: AccuracyPlan, job: _Job) -> list[Accuracy]:
    table = read_logs(plan.data, FOLDS)[job.log]
    featurizer = make_featurizer(embed=False)
    features = features_of(table, featurizer)
    value = QUALITY_VALUES_USD[job.log][1]

    def make(name: str, catalog: Catalog, seed: int) -> Policy:
        return make_policy(name, catalog, dimension=featurizer.dimension, seed=seed)

    seeds = range(job.first, job.first + job.count)
    if plan.adaptive:
        runs = (
            replayed(table, features, make, quality_value_usd=value, seed=seed) for seed in seeds
        )
    else:
        one = replayed(table, features, make, quality_value_usd=value, seed=0)
        runs = (one.redrawn(seed) for seed in seeds)
    return accuracy(runs, six_targets(table, features), folding=plan.folding)


def _joined(one: Sequence[Accuracy], other: Sequence[Accuracy]) -> list[Accuracy]:
    further = {(a.target, a.estimator): a for a in other}
    return [
        _join(a, further[a.target, a.estimator]) if (a.target, a.estimator) in further else a
        for a in one
    ]


def _join(one: Accuracy, other: Accuracy) -> Accuracy:
    n, m = len(one.errors), len(other.errors)

    def mean(name: str) -> float:
        return (n * getattr(one, name) + m * getattr(other, name)) / (n + m)

    means = ("truth", "variance", "covered", "covered_normal", "width")
    return replace(
        one,
        errors=np.concatenate([one.errors, other.errors]),
        **{name: mean(name) for name in means},
    )


def accuracy_figures(found: Mapping[str, Sequence[Accuracy]]) -> list[Figure]:
    """The worst of the six targets per log, beside what is asked of it."""
    figures = []
    for log, every in found.items():
        by_name = {(a.target, a.estimator): a for a in every}
        targets = list(dict.fromkeys(a.target for a in every))
        for name in ("ips", "dr"):
            worst = max(
                (by_name[target, name] for target in targets),
                key=lambda a: abs(a.bias_in_standard_errors),
            )
            figures.append(
                Figure(
                    f"{log}: bias of {name}, in its standard errors",
                    abs(worst.bias_in_standard_errors),
                    "",
                    at_most=3.0,
                    note=f"worst of {len(targets)} targets: {worst.target}, "
                    f"{len(worst.errors)} runs",
                )
            )
        pairs = {target: (by_name[target, "dr"], by_name[target, "ips"]) for target in targets}
        ratios = {target: dr.variance / ips.variance for target, (dr, ips) in pairs.items()}
        seen = [dr.mean_squared_error / ips.mean_squared_error for dr, ips in pairs.values()]
        worst_target = max(ratios, key=ratios.__getitem__)
        figures.append(
            Figure(
                f"{log}: mean squared error of dr over that of ips",
                ratios[worst_target],
                "",
                at_most=1.0,
                note=f"as every draw's probability gives it; worst target: {worst_target}; median "
                f"{np.median(list(ratios.values())):.2f}; in the runs' draws {max(seen):.2f} and "
                f"{np.median(seen):.2f}",
            )
        )
        least = min(every, key=lambda a: a.covered)
        figures.append(
            Figure(
                f"{log}: 95 % intervals that hold the truth",
                least.covered,
                "",
                at_least=0.95,
                note=f"worst: {least.estimator} of {least.target}; normal intervals "
                f"{min(a.covered_normal for a in every):.2f}",
            )
        )
    return figures


def accuracy_grid(found: Mapping[str, Sequence[Accuracy]]) -> Grid:
    """Every target and estimator."""
    return Grid(
        "Off-policy estimates of the mean score against the truth of replay",
        ("log", "target", "by", "truth", "bias", "in SE", "rmse", "covered", "width", "normal"),
        tuple(
            (
                log,
                a.target,
                a.estimator,
                f"{a.truth:.3f}",
                f"{a.bias:+.3f}",
                f"{a.bias_in_standard_errors:+.1f}",
                f"{a.mean_squared_error**0.5:.3f}",
                f"{a.covered:.3f}",
                f"{a.width:.2f}",
                f"{a.covered_normal:.2f}",
            )
            for log, every in found.items()
            for a in every
        ),
        texts=(1, 2),
    )
