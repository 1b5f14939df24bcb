"""What each model will score on a query: a mixture of Bayesian logistic experts."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from bandit_router.models import Catalog, ModelSpec
from bandit_router.quality import kernels


class ScoreConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Experts and priors. All variances are of log-odds.

    Attributes:
        experts: (variance of a model's own deviations D_k over all own features, retention) per
            expert. Retention 1 never forgets; below 1, evidence fades by that factor at every
            interaction. One expert that forgets costs nothing while the world stands still and
            takes over when it does not.
        own_features: how many of the first features enter a model's own deviations.
        shared_mean, shared_variance: prior of theta_0.
        price_slope: prior log-odds per unit of log price: the dearer is a priori the better.
        model_variance: of b_k about the price line.
        weight_variance: of w, all dimensions together.
        dispersion_count: pseudo-observations of dispersion 1.
        weight_retention: what is kept of the experts' log-weights at every interaction.
        residual_log_weight: prior log-weight of the residual expert.
        residual_toll: nats per interaction that the residual expert must predict better by.
        family_share: share of its family's mean residual that a newly added model starts from.
    """

    experts: tuple[tuple[float, float], ...] = ((0.0, 1.0), (0.05, 1.0), (0.3, 1.0), (0.05, 0.999))
    own_features: int = 5
    shared_mean: float = 1.0
    shared_variance: float = 0.3
    price_slope: float = 0.25
    model_variance: float = 0.5
    weight_variance: float = 1.0
    dispersion_count: float = 20.0
    weight_retention: float = 0.998
    residual_log_weight: float = -4.0
    residual_toll: float = 0.01
    family_share: float = 0.5


class ScoreModel:
    """The experts' posteriors over one parameter layout, and their weights.

    Source of the model: item response theory (one difficulty, shared; one ability per model; small
    deviations), learned by an extended Kalman filter with a logistic link; weights by tempered
    predictive likelihood.

    Args:
        catalog: the models; slot i is the i-th of them.
        dimension: of x.
    """

    _ARRAYS = ("mean", "cov", "mean0", "var0", "log_weight", "phi_sum", "phi_count")

    def __init__(self, config: ScoreConfig, catalog: Catalog, dimension: int) -> None:
        self.config, self._d = config, dimension
        self.own = min(config.own_features, dimension)
        self._rho = np.array([retention for _, retention in config.experts])
        self._forgets = np.append(np.where(self._rho < 1.0, -1e9, 0.0), 0.0)
        logs = [np.log(spec.prior_cost_usd()) for spec in catalog]
        self.reference_log_price = float(np.mean(logs)) if logs else 0.0
        self._lay_out(list(catalog), {})
        experts = len(config.experts)
        self.log_weight = np.zeros(experts + 1)
        self.log_weight[experts] = config.residual_log_weight
        self.phi_sum = np.full(experts + 1, config.dispersion_count)
        self.phi_count = np.full(experts + 1, config.dispersion_count)

    @property
    def _ds(self) -> int:
        return 1 + self._d

    @property
    def _do(self) -> int:
        return 1 + self.own

    def _lay_out(self, specs: list[ModelSpec], lift: dict[str, float]) -> None:
        """Prior arrays for ``specs``; ``lift`` adds to the prior ability of some models."""
        config, ds, do = self.config, self._ds, self._do
        experts, size = len(config.experts), ds + len(specs) * do
        self.mean0, self.var0 = np.zeros((experts, size)), np.zeros((experts, size))
        self.mean0[:, 0], self.var0[:, 0] = config.shared_mean, config.shared_variance
        self.var0[:, 1:ds] = config.weight_variance / max(self._d, 1)
        for slot, spec in enumerate(specs):
            at = ds + slot * do
            above = float(np.log(spec.prior_cost_usd())) - self.reference_log_price
            self.mean0[:, at] = config.price_slope * above + lift.get(spec.model, 0.0)
            self.var0[:, at] = config.model_variance
            for e, (variance, _) in enumerate(config.experts):
                self.var0[e, at + 1 : at + do] = variance / do
        self.mean = self.mean0.copy()
        self.cov = np.stack([np.diag(row) for row in self.var0])

    def rearrange(
        self, old_specs: list[ModelSpec], new_specs: list[ModelSpec], origin: list[int | None]
    ) -> None:
        """Move to new slots: survivors keep their posterior, new models get their prior.

        A new model's prior is the shared part, its price, and, when models with the same
        ``family`` (else ``vendor``) metadata have been learned, a share of how far those lie off
        the price line.
        """
        old_mean, old_cov, old_mean0, old_var0 = self.mean, self.cov, self.mean0, self.var0
        lift = {
            spec.model: self._family_lift(spec, old_specs)
            for spec, slot in zip(new_specs, origin, strict=True)
            if slot is None
        }
        self._lay_out(new_specs, lift)
        new_index, old_index = list(range(self._ds)), list(range(self._ds))
        for slot, previous in enumerate(origin):
            if previous is not None:
                new_index += range(self._ds + slot * self._do, self._ds + (slot + 1) * self._do)
                at = self._ds + previous * self._do
                old_index += range(at, at + self._do)
        self.mean[:, new_index] = old_mean[:, old_index]
        self.mean0[:, new_index] = old_mean0[:, old_index]
        self.var0[:, new_index] = old_var0[:, old_index]
        for e in range(len(self.cov)):
            self.cov[e][np.ix_(new_index, new_index)] = old_cov[e][np.ix_(old_index, old_index)]

    def _family_lift(self, spec: ModelSpec, known: list[ModelSpec]) -> float:
        for key in ("family", "vendor"):
            name = spec.metadata.get(key)
            slots = [i for i, other in enumerate(known) if name and other.metadata.get(key) == name]
            if slots:
                at = [self._ds + slot * self._do for slot in slots]
                heaviest = int(np.argmax(self.log_weight[:-1]))
                return self.config.family_share * float(
                    np.mean(self.mean[heaviest, at] - self.mean0[heaviest, at])
                )
        return 0.0

    def widen(self, slot: int) -> None:
        """Forget one model: its ability gets its prior variance back on top, links to it go."""
        at = self._ds + slot * self._do
        block = slice(at, at + self._do)
        for e in range(len(self.cov)):
            own = self.cov[e][block, block].copy()
            self.cov[e][block, :] = 0.0
            self.cov[e][:, block] = 0.0
            self.cov[e][block, block] = own + np.diag(self.var0[e, block])

    def base(self, x: np.ndarray, slot: int) -> float:
        """The closed-form mixture's log-odds for one model."""
        return float(kernels.mixture_log_odds(self.mean, self.log_weight, x, self.own, slot))

    def steady(self, x: np.ndarray, slot: int) -> float:
        """As :meth:`base`, by the experts that never forget (by all, where every one does).

        This is what a model's whole past says of it. An expert that forgets follows a change
        within tens of interactions, so that nothing would be left to notice.
        """
        log_weight = self.log_weight + self._forgets
        return float(kernels.mixture_log_odds(self.mean, log_weight, x, self.own, slot))

    def residual_share(self) -> float:
        """Weight of the residual expert in the mixture, in [0, 1]."""
        weight = np.empty(self.log_weight.shape[0])
        kernels.expert_weights(self.log_weight, weight)
        return float(weight[-1])

    @property
    def rows(self) -> int:
        """How many scores were learned."""
        return int(self.phi_count[0] - self.config.dispersion_count)

    def dispersion(self) -> float:
        """Of the heaviest closed-form expert: below 1 where scores vary less than coin flips."""
        heaviest = int(np.argmax(self.log_weight[:-1]))
        return max(float(self.phi_sum[heaviest] / self.phi_count[heaviest]), 0.05)

    def learn(
        self, x: np.ndarray, slot: int, score: float, base: float, residual: float | None
    ) -> None:
        """Take one score in [0, 1]; ``base`` and ``residual`` as they were predicted for it."""
        kernels.learn_score(
            self.mean, self.cov, self.mean0, self.var0, self.log_weight, self.phi_sum,
            self.phi_count, self._rho, x, self.own, slot, score, base,
            0.0 if residual is None else residual, residual is not None,
            self.config.residual_toll, self.config.weight_retention,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """Arrays and numbers that :meth:`restore` takes back."""
        values: dict[str, Any] = {f"score_{name}": getattr(self, name) for name in self._ARRAYS}
        values["score_reference"] = self.reference_log_price
        return values

    def restore(self, values: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        for name in self._ARRAYS:
            setattr(self, name, values[f"score_{name}"])
        self.reference_log_price = values["score_reference"]
