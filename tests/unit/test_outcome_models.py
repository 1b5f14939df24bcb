"""The models behind doubly robust: they never saw the row, and the parts of a log give the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.logs import made_log

from bandit_router.ope.outcomes import CROSSED_FOLDS, OutcomeSums


def predictions(log, outcome, folding="crossed", *, bounded=True):
    sums = OutcomeSums(3, log.features.shape[1], folding=folding, bounded=bounded)
    sums.add(log, outcome)
    return sums.fit().predict(log)


def test_a_row_is_predicted_without_its_own_fold():
    log = made_log(400).log
    fold = log.fold_key % CROSSED_FOLDS
    before = predictions(log, log.score)
    changed = np.where(fold == 2, 1.0 - log.score, log.score)
    after = predictions(log, changed)
    assert np.array_equal(before[fold == 2], after[fold == 2])
    assert not np.array_equal(before[fold != 2], after[fold != 2])


def test_a_row_is_predicted_from_the_past_alone():
    log = made_log(1000).log
    before = predictions(log, log.score, "past")
    changed = np.where(log.position >= 512, 1.0 - log.score, log.score)
    after = predictions(log, changed, "past")
    assert np.array_equal(before[log.position < 512], after[log.position < 512])
    assert (before[log.position < 32] == 0.0).all()
    assert (before[log.position >= 64] > 0.0).any()


def test_it_learns_what_depends_on_the_features():
    made = made_log(8000)
    found = predictions(made.log, made.log.score)
    for model in range(3):
        assert np.corrcoef(found[:, model], made.log.features[:, 0])[0, 1] > 0.9
        assert found[:, model].mean() == pytest.approx(made.scores[:, model].mean(), abs=0.03)


def test_costs_are_learned_at_each_models_own_scale():
    made = made_log(8000)
    found = predictions(made.log, made.log.cost_usd, bounded=False)
    assert found.mean(axis=0) == pytest.approx(made.costs_usd.mean(axis=0), rel=0.05)


def test_a_model_that_was_never_tried_is_predicted_at_0():
    log = made_log(500).log
    tried = log.take(log.action != 1)
    found = predictions(tried, tried.score)
    assert (found[:, 1] == 0.0).all()
    assert (found[:, [0, 2]] > 0.0).any()


def test_predictions_do_not_depend_on_the_chunks_they_are_asked_in():
    log = made_log(3000, d=33).log
    sums = OutcomeSums(3, 33, folding="crossed", bounded=True)
    sums.add(log, log.score)
    model = sums.fit()
    whole = model.predict(log)
    for size in (1, 7, 1000):
        chunks = [
            model.predict(log.take(np.arange(start, min(start + size, 60))))
            for start in range(0, 60, size)
        ]
        assert np.array_equal(np.concatenate(chunks), whole[:60])


def test_features_beyond_the_grid_are_cut_to_it():
    log = made_log(300).log
    wild = dataclasses.replace(log, features=log.features * 1e9)
    found = predictions(wild, wild.score)
    assert np.isfinite(found).all()
    assert ((found >= 0.0) & (found <= 1.0)).all()
