"""The package ``paretobandit`` through its own interface, for comparing speed."""

from __future__ import annotations

import logging
import time

import numpy as np

from bandit_router.adapters.pareto import COMPONENTS, ParetoFeaturizer
from bandit_router.adapters.tables import OutcomeTable
from bandit_router.replay import table_features


def peer_features(table: OutcomeTable) -> np.ndarray:
    """Its features with its bias, shape (n, 26)."""
    dense = np.array([f.dense for f in table_features(table, ParetoFeaturizer())])
    return np.column_stack([dense, np.ones(len(dense))])


def peer_queries_per_second(table: OutcomeTable, features: np.ndarray, seed: int) -> float:
    """``route`` then ``process_feedback`` of every query, as in its demo."""
    logging.getLogger("pareto_bandit").setLevel(logging.ERROR)
    from pareto_bandit.config import BEST_K3_TABULA_RASA_HPARAMS
    from pareto_bandit.feature_service import FeatureService
    from pareto_bandit.router import BanditRouter
    from pareto_bandit.storage import EphemeralContextStore

    settings = BEST_K3_TABULA_RASA_HPARAMS
    prices = table.costs_usd.mean(axis=0) * 1e6 / 600.0
    router = BanditRouter.create(
        model_registry={
            model: {
                "model_id": model,
                "input_cost_per_m": float(price),
                "output_cost_per_m": float(price),
            }
            for model, price in zip(table.models, prices, strict=True)
        },
        feature_service=FeatureService.for_precomputed(COMPONENTS + 1),
        context_store=EphemeralContextStore(),
        priors="none",
        prior_n_effective=settings["prior_n_effective"],
        alpha=settings["alpha"],
        forgetting_factor=settings["forgetting_factor"],
        cost_penalty=0.3,
        bandit_seed=seed,
    )
    columns = {model: column for column, model in enumerate(table.models)}
    scores, costs = table.scores, table.costs_usd
    start = time.perf_counter()
    for row in range(len(table)):
        model, log = router.route(features[row])
        log.cost_usd = float(costs[row, columns[model]])
        router.process_feedback(log.request_id, reward=float(scores[row, columns[model]]))
    return len(table) / (time.perf_counter() - start)
