"""A/B tests of `bench calibration`: false verdicts, false rollbacks, and units until a rollback."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bandit_router.bench import calibration_kernels as kernels
from bandit_router.ope.asymptotic import asymptotic_radius
from bandit_router.ope.constant import HedgedCapital
from bandit_router.ope.harm import HarmConfig
from bandit_router.ope.sequences import SequenceConfig

UNITS = 5000
HEDGED_RUNS = 200  # it alone takes longer than all others together
VERDICT = SequenceConfig(horizon=2000.0, scale=0.9)
GUARD = HarmConfig(harm_is="below", limit=-0.02)


@dataclass(frozen=True)
class Test:
    """One kind of experiment: a unit's score is the share right of its decisions.

    Attributes:
        control, treatment: chance that a decision is right.
        decisions: of each unit; its score is their mean.
        share: of units in treatment.
        wave: amplitude of a slow wave that moves both arms alike.
    """

    name: str
    control: float
    treatment: float
    decisions: int = 1
    share: float = 0.5
    wave: float = 0.0


AA_TESTS = (
    Test("A/A at .7", 0.7, 0.7),
    Test("A/A at .95", 0.95, 0.95),
    Test("A/A at .7, drifting by .2", 0.7, 0.7, wave=0.2),
    Test("A/A at .7, 10 % treated", 0.7, 0.7, share=0.1),
    Test("A/A at .7, 3 decisions a unit", 0.7, 0.7, decisions=3),
)
MARGIN_TESTS = (Test("worse by the margin itself", 0.7, 0.7 + GUARD.limit),)
HARM_TESTS = (
    Test(".8 against .6", 0.8, 0.6),
    Test(".6 against .4 (largest variance)", 0.6, 0.4),
    Test(".8 against .6, drifting by .15", 0.8, 0.6, wave=0.15),
    Test(".8 against .6, 3 decisions a unit", 0.8, 0.6, decisions=3),
)


def run_test(test: Test, runs: int, seed: int) -> list[tuple[int, int]]:
    """(units until a verdict, units until a rollback) of every run; -1 for never."""
    bets, prior = VERDICT.bets()
    guard_bets, guard_prior = GUARD.rewards.bets()
    results = []
    for run in range(runs):
        rng = np.random.default_rng([seed, run, 0xAB])
        arms = (rng.random(UNITS) < test.share).astype(np.int64)
        wave = test.wave * np.sin(4.0 * math.pi * (np.arange(UNITS) / UNITS + rng.random()))
        chance = np.where(arms == 1, test.treatment, test.control) + wave
        right = rng.binomial(test.decisions, np.clip(chance, 0.0, 1.0)) / test.decisions
        results.append(
            kernels.experiment(
                right,
                arms,
                test.share,
                bets,
                prior,
                math.log(2.0 / VERDICT.alpha),
                guard_bets,
                guard_prior,
                -math.log(GUARD.alpha),
                GUARD.limit,
            )
        )
    return results


@dataclass
class MeanRuns:
    """Runs of sequences for the mean of independent observations, a name each.

    Attributes:
        missed: name to the number of runs in which the mean was missed at any row (of the
            asymptotic one: from a tenth of the rows on), and of all its runs.
        ratios: name to mean width over the normal fixed-time width after all rows.
    """

    missed: dict[str, tuple[int, int]]
    ratios: dict[str, float]


def run_means(chance: float, rows: int, runs: int, seed: int) -> MeanRuns:
    """Bernoulli observations followed by every kind of sequence for a mean."""
    config = SequenceConfig(horizon=rows)
    alpha, names = config.alpha, ("mixture of bets", "plug-in Bernstein", "hedged", "asymptotic")
    missed, widths = {name: [] for name in names}, {name: [] for name in names}
    radii = np.array([asymptotic_radius(t, alpha, rows) for t in range(1, rows + 1)])
    one, zeros = np.ones((rows, 1)), np.zeros(rows, dtype=np.int64)
    marks = np.array([rows])
    for run in range(runs):
        values = (np.random.default_rng([seed, run, 0x3E]).random(rows) < chance).astype(np.float64)
        filled = np.empty((4, 1))
        lost = kernels.follow(
            values, zeros, one, one, np.full((rows, 1), 0.5), np.zeros((rows, 1)),
            np.full(rows, chance), *config.bets(), math.log(2.0 / alpha), marks, filled,
        )  # fmt: skip
        plug_in, asymptotic, width = kernels.follow_constant(
            values, chance, math.log(2.0 / alpha), rows // 10, radii
        )
        missed["mixture of bets"].append(lost >= 0)
        missed["plug-in Bernstein"].append(plug_in >= 0)
        missed["asymptotic"].append(asymptotic >= 0)
        widths["mixture of bets"].append(filled[0, 0])
        widths["plug-in Bernstein"].append(width)
        widths["asymptotic"].append(2.0 * math.sqrt(max(values.var(), 1e-12)) * radii[-1])
        if run < HEDGED_RUNS:
            hedged = HedgedCapital(alpha)
            hedged.update(values)
            own = hedged.bounds()
            missed["hedged"].append(not own.lower <= chance <= own.upper)
            widths["hedged"].append(own.width)
    normal = 2.0 * 1.959964 * math.sqrt(chance * (1.0 - chance) / rows)
    ratios = {name: float(np.mean(own)) / normal for name, own in widths.items()}
    return MeanRuns({name: (sum(own), len(own)) for name, own in missed.items()}, ratios)
