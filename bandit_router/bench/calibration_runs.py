"""The runs of `bench calibration` whose truth is known: real logs, and worlds that drift."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from bandit_router.adapters.estimators import row_by_row
from bandit_router.adapters.tables import OutcomeTable
from bandit_router.bench import calibration_kernels as kernels
from bandit_router.bench.routing_logs import QUALITY_VALUES_USD
from bandit_router.bootstrap import make_featurizer, make_policy
from bandit_router.ope.sequences import ContrastSequence, SequenceConfig
from bandit_router.policy.base import sample
from bandit_router.replay import blurred_catalog, table_features
from bandit_router.types import Interaction

Which = Literal["best fixed", "best fixed less ours", "strongest less ours"]
CONTRASTS: tuple[Which, ...] = ("best fixed", "best fixed less ours", "strongest less ours")
ALPHA = 0.05
VI = 1
PEERS = ("cs", "cressieread")
MARKS = (100, 1000, 10_000)
_NORMAL = 1.959964


@dataclass(frozen=True)
class Path:
    """Decisions with everything that could have happened; arrays over n rows and K actions.

    Attributes:
        pmf: what the actions are drawn from.
        potential: reward of every action.
        base: reward of every action as predicted before; in a made-up world, where nobody
            predicts, its true mean, which only :meth:`normal_width` reads.
        strongest: the action with the largest mean score.
        least: least reward that each action can have, shape (K,), known beforehand.
        lower, upper: range of the rewards, likewise.
    """

    pmf: np.ndarray
    potential: np.ndarray
    base: np.ndarray
    least: np.ndarray
    strongest: int
    lower: float
    upper: float

    def contrast(self, which: Which) -> np.ndarray:
        """Signed masses over the actions."""
        wanted = self.strongest if which == "strongest less ours" else self.best
        target = np.zeros(self.pmf.shape)
        target[:, wanted] = 1.0
        return target if which == "best fixed" else target - self.pmf

    @property
    def best(self) -> int:
        """The action with the largest mean reward."""
        return int(np.argmax(self.potential.mean(axis=0)))

    def share(self, width: float) -> float:
        """A width as a share of the rewards' range."""
        return width / (self.upper - self.lower)

    def normal_width(self, which: Which) -> float:
        """Width of the fixed-time normal interval after all rows, with the true variance.

        The variance is that of doubly robust pseudo-outcomes over draws and queries, with the
        predictions as controls: what a standard error would estimate if it could.
        """
        contrast = self.contrast(which)
        ratio = np.divide(contrast, self.pmf, out=np.zeros_like(contrast), where=contrast != 0.0)
        wrong = ratio * (self.potential - np.clip(self.base, self.least, self.upper))
        drawn = (self.pmf * wrong**2).sum(axis=1) - (self.pmf * wrong).sum(axis=1) ** 2
        values = (contrast * self.potential).sum(axis=1)
        return 2.0 * _NORMAL * math.sqrt((drawn.mean() + values.var()) / len(values))

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Rewards scaled to [0, 1]."""
        return (values - self.lower) / (self.upper - self.lower)


@dataclass
class Covered:
    """Runs of one kind; every list has one entry a run.

    Attributes:
        missed: the first row at which the truth was outside the bounds, or -1.
        widths: shape (4, marks), in shares of the rewards' range: see
            :func:`~bandit_router.bench.calibration_kernels.follow`.
    """

    missed: list[int] = field(default_factory=list)
    widths: list[np.ndarray] = field(default_factory=list)

    def extend(self, other: Covered) -> None:
        """Add the runs of another."""
        self.missed.extend(other.missed)
        self.widths.extend(other.widths)


def log_path(log: str, table: OutcomeTable, rows: int, seed: int) -> Path:
    """The default policy, learning as it goes, on ``rows`` queries drawn from the log.

    Queries are drawn with replacement; the reward is score less cost at the log's middle quality
    value. What is kept is the pmf of every decision: any number of logs can be drawn from it.
    """
    value = QUALITY_VALUES_USD[log][1]
    rng = np.random.default_rng([seed, 0xCA1])
    queries = rng.integers(0, len(table), rows)
    features = table_features(table, make_featurizer(embed=False), ("task",))
    catalog, models = blurred_catalog(table, seed), table.models
    policy = make_policy("bandit", catalog, dimension=len(features[0].dense), seed=seed)
    pmf, base = np.empty((rows, len(models))), np.empty((rows, len(models)))
    for t, row in enumerate(queries.tolist()):
        seen = policy.evaluate(features[row], models, value)
        chosen, part = sample(seen, f"calibration/{seed}", str(t))
        pmf[t], base[t] = seen.pmf, seen.score - seen.cost_usd / value
        policy.learn(
            Interaction(
                event_id=str(t),
                ts=float(t),
                closed_ts=float(t),
                features=features[row],
                eligible=models,
                pmf=tuple(seen.pmf.tolist()),
                action=models[chosen],
                propensity=float(seen.pmf[chosen]),
                slice=part,
                quality_value_usd=value,
                score=float(table.scores[row, chosen]),
                cost_usd=float(table.costs_usd[row, chosen]),
            )
        )
    reward = table.scores - table.costs_usd / value
    least = -table.costs_usd.max(axis=0) / value  # a cap on what a call costs, known beforehand
    strongest = int(np.argmax(table.scores.mean(axis=0)))
    return Path(pmf, reward[queries], base, least, strongest, float(least.min()), 1.0)


@dataclass(frozen=True)
class World:
    """A made-up world, whose logging policy learns within each run.

    Attributes:
        epsilon: the policy's uniform share; ``delay`` rows until a reward is known to it.
        drift: amplitude of the actions' slow waves; ``fall``: how much the best action loses at
            half time.
    """

    name: str
    epsilon: float = 0.1
    delay: int = 0
    drift: float = 0.0
    fall: float = 0.0
    means: tuple[float, ...] = (0.35, 0.5, 0.65, 0.8)


WORLDS = (
    World("stationary"),
    World("drift", drift=0.15, fall=0.4),
    World("drift, 200 rows late", drift=0.15, fall=0.4, delay=200),
    World("drift, epsilon .02", drift=0.15, fall=0.4, epsilon=0.02),
)


def world_path(world: World, rows: int, seed: int) -> tuple[Path, np.ndarray]:
    """One run's world and the actions that its policy took in it."""
    rng = np.random.default_rng([seed, 0x3D1])
    t, k = np.arange(rows)[:, None] / rows, len(world.means)
    waves = world.drift * np.sin(2.0 * math.pi * (2.0 * t + rng.random(k)))
    chance = np.array(world.means) + waves + rng.normal(0.0, 0.15, (rows, 1))
    chance[rows // 2 :, int(np.argmax(world.means))] -= world.fall
    chance = np.clip(chance, 0.0, 1.0)
    potential = (rng.random((rows, k)) < chance).astype(np.float64)
    pmf, actions = np.empty((rows, k)), np.empty(rows, dtype=np.int64)
    known = np.broadcast_to(potential.mean(axis=0), potential.shape)
    uniforms = rng.random(rows)
    kernels.learn_greedily(potential, uniforms, world.epsilon, world.delay, 500.0, pmf, actions)
    return Path(pmf, potential, known, np.zeros(k), int(np.argmax(world.means)), 0.0, 1.0), actions


def scale_on(path: Path, which: Which, seed: int) -> float:
    """Standard deviation of a pseudo-outcome on a path, to tune sequences for other ones."""
    sequence = ContrastSequence(
        path.pmf.shape[1], SequenceConfig(lower=path.lower, upper=path.upper)
    )
    actions = next(_draws(path, 1, seed))
    rewards = path.potential[np.arange(len(actions)), actions]
    sequence.update(rewards, actions, path.pmf, path.contrast(which), path.base, path.least)
    return max(sequence.standard_error * math.sqrt(sequence.rows), 1e-6)


def _draws(path: Path, runs: int, seed: int) -> Iterator[np.ndarray]:
    """``runs`` times the actions of a path, drawn anew from its pmfs."""
    for run in range(runs):
        actions = np.empty(len(path.pmf), dtype=np.int64)
        uniforms = np.random.default_rng([seed, run, 0xD2A]).random(len(actions))
        kernels.draw(path.pmf, uniforms, actions)
        yield actions


def cover_path(path: Path, which: Which, scale: float, runs: int, seed: int) -> Covered:
    """``runs`` logs drawn from a path, each followed row by row."""
    result = Covered()
    for actions in _draws(path, runs, seed):
        result.extend(cover_run(path, actions, which, scale))
    return result


def cover_run(path: Path, actions: np.ndarray, which: Which, scale: float) -> Covered:
    """One log, followed row by row."""
    config = SequenceConfig(
        lower=path.lower, upper=path.upper, scale=scale, horizon=MARKS[-1], alpha=ALPHA
    )
    contrast, potential = path.contrast(which), path.scaled(path.potential)
    marks = np.array([mark for mark in MARKS if mark <= len(actions)])
    widths = np.empty((4, len(marks)))
    missed = kernels.follow(
        potential[np.arange(len(actions)), actions],
        actions,
        path.pmf,
        contrast,
        path.scaled(path.base),
        np.broadcast_to(path.scaled(path.least), path.pmf.shape),
        (contrast * potential).sum(axis=1),
        *config.bets(),
        math.log(2.0 / ALPHA),
        marks,
        widths,
    )
    return Covered([missed], [widths])


def best_missed(path: Path, actions: np.ndarray, scale: float) -> int:
    """The first row at which "best fixed action less the logging policy" is missed, with the best
    one selected from the same data, or -1.
    """
    config = SequenceConfig(lower=path.lower, upper=path.upper, scale=scale, alpha=ALPHA)
    potential = path.scaled(path.potential)
    return kernels.follow_best(
        potential[np.arange(len(actions)), actions],
        actions,
        path.pmf,
        potential,
        path.scaled(path.base),
        np.broadcast_to(path.scaled(path.least), path.pmf.shape),
        *config.bets(),
        math.log(2.0 * path.pmf.shape[1] / ALPHA),
    )


def windows_missed(path: Path, actions: np.ndarray, window: int, scale: float) -> list[int]:
    """For each restart of a windowed sequence, the first row at which it misses, or -1."""
    missed = []
    for start in range(0, len(actions) - window, window):
        rows = slice(start, start + 2 * window)
        part = dataclasses.replace(
            path, pmf=path.pmf[rows], potential=path.potential[rows], base=path.base[rows]
        )
        missed += cover_run(part, actions[rows], "best fixed less ours", scale).missed
    return missed


def peer_widths(
    path: Path, covered: Covered, runs: int, seed: int
) -> dict[str, list[tuple[float, float]]]:
    """Widths of what ``vw-estimators`` makes of the same logs of "best fixed", beside ours.

    Args:
        covered: what :func:`cover_path` found with the same seed.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in PEERS}
    contrast, potential = path.contrast("best fixed"), path.scaled(path.potential)
    for run, actions in enumerate(_draws(path, runs, seed)):
        at = np.arange(len(actions)), actions
        for name in PEERS:
            rows = zip(
                path.pmf[at].tolist(), potential[at].tolist(), contrast[at].tolist(), strict=True
            )
            low, high = row_by_row(name, rows)
            found[name].append((high - low, float(covered.widths[run][0, -1])))
    return found
