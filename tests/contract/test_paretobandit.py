"""``paretobandit`` behind our protocol chooses as the package itself does."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from bandit_router.models import Catalog, ModelSpec
from bandit_router.types import Features, Interaction

pytest.importorskip("pareto_bandit", reason="the package paretobandit is not installed")


@pytest.mark.parametrize("budget_usd", [None, 0.0005])
@pytest.mark.parametrize("dimension", [25, 6], ids=["shipped priors", "cold"])
def test_it_makes_the_packages_own_choices(budget_usd, dimension):
    from bandit_router.adapters.pareto import ParetoBandit
    from bandit_router.adapters.pareto_log import open_log

    table = open_log("paretobandit:val", limit=300)
    costs = table.costs_usd.mean(axis=0)
    catalog = Catalog(
        ModelSpec(model=m, expected_cost_usd=float(c))
        for m, c in zip(table.models, costs, strict=True)
    )
    ours = ParetoBandit(catalog, dimension=dimension, budget_usd=budget_usd)
    theirs = ParetoBandit(catalog, dimension=dimension, budget_usd=budget_usd)._router
    queries = np.random.default_rng(0).normal(size=(300, dimension))
    for i, dense in enumerate(queries):
        features = Features(dense=dense)
        # A quality value beyond all cost leaves the package's own rule, which knows none.
        evaluation = ours.evaluate(features, table.models, 1e30)
        model, log = theirs.route(np.append(dense, 1.0))
        column = table.models.index(model)
        assert evaluation.pmf[column] == evaluation.pmf.max()
        log.cost_usd = float(table.costs_usd[i, column])
        theirs.process_feedback(log.request_id, reward=float(table.scores[i, column]))
        ours.learn(
            Interaction(
                event_id=str(i),
                ts=float(i),
                closed_ts=float(i),
                features=features,
                eligible=table.models,
                pmf=tuple(evaluation.pmf.tolist()),
                action=model,
                propensity=float(evaluation.pmf[column]),
                slice="policy",
                quality_value_usd=1e30,
                score=float(table.scores[i, column]),
                cost_usd=float(table.costs_usd[i, column]),
            )
        )
    for model in table.models:
        assert np.array_equal(ours._router.bandit.A_inv[model], theirs.bandit.A_inv[model])


def test_its_own_features_are_its_own():
    from pareto_bandit.config import DEFAULT_PCA_PATH
    from pareto_bandit.feature_service import FeatureService

    from bandit_router.adapters.pareto import ParetoFeaturizer
    from bandit_router.types import Context

    embedding = np.random.default_rng(0).normal(size=384).astype(np.float32)
    service = FeatureService(
        custom_encoder=lambda _: embedding, embedding_dim=384, pca_path=DEFAULT_PCA_PATH
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pickled by another scikit-learn
        expected = service.extract_features("any text")
    context = Context(event_id="x", ts=0.0, prompt="any text", embedding=embedding)
    (features,) = ParetoFeaturizer().features_many([context])
    assert np.allclose(features.dense, expected[:-1], atol=1e-5)
