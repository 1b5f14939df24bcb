"""The package ``paretobandit`` behind the Policy protocol, for measuring beside it.

ParetoBandit is a disjoint LinUCB with geometric forgetting and a primal-dual budget pacer. It runs
here with its own features, its own settings and, for the three models it ships priors for, those
priors and its own price list:

* features: its 25 whitened principal components of MiniLM embeddings (:class:`ParetoFeaturizer`);
* ``BEST_K3_HPARAMS`` with the shipped priors when it knows every model, else a cold start with
  ``BEST_K3_TABULA_RASA_HPARAMS``;
* with a budget, its own pacer (adaptive, static penalty 0) as in scenario 1 of its demo;
* without one, the penalty of its selection rule is mean cost / quality value, the exact trade-off
  asked for, in place of its log-scaled price. The mean cost is what was seen so far.

Its ``route`` draws and counts in one step; ``evaluate`` must not change anything, so the selection
rule (its equation 4) is evaluated here from its own posterior, and ``learn`` makes the calls that
``route`` and ``process_feedback`` make. A test holds the two to the same choices.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from bandit_router.errors import DependencyError, InputError
from bandit_router.models import TYPICAL_INPUT_TOKENS, TYPICAL_OUTPUT_TOKENS, Catalog, ModelSpec
from bandit_router.policy.base import dense_of, mix_uniform
from bandit_router.policy.baselines import TALLY_SHAPE
from bandit_router.policy.tally import Tally, pack, unpack
from bandit_router.types import Context, Evaluation, Features, Interaction

COMPONENTS = 25


def require_paretobandit() -> None:
    """Raise DependencyError unless the package is installed; does not import it."""
    if importlib.util.find_spec("pareto_bandit") is None:
        raise DependencyError(
            "policy 'paretobandit' needs that package: pip install 'bandit-router[demo]'"
        )


class ParetoFeaturizer:
    """ParetoBandit's features: whitened principal components of the context's embedding (its bias
    is added by the policy). An empty prompt, which it refuses, gets zeros.

    Raises:
        DependencyError: the package is not installed.
    """

    featurizer_id = "paretobandit-pca25"
    dimension = COMPONENTS

    def __init__(self) -> None:
        require_paretobandit()
        from pareto_bandit.config import DEFAULT_PCA_PATH
        from pareto_bandit.feature_service import FeatureService

        service = FeatureService(
            custom_encoder=lambda _: np.zeros(384), embedding_dim=384, pca_path=DEFAULT_PCA_PATH
        )
        with warnings.catch_warnings():
            # Its PCA was pickled by another scikit-learn; only a mean and a matrix of it are used.
            warnings.simplefilter("ignore", UserWarning)
            self._pca = service.pca
        self._scales = service.get_pca_whitening_scales()[:-1]

    def features_many(self, contexts: Sequence[Context]) -> list[Features]:
        """Features of many contexts, in their order.

        Raises:
            InputError: a context has no embedding.
        """
        for context in contexts:
            if context.embedding is None:
                raise InputError(f"query {context.event_id!r} has no embedding")
        embeddings = np.array([context.embedding for context in contexts], dtype=np.float64)
        lengths = np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        dense = self._pca.transform(embeddings / lengths) * self._scales
        for row, context in enumerate(contexts):
            if not context.prompt.strip():
                dense[row] = 0.0
        return [Features(dense=row) for row in dense]


class ParetoBandit:
    """The policy ``paretobandit``.

    Args:
        catalog: the models; prices beyond its own list come from here.
        dimension: number of dense features; its priors apply when this is 25.
        seed: its ``bandit_seed``.
        budget_usd: its pacer's target per query, or None.
    """

    name = "paretobandit"
    epsilon = 0.0

    def __init__(
        self,
        catalog: Catalog,
        *,
        dimension: int,
        seed: int = 0,
        budget_usd: float | None = None,
    ) -> None:
        require_paretobandit()
        self._size, self._seed, self._budget_usd = dimension + 1, seed, budget_usd
        self._first_price = {spec.model: spec.prior_cost_usd() for spec in catalog}
        self._tally = Tally(catalog)
        self._open(catalog)

    def _open(self, catalog: Catalog) -> None:
        from pareto_bandit.budget_pacer import BudgetPacer, PacingMode
        from pareto_bandit.config import BEST_K3_HPARAMS, BEST_K3_TABULA_RASA_HPARAMS
        from pareto_bandit.feature_service import FeatureService
        from pareto_bandit.router import BanditRouter

        shipped = _shipped_prices()
        known = self._size == COMPONENTS + 1 and all(m in shipped for m in catalog.names)
        settings = BEST_K3_HPARAMS if known else BEST_K3_TABULA_RASA_HPARAMS
        pacer = None
        if self._budget_usd is not None:
            pacer = BudgetPacer(target_avg_spend_usd=self._budget_usd, mode=PacingMode.ADAPTIVE)
        self._router = BanditRouter.create(
            model_registry={spec.model: self._registered(spec, shipped) for spec in catalog},
            feature_service=FeatureService.for_precomputed(self._size),
            priors="warmup" if known else "none",
            prior_n_effective=settings["prior_n_effective"],
            alpha=settings["alpha"],
            forgetting_factor=settings["forgetting_factor"],
            cost_penalty=0.0,
            budget_pacer=pacer,
            bandit_seed=self._seed,
        )

    def _registered(
        self, spec: ModelSpec, shipped: dict[str, tuple[float, float]]
    ) -> dict[str, float | str]:
        """Its registry entry: its own list price, else the catalog's as a price per token."""
        prior = spec.prior_cost_usd()
        flat = prior * 1e6 / (TYPICAL_INPUT_TOKENS + TYPICAL_OUTPUT_TOKENS)
        price = (spec.usd_per_1m_input or flat, spec.usd_per_1m_output or flat)
        if spec.model in shipped:
            changed = prior / self._first_price.setdefault(spec.model, prior)
            price = (shipped[spec.model][0] * changed, shipped[spec.model][1] * changed)
        return {
            "model_id": spec.model,
            "input_cost_per_m": price[0],
            "output_cost_per_m": price[1],
        }

    def evaluate(
        self, features: Features, eligible: Sequence[str], quality_value_usd: float
    ) -> Evaluation:
        """See :class:`~bandit_router.policy.base.Policy`. One model gets it all, but for ties."""
        rows, x, bandit = self._tally.rows(eligible), self._design(features), self._router.bandit
        mean = np.array([bandit.get_expected_reward(m, x) for m in eligible])
        width = np.array([bandit.get_ucb_variance(m, x) for m in eligible])
        cost = self._tally.costs_usd(rows)
        penalty = self._penalty(eligible, cost, quality_value_usd)
        bound = mean + bandit.alpha * np.sqrt(np.maximum(width, 1e-12)) - penalty
        return Evaluation(
            pmf=mix_uniform((bound >= bound.max()).astype(np.float64), self.epsilon),
            epsilon=self.epsilon,
            score=np.clip(mean, 0.0, 1.0),
            cost_usd=cost,
            utility=mean - cost / quality_value_usd,
        )

    def _penalty(
        self, eligible: Sequence[str], cost: np.ndarray, quality_value_usd: float
    ) -> np.ndarray:
        """Cost penalty of each model; infinite above the pacer's hard ceiling, unless all are."""
        from pareto_bandit.costs import log_normalize_cost

        pacer, config = self._router.budget_pacer, self._router.config
        if pacer is None:
            return cost / quality_value_usd
        blended = {m: float(self._router.registry[m]["blended_cost_per_m"]) for m in eligible}
        per_1k = {m: price / 1000.0 for m, price in blended.items()}
        normal = {
            m: log_normalize_cost(price, config.market_cost_floor, config.market_cost_ceiling)
            for m, price in per_1k.items()
        }
        dearest = max(
            float(entry["blended_cost_per_m"]) for entry in self._router.registry.values()
        )
        ceiling = pacer.get_cost_ceiling_per_1k(dearest / 1000.0)
        extra = pacer.get_extra_cost_penalties(normal)
        penalty = np.array([extra[m] for m in eligible])
        over = np.array([ceiling is not None and per_1k[m] > ceiling for m in eligible])
        return penalty if over.all() else np.where(over, np.inf, penalty)

    def learn(self, interaction: Interaction) -> None:
        """What ``route`` and ``process_feedback`` do to the state, in that order."""
        if not interaction.learn or interaction.action not in self._tally.index:
            return
        x = self._design(interaction.features)
        self._tally.add(interaction)
        router, bandit = self._router, self._router.bandit
        bandit.mark_selected(interaction.action)
        if interaction.score is not None:
            router.update(interaction.action, x, interaction.score, advance_time=False)
        if interaction.cost_usd is not None and router.budget_pacer is not None:
            router.budget_pacer.observe(interaction.cost_usd)

    def _design(self, features: Features) -> np.ndarray:
        return np.append(dense_of(features, self._size - 1), 1.0)

    def set_catalog(self, catalog: Catalog) -> None:
        """Take a changed catalog: what was learned of the models that stay is kept."""
        arrays, scalars = self._state()
        old = self._tally.catalog
        self._tally.set_catalog(catalog)
        self._open(catalog)
        self._restore(old.names, arrays, scalars)

    def _state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        bandit, pacer = self._router.bandit, self._router.budget_pacer
        names = self._tally.catalog.names
        arrays = {
            "precision": np.array([bandit.A[m] for m in names]),
            "inverse": np.array([bandit.A_inv[m] for m in names]),
            "moment": np.array([bandit.b[m] for m in names]),
            "clocks": np.array(
                [
                    [bandit.last_update[m], bandit.last_played[m], bandit.regularization_floor[m]]
                    for m in names
                ]
            ),
        }
        scalars: dict[str, Any] = {"t": bandit.t, "first_price": self._first_price}
        if pacer is not None:
            scalars["pacer"] = [pacer.lambda_t, pacer.cost_ema, pacer.n_observations]
        return arrays, scalars

    def _restore(
        self, names: Sequence[str], arrays: dict[str, np.ndarray], scalars: dict[str, Any]
    ) -> None:
        bandit, pacer = self._router.bandit, self._router.budget_pacer
        bandit.t = scalars["t"]
        for row, model in enumerate(names):
            if model in bandit.A:
                bandit.A[model] = arrays["precision"][row]
                bandit.A_inv[model] = arrays["inverse"][row]
                bandit.b[model] = arrays["moment"][row]
                bandit.theta[model] = bandit.A_inv[model] @ bandit.b[model]
                update, played, floor = arrays["clocks"][row].tolist()
                bandit.last_update[model], bandit.last_played[model] = int(update), int(played)
                bandit.regularization_floor[model] = floor
        for model in set(bandit.A) - set(names):  # new arms start now, as its add_arm does
            bandit.last_update[model] = bandit.last_played[model] = bandit.t
        if pacer is not None and "pacer" in scalars:
            pacer.lambda_t, pacer.cost_ema, pacer.n_observations = scalars["pacer"]

    def dump(self) -> bytes:
        """The state as bytes."""
        arrays, scalars = self._state()
        arrays["tally"] = self._tally.counts
        return pack(self.name, self._tally.catalog, arrays, **scalars)

    def load(self, state: bytes) -> None:
        """Replace the state. Raises SnapshotError when the bytes do not fit."""
        d = self._size
        shapes = {
            "precision": (None, d, d),
            "inverse": (None, d, d),
            "moment": (None, d),
            "clocks": (None, 3),
            "tally": TALLY_SHAPE,
        }
        catalog, arrays, scalars = unpack(self.name, state, shapes)
        self._first_price = dict(scalars["first_price"])
        self._tally.set_catalog(catalog)
        self._tally.counts = arrays["tally"]
        self._open(catalog)
        self._restore(catalog.names, arrays, scalars)


def _shipped_prices() -> dict[str, tuple[float, float]]:
    """Its own registry: model to (input, output) price in USD per million tokens."""
    import json

    from pareto_bandit.config import DEFAULT_MODEL_REGISTRY_PATH

    rows = json.loads(DEFAULT_MODEL_REGISTRY_PATH.read_text(encoding="utf-8"))["models"]
    return {r["model_id"]: (r["input_cost_per_m"], r["output_cost_per_m"]) for r in rows}
