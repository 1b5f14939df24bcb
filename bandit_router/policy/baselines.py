"""Textbook policies to compare with: LinUCB, Thompson sampling, uniform, and fixed choices.

Every policy knows the same beforehand: the catalog with its prices. Settings are the usual ones of
their sources; what was tuned says how. All state their pmf exactly.
"""
# ruff: noqa: ARG002 - the signatures are the Policy protocol's; most of these look at little

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from bandit_router.errors import ConfigError
from bandit_router.models import Catalog
from bandit_router.policy.base import dense_of, mix_uniform
from bandit_router.policy.tally import Tally, pack, unpack
from bandit_router.types import Evaluation, Features, Interaction

TALLY_SHAPE = (4, None)


class _WithoutContext(ABC):
    """What the policies that look at no feature share: a tally, and a preference over models."""

    name: str
    epsilon = 0.0

    def __init__(self, catalog: Catalog, *, dimension: int = 0, seed: int = 0) -> None:
        """``dimension`` and ``seed`` are taken so that every policy is built alike."""
        self._tally = Tally(catalog)

    @abstractmethod
    def _preference(self, rows: np.ndarray, value_usd: float) -> np.ndarray:
        """Unnormalised preference over ``rows``, before the uniform share is mixed in."""

    def evaluate(
        self, features: Features, eligible: Sequence[str], quality_value_usd: float
    ) -> Evaluation:
        """See :class:`~bandit_router.policy.base.Policy`."""
        rows = self._tally.rows(eligible)
        score, cost = self._tally.scores(rows), self._tally.costs_usd(rows)
        return Evaluation(
            pmf=mix_uniform(self._preference(rows, quality_value_usd), self.epsilon),
            epsilon=self.epsilon,
            score=score,
            cost_usd=cost,
            utility=score - cost / quality_value_usd,
        )

    def learn(self, interaction: Interaction) -> None:
        """Count the interaction in its model's means."""
        self._tally.add(interaction)

    def set_catalog(self, catalog: Catalog) -> None:
        """Take a changed catalog."""
        self._tally.set_catalog(catalog)

    def dump(self) -> bytes:
        """The state as bytes."""
        return pack(self.name, self._tally.catalog, {"tally": self._tally.counts})

    def load(self, state: bytes) -> None:
        """Replace the state. Raises SnapshotError when the bytes are of another policy."""
        catalog, arrays, _ = unpack(self.name, state, {"tally": TALLY_SHAPE})
        self.set_catalog(catalog)
        self._tally.counts = arrays["tally"]


class Uniform(_WithoutContext):
    """Every eligible model with the same probability."""

    name = "uniform"
    epsilon = 1.0

    def _preference(self, rows: np.ndarray, value_usd: float) -> np.ndarray:
        return np.ones(len(rows))


class Cheapest(_WithoutContext):
    """Always the eligible model with the lowest price known beforehand."""

    name = "cheapest"

    def _preference(self, rows: np.ndarray, value_usd: float) -> np.ndarray:
        return _one_hot(len(rows), int(np.argmin(self._tally.price[rows])))


class Strongest(_WithoutContext):
    """Always the eligible model with the highest price known beforehand.

    Price is the only hint at strength that exists before anything was tried.
    """

    name = "strongest"

    def _preference(self, rows: np.ndarray, value_usd: float) -> np.ndarray:
        return _one_hot(len(rows), int(np.argmax(self._tally.price[rows])))


class Fixed(_WithoutContext):
    """Always one model; the cheapest eligible one where that model is masked.

    Raises:
        CatalogError: the catalog has no such model.
    """

    def __init__(self, catalog: Catalog, *, model: str, dimension: int = 0, seed: int = 0) -> None:
        super().__init__(catalog, dimension=dimension, seed=seed)
        self.name = f"fixed:{catalog[model].model}"
        self._model = model

    def _preference(self, rows: np.ndarray, value_usd: float) -> np.ndarray:
        wanted = np.flatnonzero(rows == self._tally.index.get(self._model, -1))
        place = int(wanted[0]) if len(wanted) else int(np.argmin(self._tally.price[rows]))
        return _one_hot(len(rows), place)


class Thompson(_WithoutContext):
    """Thompson sampling without context (Thompson 1933; Chapelle & Li 2011).

    The score of a model has the posterior Beta(1 + sum of scores, 1 + sum of (1 - score)); its cost
    is the mean so far. The pmf is the share of ``draws`` joint draws in which a model has the
    largest ``score - cost / quality value``. A draw of Beta(a, b) is X / (X + Y) with gamma
    variables X, Y made from a fixed bank of normals by Wilson & Hilferty's (1931) cube, whose
    error is under .01 in distribution for a, b >= 1. The bank depends on the seed and the model's
    name only, so the pmf is an exact function of the state and stays when other models come or go.

    No uniform share is mixed in (epsilon = 0): the sampling is the exploration.
    """

    name = "thompson"

    def __init__(
        self, catalog: Catalog, *, dimension: int = 0, seed: int = 0, draws: int = 256
    ) -> None:
        if draws < 1:
            raise ConfigError(f"thompson needs at least 1 draw, not {draws}")
        self._seed, self._draws = seed, draws
        super().__init__(catalog)
        self._fill_bank()

    def _fill_bank(self) -> None:
        self._bank = np.empty((len(self._tally.catalog), 2, self._draws))
        for row, model in enumerate(self._tally.catalog.names):
            text = f"{self._seed}/{model}".encode("utf-8", "surrogatepass")
            digest = hashlib.blake2b(text, digest_size=8).digest()
            rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
            self._bank[row] = rng.standard_normal((2, self._draws))

    def set_catalog(self, catalog: Catalog) -> None:
        """Take a changed catalog."""
        super().set_catalog(catalog)
        self._fill_bank()

    def _preference(self, rows: np.ndarray, value_usd: float) -> np.ndarray:
        seen, total = self._tally.counts[:2, rows]
        shape = np.stack((1.0 + total, 1.0 + seen - total), axis=1)[:, :, None]  # (K, 2, 1)
        gamma = shape * (1.0 - 1.0 / (9.0 * shape) + self._bank[rows] / (3.0 * np.sqrt(shape))) ** 3
        gamma = np.maximum(gamma, 1e-12)  # (K, 2, draws); the cube is below 0 in the far tail
        score = gamma[:, 0] / (gamma[:, 0] + gamma[:, 1])
        winner = np.argmax(score - (self._tally.costs_usd(rows) / value_usd)[:, None], axis=0)
        return np.bincount(winner, minlength=len(rows)).astype(np.float64)


class LinUcb:
    """Disjoint LinUCB (Li, Chu, Langford & Schapire 2010, algorithm 1).

    Per model a ridge regression of the reward ``score - cost / quality value`` on the dense
    features and a constant, and the choice of the largest ``x'theta + alpha sqrt(x' A^-1 x)``.
    The deterministic choice gets the share 1 - epsilon, so that its propensities are usable:
    epsilon is .02, that of the default policy.

    The paper's ridge of 1 lets 30 or so coefficients per model fit noise in a short log. On folds
    0 and 1 of three logs (nine quality values in all) alpha .5 with ridge 1 had a mean regret of
    .122, alpha .25 with ridge 10 of .058; alpha .03 to .25 with ridge 3 to 30 were .058 to .080.

    Args:
        catalog, dimension, seed: as for every policy; the seed is not used.
        alpha: width of the bound.
        ridge: prior precision of the coefficients, > 0.
        epsilon: share of the uniform distribution.
    """

    name = "linucb"

    def __init__(
        self,
        catalog: Catalog,
        *,
        dimension: int,
        seed: int = 0,
        alpha: float = 0.25,
        ridge: float = 10.0,
        epsilon: float = 0.02,
    ) -> None:
        if not (alpha >= 0.0 and ridge > 0.0 and 0.0 <= epsilon <= 1.0):
            raise ConfigError("linucb needs alpha >= 0, ridge > 0 and epsilon in 0..1")
        self._alpha, self._ridge, self.epsilon = alpha, ridge, epsilon
        self._size = dimension + 1
        self._tally = Tally(Catalog(()))
        self._inverse = np.zeros((0, self._size, self._size))
        self._moment = np.zeros((0, self._size))
        self.set_catalog(catalog)

    def evaluate(
        self, features: Features, eligible: Sequence[str], quality_value_usd: float
    ) -> Evaluation:
        """See :class:`~bandit_router.policy.base.Policy`. ``utility`` is the fitted reward."""
        rows = self._tally.rows(eligible)
        x = self._design(features)
        reach = self._inverse[rows] @ x  # (K, d + 1)
        reward = np.einsum("kd,kd->k", reach, self._moment[rows])  # x' A^-1 b
        bound = reward + self._alpha * np.sqrt(np.maximum(reach @ x, 0.0))
        cost = self._tally.costs_usd(rows)
        return Evaluation(
            pmf=mix_uniform(_best(bound), self.epsilon),
            epsilon=self.epsilon,
            score=np.clip(reward + cost / quality_value_usd, 0.0, 1.0),
            cost_usd=cost,
            utility=reward,
        )

    def learn(self, interaction: Interaction) -> None:
        """One rank-one update (Sherman-Morrison); needs both the score and the cost."""
        x = self._design(interaction.features)
        self._tally.add(interaction)
        row = self._tally.index.get(interaction.action)
        score, cost = interaction.score, interaction.cost_usd
        if row is None or not interaction.learn or score is None or cost is None:
            return
        reach = self._inverse[row] @ x
        self._inverse[row] -= np.outer(reach, reach) / (1.0 + x @ reach)
        self._moment[row] += (score - cost / interaction.quality_value_usd) * x

    def _design(self, features: Features) -> np.ndarray:
        x = np.empty(self._size)
        x[:-1] = dense_of(features, self._size - 1)
        x[-1] = 1.0
        return x

    def set_catalog(self, catalog: Catalog) -> None:
        """Take a changed catalog: a new model starts from the ridge prior."""
        inverse = np.repeat(np.eye(self._size)[None] / self._ridge, len(catalog), axis=0)
        moment = np.zeros((len(catalog), self._size))
        for row, model in enumerate(catalog.names):
            old = self._tally.index.get(model)
            if old is not None:
                inverse[row], moment[row] = self._inverse[old], self._moment[old]
        self._inverse, self._moment = inverse, moment
        self._tally.set_catalog(catalog)

    def dump(self) -> bytes:
        """The state as bytes."""
        arrays = {
            "tally": self._tally.counts,
            "inverse": self._inverse,
            "moment": self._moment,
        }
        return pack(self.name, self._tally.catalog, arrays)

    def load(self, state: bytes) -> None:
        """Replace the state. Raises SnapshotError when the bytes do not fit."""
        d = self._size
        shapes = {"tally": TALLY_SHAPE, "inverse": (None, d, d), "moment": (None, d)}
        catalog, arrays, _ = unpack(self.name, state, shapes)
        self.set_catalog(catalog)
        self._tally.counts = arrays["tally"]
        self._inverse, self._moment = arrays["inverse"], arrays["moment"]


def _one_hot(size: int, place: int) -> np.ndarray:
    preference = np.zeros(size)
    preference[place] = 1.0
    return preference


def _best(values: np.ndarray) -> np.ndarray:
    """Preference for the largest value, shared out over equals (at the start all are equal)."""
    return (values >= values.max()).astype(np.float64)
