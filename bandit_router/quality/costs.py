"""What a query will cost on each model, learned as a ratio to the model's known price."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from bandit_router.quality import kernels


class CostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Priors of the cost model.

    Attributes:
        model_variance: of a_k, the log ratio of a model's mean cost to its prior price.
        feature_variance: of h, all dimensions together, on the log scale.
        noise: prior variance of the log cost of one query.
        noise_count: pseudo-observations behind ``noise``.
        pseudo_queries: weight of the prior price in the ratio of paid to foreseen USD.
        retention: what is kept of that ratio's evidence at each query of the model, in (0, 1].
    """

    model_variance: float = 0.1
    feature_variance: float = 0.3
    noise: float = 0.3
    noise_count: float = 20.0
    pseudo_queries: float = 5.0
    retention: float = 0.998


class CostModel:
    """c_k(x) = price_k exp(a_k + h . x) r_k.

    ``a`` and ``h`` come from recursive least squares on log(cost / price); r_k, the ratio of USD
    paid to USD foreseen, takes out the bias of the logarithm and follows a silent change of price.
    A repricing scales the prediction at once, because everything learned is a ratio to the price.

    Args:
        prices_usd: prior mean cost per query of each model in USD, shape (K,), > 0.
        dimension: of x.
    """

    def __init__(self, config: CostConfig, prices_usd: np.ndarray, dimension: int) -> None:
        self.config, self._d = config, dimension
        self.log_price = np.log(prices_usd)
        self.mean = np.zeros(len(prices_usd) + dimension)
        self.cov = np.diag(
            np.r_[
                np.full(len(prices_usd), config.model_variance),
                np.full(dimension, config.feature_variance / max(dimension, 1)),
            ]
        )
        self.noise = np.array([config.noise * config.noise_count, config.noise_count])
        self.paid = config.pseudo_queries * prices_usd
        self.foreseen = config.pseudo_queries * prices_usd

    def predict(self, x: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """Expected cost in USD of the models in ``slots``, shape (n,), > 0."""
        out = np.empty(slots.shape[0])
        kernels.predicted_costs(x, slots, self.log_price, self.mean, self.paid, self.foreseen, out)
        return out

    def learn(self, x: np.ndarray, slot: int, cost_usd: float) -> None:
        """Take the cost of one query, USD, >= 0."""
        kernels.learn_cost(
            self.mean, self.cov, self.noise, self.log_price, self.paid, self.foreseen, x, slot,
            cost_usd, self.config.retention,
        )  # fmt: skip

    def rearrange(self, origin: list[int | None], prices_usd: np.ndarray) -> None:
        """New slots: ``origin[i]`` is the old slot of new slot i, or None for a new model."""
        old, k_old, k_new = CostModel.__new__(CostModel), len(self.paid), len(origin)
        old.__dict__.update(self.__dict__)
        self.__init__(self.config, prices_usd, self._d)  # type: ignore[misc]
        self.noise = old.noise
        kept = [(new, slot) for new, slot in enumerate(origin) if slot is not None]
        new_index = [new for new, _ in kept] + [k_new + i for i in range(self._d)]
        old_index = [slot for _, slot in kept] + [k_old + i for i in range(self._d)]
        self.mean[new_index] = old.mean[old_index]
        self.cov[np.ix_(new_index, new_index)] = old.cov[np.ix_(old_index, old_index)]
        for new, slot in kept:
            scale = math.exp(self.log_price[new] - old.log_price[slot])
            self.paid[new] = old.paid[slot] * scale
            self.foreseen[new] = old.foreseen[slot] * scale

    def state(self) -> dict[str, Any]:
        """Arrays that :meth:`restore` takes back."""
        names = ("log_price", "mean", "cov", "noise", "paid", "foreseen")
        return {f"cost_{name}": getattr(self, name) for name in names}

    def restore(self, values: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        for name in ("log_price", "mean", "cov", "noise", "paid", "foreseen"):
            setattr(self, name, values[f"cost_{name}"])
