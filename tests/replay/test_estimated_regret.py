"""Estimated regret of replayed runs: the truth is in its band, and it is made of the log alone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bandit_router.adapters.tables import OutcomeTable
from bandit_router.bootstrap import make_featurizer, make_policy
from bandit_router.replay import Plan, replay, table_features
from bandit_router.report.measure import measure, observed
from bandit_router.report.regret_curve import Observed, regret_curve
from bandit_router.report.regret_figure import estimated_regret, what_the_band_means

QUERIES, VALUE = 400, 0.05


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(7)
    odd = np.arange(QUERIES) % 2 == 1
    embeddings = rng.normal(size=(QUERIES, 384))
    embeddings[:, 0] += np.where(odd, 20.0, -20.0)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    right = np.where(odd[:, None], [0.1, 0.5, 0.95], [0.8, 0.85, 0.9])
    return OutcomeTable(
        path="made.jsonl",
        sha256="0" * 64,
        models=("small", "middle", "large"),
        query_ids=tuple(map(str, range(QUERIES))),
        prompts=("",) * QUERIES,
        scores=(rng.random((QUERIES, 3)) < right).astype(float),
        costs_usd=np.array([0.0001, 0.001, 0.01]) * np.exp(0.3 * rng.normal(size=(QUERIES, 3))),
        embeddings=embeddings.astype(np.float32),
    )


@pytest.fixture(scope="module")
def traces(table):
    featurizer = make_featurizer(embed=False)
    features = table_features(table, featurizer)
    plan = Plan(("bandit", "uniform", "fixed:large"), (VALUE,), (0.002,), seeds=2)
    runs = replay(
        plan,
        table,
        lambda _: features,
        lambda name, catalog, seed, _: make_policy(
            name, catalog, dimension=featurizer.dimension, seed=seed
        ),
    )
    return list(runs)


def test_the_true_regret_is_in_the_band_after_every_query(table, traces):
    shown = 0
    for trace in traces:
        found = measure(table, trace, observed(table, trace))
        if found.estimated is None:
            assert trace.setting.policy == "fixed:large"
            continue
        shown, curve = shown + 1, found.estimated
        assert curve.rows[-1] == QUERIES
        assert (curve.lower <= curve.true).all()
        assert (curve.true <= curve.upper).all()
        band, run = found.run.estimated_regret.best_fixed, found.run
        assert (band.value, band.lower, band.upper) == curve.last[:3]
        assert band.lower <= run.regret.best_fixed <= band.upper
        assert curve.last[3] == pytest.approx(run.regret.best_fixed, abs=0.05)
    assert shown == 8


def test_the_pmf_of_a_trace_is_what_its_actions_were_drawn_from(traces):
    for trace in traces:
        rows = np.arange(QUERIES)
        assert (trace.pmf[rows, trace.chosen] == trace.propensities).all()
        assert trace.pmf.sum(axis=1) == pytest.approx(np.ones(QUERIES))


def test_a_regret_that_is_there_is_found(table, traces):
    """Uniform choices lose about .2 to the best single model, and its band leaves 0 out."""
    uniform = next(t for t in traces if t.setting.policy == "uniform")
    value, lower, _, true = measure(table, uniform, observed(table, uniform)).estimated.last
    assert lower > 0.02
    assert value == pytest.approx(true, abs=0.1)


def test_no_outcome_of_a_model_that_was_not_asked_reaches_the_estimate(table, traces):
    """The truth moves with them; the estimate and its band do not, in any bit."""
    for trace in traces[:1]:
        log = observed(table, trace)
        scores = table.scores[trace.queries]
        costs = table.costs_usd[trace.queries]
        turned = 1.0 - scores
        rows = np.arange(QUERIES)
        turned[rows, trace.chosen] = scores[rows, trace.chosen]
        one, other = (regret_curve(log, s, costs, VALUE) for s in (scores, turned))
        for name in ("value", "lower", "upper"):
            assert (getattr(one, name) == getattr(other, name)).all()
        assert (one.true != other.true).any()


def test_without_logged_probabilities_nothing_is_estimated(table, traces):
    bare = dataclasses.replace(traces[0], pmf=None)
    assert observed(table, bare) is None
    found = measure(table, bare, None)
    assert (found.estimated, found.run.estimated_regret) == (None, None)


def test_a_model_that_once_had_no_chance_leaves_nothing_to_say(table, traces):
    log = observed(table, traces[0])
    pmf = log.choices.pmf.copy()
    at = int(np.flatnonzero(log.choices.actions == 0)[0])
    pmf[at] = [1.0, 0.0, 0.0]
    choices = dataclasses.replace(log.choices, pmf=pmf)
    assert regret_curve(Observed(log.places, choices), table.scores, table.costs_usd, 1.0) is None


def test_the_figure_says_what_its_band_means_and_has_the_numbers_as_a_table(table, traces):
    curve = measure(table, traces[0], observed(table, traces[0])).estimated
    figure = estimated_regret("bandit", curve, [(200.0, "drop")])
    assert what_the_band_means(curve) == figure.note
    assert "probability at least 95%" in figure.note
    assert [row[0] for row in figure.rows] == ["estimated", "lower", "upper", "true"]
    assert [row[-1] for row in figure.rows] == [
        f"{x:.4f}" for x in (curve.value[-1], curve.lower[-1], curve.upper[-1], curve.true[-1])
    ]
    classes = [mark.get("class") for mark in figure.chart.iter()]
    assert "band s0" in classes
    assert "line ink dashed" in classes
    assert "event" in classes
