"""On real routing logs, off-policy estimates against what replay knows every target would have got.

The default policy is replayed on folds 2 to 4 of each shared log. From the probabilities that it
logged, actions are drawn again and again, and six targets are estimated each time. The bench also
repeats the whole replay, so that the policy learns anew.
"""

from __future__ import annotations

import functools

import pytest

from bandit_router.bench.ope_accuracy import accuracy, features_of, replayed, six_targets
from bandit_router.bench.routing_logs import QUALITY_VALUES_USD, read_logs
from bandit_router.bootstrap import make_featurizer, make_policy

pytestmark = pytest.mark.shared

LOGS = tuple(QUALITY_VALUES_USD)
RUNS = 40


def make(name, catalog, seed):
    return make_policy(name, catalog, dimension=make_featurizer(embed=False).dimension, seed=seed)


@functools.cache
def replay_of(folder, log):
    table = read_logs(folder, [2, 3, 4])[log]
    features = features_of(table, make_featurizer(embed=False))
    value = QUALITY_VALUES_USD[log][1]
    return (
        replayed(table, features, make, quality_value_usd=value, seed=0),
        six_targets(table, features),
    )


@functools.cache
def measured(folder, log):
    run, targets = replay_of(folder, log)
    runs = (run.redrawn(seed) for seed in range(RUNS))
    found = accuracy(runs, targets, estimators=("ips", "dr"))
    return {(a.target, a.estimator): a for a in found}


@pytest.mark.parametrize("log", LOGS)
def test_ips_and_doubly_robust_are_unbiased_for_six_targets(shared_data, log):
    found = measured(shared_data, log)
    for target in replay_of(shared_data, log)[1]:
        for name in ("ips", "dr"):
            one = found[target.name, name]
            assert abs(one.bias) < 3.0 * (one.variance / RUNS) ** 0.5, (target.name, name)


@pytest.mark.parametrize("log", LOGS)
def test_doubly_robust_errs_no_more_than_ips_on_any_target(shared_data, log):
    found = measured(shared_data, log)
    for target in replay_of(shared_data, log)[1]:
        dr, ips = (found[target.name, name] for name in ("dr", "ips"))
        # unbiased, so their mean squared error is their variance, which few runs give exactly
        assert dr.variance <= 0.9 * ips.variance, target.name


@pytest.mark.parametrize("log", LOGS)
def test_intervals_hold_the_truth_where_normal_ones_do_not(shared_data, log):
    found = measured(shared_data, log).values()
    # of 40 runs at 95 % coverage, 34 or fewer hold it with a probability below .02
    assert min(a.covered for a in found) >= 35 / 40
    assert min(a.covered_normal for a in found) < 35 / 40  # why they are not used
