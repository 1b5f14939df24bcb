"""Vowpal Wabbit as the expert for sparse context: it learns what the closed-form model leaves over.

Context columns and prompt n-grams are hashed, high-cardinality and mostly absent: what VW is made
for and what a dense posterior cannot hold. The expert predicts a correction to the closed-form
log-odds and is learned from there (VW's ``base``), so it starts at no correction at all.

A correction is linear in the features, without a constant and without interactions inside VW, so
reading the features' weights gives the same numbers as predicting, at a fraction of the cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from bandit_router.adapters.vowpal import Feature, Namespaces, VowpalWorkspace, token_index
from bandit_router.errors import SnapshotError
from bandit_router.types import Features

_COLUMN, _NGRAM, _PAIR = "c", "n", "p"


class VowpalResidualConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of :class:`VowpalResidual`.

    Attributes:
        bits: log2 of the number of weights.
        alpha, beta: FTRL-proximal step size and its smoothing (McMahan et al. 2013).
        l1, l2: penalties on the weights.
        ngram_weight: value of an n-gram feature when there is one; with n of them, each has
            ``ngram_weight / sqrt(n)``.
        ngrams: how many of a prompt's n-grams are used, the smallest hashes first: the same choice
            for the same words.
        limit: bound on a correction, in log-odds.
        pair_variance: prior variance of the correction of one model in one column value.
        pairs: how many pairs of model and column value are counted; the oldest are dropped.
    """

    bits: int = 18
    alpha: float = 0.3
    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0
    ngram_weight: float = 0.5
    ngrams: int = 24
    limit: float = 4.0
    pair_variance: float = 0.5
    pairs: int = 65_536


class VowpalResidual:
    """See :class:`~bandit_router.quality.base.ResidualExpert`.

    Namespaces: ``c`` columns and ``n`` n-grams, shared by all models; ``p`` model x column. A model
    alone is no feature: its ability is the closed form's, and two learners of one number would take
    every early accident twice. Text reaches VW as hashed indices only.

    Raises:
        ConfigError: VW refuses the settings.
    """

    def __init__(self, config: VowpalResidualConfig | None = None) -> None:
        self._config = config or VowpalResidualConfig()
        c = self._config
        self._seen: dict[int, int] = {}
        self._workspace = VowpalWorkspace(
            [
                "--noconstant", "--loss_function", "logistic",
                "--logistic_min", "0", "--logistic_max", "1",
                "--bit_precision", str(c.bits), "--ftrl",
                "--ftrl_alpha", f"{c.alpha:g}", "--ftrl_beta", f"{c.beta:g}",
                "--l1", f"{c.l1:g}", "--l2", f"{c.l2:g}",
            ]
        )  # fmt: skip

    def _shared(self, features: Features) -> Namespaces:
        namespaces: dict[str, list[Feature]] = {}
        if features.columns:
            namespaces[_COLUMN] = [
                (token_index(f"{name}={value}"), 1.0) for name, value in features.columns.items()
            ]
        if features.ngrams and self._config.ngram_weight:
            kept = features.ngrams[: self._config.ngrams]
            value = self._config.ngram_weight / len(kept) ** 0.5
            namespaces[_NGRAM] = [(index, value) for index in kept]
        return namespaces

    def _own(self, features: Features, model: str) -> Namespaces:
        if not features.columns:
            return {}
        return {_PAIR: [(index, 1.0) for index in _pairs(features, model)]}

    def residuals(self, features: Features, models: Sequence[str]) -> np.ndarray:
        """Correction in log-odds for each model, shape (K,), within the configured limit.

        The expert is linear, so a correction is the sum of its features' weights times values:
        they are read from VW one by one, which is quicker than having it predict.
        """
        weight, limit = self._workspace.weight, self._config.limit
        common = sum(
            value * weight(index)
            for features_of in self._shared(features).values()
            for index, value in features_of
        )
        own = (
            [sum(map(weight, _pairs(features, model))) for model in models]
            if features.columns
            else [0.0] * len(models)
        )
        return np.array([min(max(common + part, -limit), limit) for part in own])

    def doubts(self, features: Features, models: Sequence[str]) -> np.ndarray:
        """Variance of each correction: every pair's shrinks with the outcomes it has seen.

        A pair with n outcomes has about ``v / (1 + n v / 4)``, the posterior variance of a
        logistic coefficient with prior variance v at even odds.
        """
        if not features.columns:
            return np.zeros(len(models))
        v, seen = self._config.pair_variance, self._seen
        return np.array(
            [
                sum(v / (1.0 + 0.25 * v * seen.get(index, 0)) for index in _pairs(features, model))
                for model in models
            ]
        )

    def learn(
        self, features: Features, model: str, score: float, weight: float, base: float
    ) -> float:
        """One step towards ``score`` in [0, 1] from log-odds ``base``; the correction before it."""
        example = {**self._shared(features), **self._own(features, model)}
        if not example:
            return 0.0
        before = self._workspace.learn(example, score, weight, base)
        for index in _pairs(features, model):
            self._seen[index] = self._seen.get(index, 0) + 1
            if len(self._seen) > self._config.pairs:
                del self._seen[next(iter(self._seen))]
        return min(max(before, -self._config.limit), self._config.limit)

    def dump(self) -> bytes:
        """VW's model, verified on the way out, and the counts in their order."""
        return msgspec.msgpack.encode([self._workspace.save(), list(self._seen.items())])

    def load(self, state: bytes) -> None:
        """Inverse of :meth:`dump`. Raises SnapshotError."""
        try:
            model, seen = msgspec.msgpack.decode(state, type=tuple[bytes, list[tuple[int, int]]])
        except msgspec.DecodeError as error:
            raise SnapshotError(f"this is no state of a residual expert: {error}") from error
        self._workspace.load(model)
        self._seen = dict(seen)


def _pairs(features: Features, model: str) -> list[int]:
    return [token_index(f"{model}\x1f{name}={value}") for name, value in features.columns.items()]
