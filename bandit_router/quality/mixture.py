"""The outcome model of the default policy: standardised features, score mixture, cost model."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from bandit_router.errors import CatalogError, InputError, SnapshotError
from bandit_router.models import Catalog
from bandit_router.quality import kernels
from bandit_router.quality.base import Belief, ResidualExpert
from bandit_router.quality.costs import CostConfig, CostModel
from bandit_router.quality.scores import ScoreConfig, ScoreModel
from bandit_router.quality.state import pack, unpack
from bandit_router.types import Features

_KIND = "mixture/1"


class MixtureConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of :class:`Mixture`.

    Attributes:
        score, cost: settings of the two learned parts.
        draws: posterior draws per decision.
        width: factor on the posterior standard deviation of the draws.
        context_width: factor on the features inside that deviation: how far doubt about *this*
            query, rather than about the model as a whole, drives exploration.
        curiosity: weight of what a model's answer would tell of which model is best.
        temperature: of the preference, in units of score: models whose indices differ by less
            than this share the traffic.
        heard_share: weight in the mixture below which the residual expert is not asked.
        residual_rest: while it is not heard, the residual expert learns one of so many rows that
            have no context columns. On the others it predicts no correction, and pays its toll.
        standardise_rows: the running mean and variance of the features freeze after this many.
        standardise_prior: pseudo-rows of mean 0 and variance 1.
        clip: bound on standardised features.
    """

    score: ScoreConfig = ScoreConfig()
    cost: CostConfig = CostConfig()
    draws: int = 256
    width: float = 1.0
    context_width: float = 0.1
    curiosity: float = 2.0
    temperature: float = 0.002
    heard_share: float = 0.01
    residual_rest: int = 4
    standardise_rows: int = 200
    standardise_prior: float = 20.0
    clip: float = 3.0


class Mixture:
    """Learned score and cost (:class:`~bandit_router.quality.base.OutcomeModel`).

    Args:
        catalog: the models and their prior prices.
        dimension: length of ``Features.dense``.
        seed: of the bank of posterior draws. The bank is fixed for life: two equal states give
            equal preferences for equal features.
        residual: expert for sparse context; None for the closed-form experts alone.

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        dimension: int,
        seed: int = 0,
        config: MixtureConfig | None = None,
        residual: ResidualExpert | None = None,
    ) -> None:
        self._config = config or MixtureConfig()
        if self._config.draws < 1 or not 0.0 <= self._config.width < np.inf:
            raise InputError("draws must be at least 1, width finite and not negative")
        self._dimension, self._seed, self._residual = dimension, seed, residual
        self._score = ScoreModel(self._config.score, catalog, dimension)
        self._cost = CostModel(self._config.cost, _prices(catalog), dimension)
        self._count = 0.0
        self._total, self._square = np.zeros(dimension), np.zeros(dimension)
        if residual is None:
            self._score.log_weight[-1] = -1e9
        self._take(catalog)

    def _take(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._slot = {name: slot for slot, name in enumerate(catalog.names)}
        bank = [
            np.random.Generator(np.random.PCG64([self._seed, slot])).standard_normal(
                self._config.draws
            )
            for slot in range(len(catalog))
        ]
        self._draws = np.ascontiguousarray(np.array(bank).T)
        self._all = np.arange(len(catalog), dtype=np.int64)

    def _slots(self, models: Sequence[str]) -> np.ndarray:
        if tuple(models) == self._catalog.names:
            return self._all
        try:
            slots = [self._slot[model] for model in models]
        except KeyError as error:
            raise CatalogError(f"unknown model {error.args[0]!r}") from None
        if len(set(slots)) < len(slots):
            raise InputError(f"a model is named twice among the eligible: {list(models)}")
        return np.array(slots, np.int64)

    def _standardised(self, features: Features) -> np.ndarray:
        dense = features.dense
        if dense.shape != (self._dimension,):
            raise InputError(
                f"features have shape {dense.shape}, this policy was made for ({self._dimension},)"
            )
        x = np.empty(self._dimension)
        kernels.standardise(
            dense, self._count, self._total, self._square, self._config.standardise_prior,
            self._config.clip, x,
        )  # fmt: skip
        return x

    def evaluate(
        self,
        features: Features,
        models: Sequence[str],
        quality_value_usd: float,
        penalty: np.ndarray | None = None,
    ) -> Belief:
        """Belief about ``models``; ``penalty`` (K,) is taken off each utility, in score units."""
        slots = self._slots(models)
        x = self._standardised(features)
        cost = self._cost.predict(x, slots)
        score, preference = np.empty(slots.shape[0]), np.empty(slots.shape[0])
        heard = self._heard()
        residual = doubt = cost
        if heard:
            residual = self._residual.residuals(features, models)
            doubt = self._residual.doubts(features, models)
        price_terms = cost / quality_value_usd
        if penalty is not None:
            price_terms += penalty
        config = self._config
        kernels.evaluate(
            self._score.mean, self._score.cov, self._score.log_weight, residual, doubt, heard,
            x, self._score.own, slots, config.context_width, config.width, config.curiosity,
            config.temperature, self._draws, price_terms, score, preference,
        )  # fmt: skip
        return Belief(preference=preference, score=score, cost_usd=cost)

    def learn(
        self, features: Features, model: str, score: float | None, cost_usd: float | None
    ) -> float | None:
        """Take one outcome; the score that the model's whole past let expect, if there was a score.

        A model that has left the catalog since is ignored.
        """
        slot = self._slot.get(model)
        if slot is None:
            return None
        x = self._standardised(features)
        if self._count < self._config.standardise_rows:
            self._count += 1.0
            self._total += features.dense
            self._square += features.dense**2
        if cost_usd is not None:
            self._cost.learn(x, slot, cost_usd)
        if score is None:
            return None
        base, residual = self._score.base(x, slot), None
        if self._residual is not None:
            residual = 0.0
            if (
                features.columns
                or self._heard()
                or self._score.rows % self._config.residual_rest == 0
            ):
                weight = 1.0 / self._score.dispersion()
                residual = self._residual.learn(features, model, score, weight, base)
        steady = self._score.steady(x, slot)
        self._score.learn(x, slot, score, base, residual)
        return float(kernels.sigmoid(steady))

    def _heard(self) -> bool:
        """Whether the residual expert has earned enough of the mixture to be asked."""
        share = self._config.heard_share
        return self._residual is not None and self._score.residual_share() >= share

    def forget(self, model: str) -> None:
        """Widen what is believed of one model, after evidence that it has changed."""
        self._score.widen(self._slot[model])

    def residual_share(self) -> float:
        """How much of the mixture the residual expert has earned, in [0, 1]."""
        return self._score.residual_share()

    def set_catalog(self, catalog: Catalog) -> None:
        """Models added, removed or repriced; the posterior of those that stay is kept."""
        origin = [self._slot.get(name) for name in catalog.names]
        self._score.rearrange(list(self._catalog), list(catalog), origin)
        self._cost.rearrange(origin, _prices(catalog))
        self._take(catalog)

    def dump(self) -> bytes:
        """The whole state, catalog included."""
        return pack(
            _KIND,
            {
                "catalog": self._catalog.to_builtins(),
                "dimension": self._dimension,
                "seed": self._seed,
                "config": msgspec.to_builtins(self._config),
                "count": self._count,
                "total": self._total,
                "square": self._square,
                "residual": self._residual.dump() if self._residual is not None else b"",
                **self._score.state(),
                **self._cost.state(),
            },
        )

    def load(self, state: bytes) -> None:
        """Inverse of :meth:`dump` on a mixture of the same settings.

        Everything is checked before anything is replaced: a refused state changes nothing.

        Raises:
            SnapshotError: the state is damaged, incomplete, or of other settings.
        """
        values = unpack(_KIND, state)
        mine = (self._dimension, self._seed, msgspec.to_builtins(self._config))
        theirs = (values.get("dimension"), values.get("seed"), values.get("config"))
        if msgspec.msgpack.encode(mine) != msgspec.msgpack.encode(theirs):
            raise SnapshotError("this state was made with other settings, seed or dimension")
        if bool(values.get("residual")) != (self._residual is not None):
            raise SnapshotError("this state was made with another choice of residual expert")
        try:
            catalog = Catalog.from_builtins(values["catalog"])
            self._check_shapes(values, len(catalog))
            _check_types(values)
        except (KeyError, AttributeError, TypeError, CatalogError) as error:
            raise SnapshotError(f"this state is incomplete: {error}") from error
        if self._residual is not None:
            self._residual.load(values["residual"])
        self._score.restore(values)
        self._cost.restore(values)
        self._count = values["count"]
        self._total, self._square = values["total"], values["square"]
        self._take(catalog)

    def _check_shapes(self, values: dict, k: int) -> None:
        d, experts = self._dimension, len(self._config.score.experts)
        size = 1 + d + k * (1 + self._score.own)
        expected = {
            "total": (d,), "square": (d,), "score_mean": (experts, size),
            "score_cov": (experts, size, size), "score_mean0": (experts, size),
            "score_var0": (experts, size), "score_log_weight": (experts + 1,),
            "score_phi_sum": (experts + 1,), "score_phi_count": (experts + 1,),
            "cost_log_price": (k,), "cost_mean": (k + d,), "cost_cov": (k + d, k + d),
            "cost_noise": (2,), "cost_paid": (k,), "cost_foreseen": (k,),
        }  # fmt: skip
        for name, shape in expected.items():
            if values[name].shape != shape:
                raise SnapshotError(f"state {name!r} has shape {values[name].shape}, not {shape}")


def _check_types(values: dict) -> None:
    for name, kind in {"residual": bytes, "count": float, "score_reference": float}.items():
        if type(values[name]) is not kind:
            raise SnapshotError(f"state {name!r} is {values[name]!r}, not {kind.__name__}")


def _prices(catalog: Catalog) -> np.ndarray:
    return np.array([spec.prior_cost_usd() for spec in catalog])
