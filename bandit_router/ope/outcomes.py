"""What the models' outcomes were as a function of the features: the model of doubly robust.

Ridge regressions on sums over the log, one per fold, so that a log of any size is one pass and its
parts merge. Nothing rests on the model being right: it can only make the estimate more or less
noisy. So features and coefficients are rounded to a grid on which every product and every sum is
exact in float64. The parts of a log then give the same model, and the same predictions, in every
bit, in whatever chunks they are read.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Literal, Self

import numpy as np

from bandit_router.ope.exact import ExactSums
from bandit_router.ope.logged import Logged

Folding = Literal["crossed", "past"]
"""``crossed``: five folds by hash, each predicted from the other four. ``past``: the rows before
each power of two predict the rows up to the next, so that no row's model has seen what came after
it: the choice for a log whose policy learned, when the last 1 / n of bias matters."""

CROSSED_FOLDS = 5
_PAST_FOLDS = 40
_PAST_FIRST = 32

_FEATURE_STEP = 2.0**-8
_FEATURE_LIMIT = 16.0
"""Products of two features are multiples of 2**-16 up to 2**8: 2**29 of them sum exactly."""

_COEFFICIENT_STEP = 2.0**-24
_COEFFICIENT_LIMIT = 64.0
"""With a feature a multiple of 2**-32 up to 2**10: 2**11 of them sum exactly."""

SHARED_RIDGE = 30.0
OWN_RIDGE = 100.0
OWN_INTERCEPT_RIDGE = 10.0
SHRINKAGE_ROWS = 2.0
"""Rows that a belief without rows counts for: the slopes all models share, each model's own
departure from them, its own intercept, and the pull of its predictions towards 0, where doubly
robust is IPS. Chosen on folds 0 and 1 of three shared logs among six settings; the mean squared
error of most targets differed by less than a tenth between them. Without the last, a model that
was never tried is predicted to be as good as the favourite, and a wrong prediction costs more than
none."""

_RATIO_LIMIT = 20.0


class OutcomeSums:
    """Per fold and model: rows, features' cross products and their products with the outcome.

    Args:
        models: K.
        features: d; a constant is added to them.
        folding: how rows are divided.
        bounded: whether outcomes are scores in [0, 1]; else they are costs, whose scale is each
            model's own mean.
    """

    def __init__(self, models: int, features: int, *, folding: Folding, bounded: bool) -> None:
        self._folding, self._bounded = folding, bounded
        self._k, self._d = models, features + 1
        self._folds = CROSSED_FOLDS if folding == "crossed" else _PAST_FOLDS
        self._gram = np.zeros((self._folds, models, self._d, self._d))
        self._moment = ExactSums(self._d, self._folds * models)

    def add(self, log: Logged, outcome: np.ndarray) -> None:
        """Take the rows whose outcome (n,) is known, which is not NaN."""
        known = ~np.isnan(outcome)
        if not known.all():
            log, outcome = log.take(known), outcome[known]
        x, place = design(log.features), self.fold_of(log) * self._k + log.action
        self._moment.add(x * outcome[:, None], place)
        order = np.argsort(place, kind="stable")
        starts = np.flatnonzero(np.diff(place[order], prepend=-1))
        for start, end in pairwise([*starts.tolist(), len(order)]):
            some = x[order[start:end]]
            fold, model = divmod(int(place[order[start]]), self._k)
            self._gram[fold, model] += some.T @ some

    def __add__(self, other: OutcomeSums) -> Self:
        result = type(self)(self._k, self._d - 1, folding=self._folding, bounded=self._bounded)
        result._gram = self._gram + other._gram
        result._moment = self._moment + other._moment
        return result

    def fold_of(self, log: Logged) -> np.ndarray:
        """Fold of each row, (n,)."""
        if self._folding == "crossed":
            return (log.fold_key % CROSSED_FOLDS).astype(np.int64)
        return np.frexp(log.position // _PAST_FIRST)[1].astype(np.int64)

    def fit(self) -> OutcomeModel:
        """One regression per fold, none of which has seen the fold."""
        sums = [
            self._moment.part(slice(f * self._k, (f + 1) * self._k)) for f in range(self._folds)
        ]
        if self._folding == "crossed":
            total = sum(sums, ExactSums(self._d, self._k))
            moments = [(total - own).values() for own in sums]
            grams = [self._gram.sum(axis=0) - own for own in self._gram]
        else:
            before = accumulate(sums[:-1], initial=ExactSums(self._d, self._k))
            moments = [past.values() for past in before]
            grams = [self._gram[:f].sum(axis=0) for f in range(self._folds)]
        fits = [
            _fit(gram, m, bounded=self._bounded) for gram, m in zip(grams, moments, strict=True)
        ]
        return OutcomeModel(
            np.array([coefficients for coefficients, _ in fits]),
            np.array([scale for _, scale in fits]),
            self,
            1.0 if self._bounded else _RATIO_LIMIT,
        )


class OutcomeModel:
    """Predictions for rows of the log that the sums were taken of."""

    def __init__(
        self, coefficients: np.ndarray, scale: np.ndarray, sums: OutcomeSums, limit: float
    ) -> None:
        self._coefficients, self._scale = coefficients, scale  # (folds, K, d), (folds, K)
        self._sums, self._limit = sums, limit

    def predict(self, log: Logged) -> np.ndarray:
        """Of every model on every row, shape (n, K), by the fold's model that has not seen it."""
        x, fold = design(log.features), self._sums.fold_of(log)
        result = np.empty((len(log), self._scale.shape[1]))
        for f in np.unique(fold).tolist():
            rows = np.flatnonzero(fold == f)
            raw = x[rows] @ self._coefficients[f].T
            result[rows] = np.clip(raw, 0.0, self._limit) * self._scale[f]
        return result


def design(features: np.ndarray) -> np.ndarray:
    """A constant and the features on the grid, shape (n, d + 1)."""
    x = np.empty((features.shape[0], features.shape[1] + 1))
    x[:, 0] = 1.0
    near = np.clip(features, -_FEATURE_LIMIT, _FEATURE_LIMIT)
    np.multiply(np.rint(near / _FEATURE_STEP), _FEATURE_STEP, out=x[:, 1:])
    return x


def _fit(gram: np.ndarray, moment: np.ndarray, *, bounded: bool) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (K, d) and scale (K,) from cross products (K, d, d) and moments (K, d)."""
    rows = gram[:, 0, 0]
    mean = moment[:, 0] / np.maximum(rows, 1.0)
    unit = np.ones_like(rows) if bounded else np.where(mean > 0.0, mean, 1.0)
    moment = moment / unit[:, None]
    pooled, count = gram.sum(axis=0), max(float(rows.sum()), 1.0)
    spread = np.maximum(np.diag(pooled) / count - (pooled[0] / count) ** 2, _FEATURE_STEP)[1:]
    shared = _ridge(pooled, moment.sum(axis=0), 1e-6, SHARED_RIDGE * spread)
    own = [
        _ridge(g, m - g @ shared, OWN_INTERCEPT_RIDGE, OWN_RIDGE * spread)
        for g, m in zip(gram, moment, strict=True)
    ]
    steps = np.rint((shared + np.array(own)) / _COEFFICIENT_STEP) * _COEFFICIENT_STEP
    coefficients = np.clip(steps, -_COEFFICIENT_LIMIT, _COEFFICIENT_LIMIT)
    return coefficients, unit * rows / (rows + SHRINKAGE_ROWS)


def _ridge(
    gram: np.ndarray, moment: np.ndarray, intercept: float, slopes: np.ndarray
) -> np.ndarray:
    return np.linalg.solve(gram + np.diag(np.concatenate([[intercept], slopes])), moment)
