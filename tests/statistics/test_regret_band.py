"""The band of the estimated regret as a rate over seeded runs, and on logs that lie."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.regret_cases import COSTS, VALUE, Run, choices, draw, tracker

from bandit_router.ope.regret_rows import Choices

RUNS, ROWS, EVERY = 200, 300, 6
MOST_MISSES = 21
"""With a true rate of .05 and 200 runs, more come with probability below .001."""


def looks(log, **settings) -> np.ndarray:
    """Estimate, lower and upper bound after every sixth row."""
    mine, found = tracker(**settings), []
    for start in range(0, len(log), EVERY):
        mine.update(log.part(start, start + EVERY))
        own = mine.best_fixed().per_query
        found.append((own.estimate, own.lower, own.upper))
    return np.array(found)


def is_missed(found: np.ndarray, run: Run) -> bool:
    true = run.true[EVERY - 1 :: EVERY]
    return bool(((true < found[:, 1] - 1e-9) | (true > found[:, 2] + 1e-9)).any())


def test_the_truth_is_in_the_band_at_every_look_in_95_percent_of_runs():
    missed, widths = 0, []
    for seed in range(RUNS):
        run = draw(seed, ROWS)
        found = looks(choices(run))
        missed += is_missed(found, run)
        widths.append(found[-1, 2] - found[-1, 1])
    assert missed <= MOST_MISSES
    assert np.median(widths) < 0.75, "the range of a difference of rewards is 2.6"


def test_at_a_level_that_allows_it_the_band_does_miss():
    """So the count of the test before can find misses."""
    missed = 0
    for seed in range(30):
        run = draw(seed, ROWS)
        narrow = looks(choices(run), alpha=0.999)
        missed += is_missed(narrow, run)
    assert missed > 0


def off_by_one(log: Choices) -> Choices:
    actions = (log.actions + 1) % 3
    return dataclasses.replace(
        log, actions=actions, propensities=log.pmf[np.arange(len(log)), actions]
    )


def with_pmf(log: Choices, pmf: np.ndarray) -> Choices:
    return dataclasses.replace(log, pmf=pmf, propensities=pmf[np.arange(len(log)), log.actions])


def swapped_pmf(log: Choices) -> Choices:
    return with_pmf(log, log.pmf[:, ::-1].copy())


def before_the_mask(log: Choices) -> Choices:
    """As if the last model had had most of the first one's share until a mask moved it."""
    pmf = log.pmf.copy()
    moved = 0.8 * pmf[:, 0]
    pmf[:, 0] -= moved
    pmf[:, 2] += moved
    return with_pmf(log, pmf)


@pytest.mark.parametrize("lie", [off_by_one, swapped_pmf, before_the_mask])
def test_a_log_with_a_wrong_pmf_moves_the_estimate_and_an_honest_one_does_not(lie):
    """Mean error of the estimate against one named model, over runs, in standard errors."""
    errors = {"honest": [], "lying": []}
    for seed in range(80):
        run = draw(seed, 400, epsilon=0.4)
        reward = run.potential - COSTS / VALUE
        true = (reward[:, 0] - (run.pmf * reward).sum(axis=1)).mean()
        for name, log in (("honest", choices(run)), ("lying", lie(choices(run)))):
            mine = tracker()
            mine.update(log)
            errors[name].append(mine.against("small").per_query.estimate - true)
    z = {name: np.mean(e) / (np.std(e) / np.sqrt(len(e))) for name, e in errors.items()}
    assert abs(z["honest"]) < 3.5
    assert abs(z["lying"]) > 5.0
