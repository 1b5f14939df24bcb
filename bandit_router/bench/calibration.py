"""`bench calibration`: does a 95 % bound hold at every row in 95 % of runs, and how wide is it?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bandit_router.adapters.tables import OutcomeTable
from bandit_router.bench import calibration_experiments as experiments
from bandit_router.bench import calibration_runs as runs
from bandit_router.bench.routing_logs import DEFAULT_DATA, find_data, read_logs
from bandit_router.bench.workers import run_jobs
from bandit_router.progress import progress

if TYPE_CHECKING:
    from rich.console import Console

ROWS, TUNING_ROWS, CHUNK = 10_000, 4000, 250
BEST_ROWS, WINDOW = 3000, 1000
CHANCES = (0.5, 0.9)
BEST, WINDOWS = "regret against the best, selected", f"last {WINDOW:,} to {2 * WINDOW:,} rows"
_PEER_RUNS = 1


@dataclass(frozen=True)
class CalibrationPlan:
    """What a run of the bench covers.

    Attributes:
        data: folder of the routing logs; None for the usual place, where it exists.
        runs: seeded runs of every kind.
        rows: of each run.
        folds: of the logs that are reported; ``tuning_folds``: those the sequences' scale is from.
    """

    data: Path | None = None
    runs: int = 1000
    rows: int = ROWS
    seed0: int = 0
    processes: int = 2
    folds: tuple[int, ...] = (2, 3, 4)
    tuning_folds: tuple[int, ...] = (0, 1)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """(seed, number of runs) of every part of a kind."""
        starts = range(0, self.runs, CHUNK)
        return [(self.seed0 + s, min(CHUNK, self.runs - s)) for s in starts]


@dataclass
class Coverage:
    """All runs of one kind.

    Attributes:
        world: the log or the made-up world; ``what``: the contrast.
        span: of the rewards' range, in units of reward.
        normal: per run, the fixed-time normal width after all rows, as a share of the range.
        peers: name to widths at the end, as a share of the range, measured on some runs, each with
            ours on the same run.
    """

    world: str
    what: str
    span: float = 1.0
    covered: runs.Covered = field(default_factory=runs.Covered)
    normal: list[float] = field(default_factory=list)
    peers: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    @cached_property
    def misses(self) -> int:
        """Runs in which the truth was ever outside."""
        return sum(missed >= 0 for missed in self.covered.missed)


@dataclass
class CalibrationResult:
    """Everything that was run, and what was left out and why."""

    plan: CalibrationPlan
    coverage: list[Coverage] = field(default_factory=list)
    means: dict[float, experiments.MeanRuns] = field(default_factory=dict)
    tests: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    scales: dict[tuple[str, str], float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Shared:
    """What every process gets."""

    plan: CalibrationPlan
    tuning: dict[str, OutcomeTable]
    tables: dict[str, OutcomeTable]
    scales: dict[tuple[str, str], float]


Job = tuple[str, str, int, int]
"""(kind, name, seed, runs)."""


def run_calibration(plan: CalibrationPlan, console: Console) -> CalibrationResult:
    """Run the whole bench; progress goes to ``console``.

    Raises:
        InputError: a log is missing or wrong.
    """
    result, folder = CalibrationResult(plan), find_data(plan.data)
    tuning, tables = {}, {}
    if folder is None:
        result.notes.append(
            f"no routing logs in {DEFAULT_DATA} (--data names another folder): only made-up "
            "worlds were run"
        )
    else:
        tuning, tables = read_logs(folder, plan.tuning_folds), read_logs(folder, plan.folds)
    names = [*tables, *(world.name for world in runs.WORLDS)]
    first = [("scale", name, plan.seed0, 1) for name in names]
    shared = Shared(plan, tuning, tables, {})
    for found in _part("tuning", shared, first, result, console):
        result.scales.update(found)
    shared = Shared(plan, {}, tables, result.scales)
    jobs = _jobs(plan, tables)
    done = _part("runs", shared, jobs, result, console)
    for (kind, name, _, _), found in zip(jobs, done, strict=True):
        _collect(result, kind, name, found)
    return result


def _jobs(plan: CalibrationPlan, tables: dict[str, OutcomeTable]) -> list[Job]:
    """The long ones first, so that no process ends alone."""
    named = [("log", name) for name in tables]
    named += [("world", world.name) for world in runs.WORLDS]
    named += [("best", runs.WORLDS[1].name), ("windows", runs.WORLDS[1].name)]
    tests = (*experiments.AA_TESTS, *experiments.MARGIN_TESTS, *experiments.HARM_TESTS)
    named += [("test", test.name) for test in tests]
    jobs = [(kind, name, seed, n) for kind, name in named for seed, n in plan.chunks]
    return jobs + [("means", str(chance), plan.seed0, plan.runs) for chance in CHANCES]


def _part(
    what: str, shared: Shared, jobs: list[Job], result: CalibrationResult, console: Console
) -> list[Any]:
    start = time.perf_counter()
    with progress(console, what, len(jobs)) as tick:
        done = run_jobs(run_job, shared, jobs, processes=result.plan.processes, tick=tick)
    result.seconds[what] = time.perf_counter() - start
    return done


def run_job(shared: Shared, job: Job) -> Any:
    """One part of one kind of run."""
    kind, name, seed, n = job
    if kind == "scale":
        return _scales(shared, name, seed)
    if kind == "log":
        return _log_coverage(shared, name, seed, n)
    if kind == "test":
        tests = (*experiments.AA_TESTS, *experiments.MARGIN_TESTS, *experiments.HARM_TESTS)
        return experiments.run_test(next(t for t in tests if t.name == name), n, seed)
    if kind == "means":
        return experiments.run_means(float(name), shared.plan.rows, n, seed)
    world = next(world for world in runs.WORLDS if world.name == name)
    return _world_coverage(shared, kind, world, range(seed, seed + n))


def _scales(shared: Shared, name: str, seed: int) -> dict[tuple[str, str], float]:
    """Scale of every contrast of one world: from the tuning folds, or from a run before."""
    if name in shared.tuning:
        path = runs.log_path(name, shared.tuning[name], TUNING_ROWS, seed)
    else:
        world = next(world for world in runs.WORLDS if world.name == name)
        path, _ = runs.world_path(world, TUNING_ROWS, seed + 10**6)
    return {(name, which): runs.scale_on(path, which, seed) for which in runs.CONTRASTS}


def _log_coverage(shared: Shared, log: str, seed: int, n: int) -> list[Coverage]:
    path = runs.log_path(log, shared.tables[log], shared.plan.rows, seed)
    found = []
    for which in runs.CONTRASTS:
        covered = runs.cover_path(path, which, shared.scales[log, which], n, seed)
        normal = [path.share(path.normal_width(which))] * n
        own = Coverage(log, which, path.upper - path.lower, covered, normal)
        if which == "best fixed" and seed == shared.plan.seed0:
            own.peers = runs.peer_widths(path, covered, _PEER_RUNS, seed)
        found.append(own)
    return found


def _world_coverage(
    shared: Shared, kind: str, world: runs.World, seeds: Sequence[int]
) -> list[Coverage]:
    found = {which: Coverage(world.name, which) for which in runs.CONTRASTS[:2]}
    if kind != "world":
        found = {kind: Coverage(world.name, BEST if kind == "best" else WINDOWS)}
    rows = min(shared.plan.rows, BEST_ROWS) if kind == "best" else shared.plan.rows
    for seed in seeds if kind != "windows" else seeds[::8]:
        path, actions = runs.world_path(world, rows, seed)
        scale = shared.scales[world.name, "best fixed less ours"]
        if kind == "best":
            found[kind].covered.missed.append(runs.best_missed(path, actions, scale))
        elif kind == "windows":
            found[kind].covered.missed += runs.windows_missed(path, actions, WINDOW, scale)
        else:
            for which, own in found.items():
                own.covered.extend(
                    runs.cover_run(path, actions, which, shared.scales[world.name, which])
                )
                own.normal.append(path.share(path.normal_width(which)))
    return list(found.values())


def _collect(result: CalibrationResult, kind: str, name: str, found: Any) -> None:
    if kind == "means":
        result.means[float(name)] = found
    elif kind == "test":
        result.tests.setdefault(name, []).extend(found)
    else:
        for own in found:
            same = [c for c in result.coverage if (c.world, c.what) == (own.world, own.what)]
            if not same:
                result.coverage.append(own)
                continue
            same[0].covered.extend(own.covered)
            same[0].normal.extend(own.normal)
