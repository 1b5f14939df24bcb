"""Evaluate targets on a log of any size: a reduce over its parts.

Two passes. The first takes the sums that outcome models are fitted from (and checks the rows and
their propensities), the second the estimators' own. Both are exact sums, so one process, all cores
or a cluster give the same report in every bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

import numpy as np

from bandit_router.errors import InputError
from bandit_router.ope.dr import DoublyRobust
from bandit_router.ope.estimate import Estimator
from bandit_router.ope.exact import ExactSums
from bandit_router.ope.ips import Ips
from bandit_router.ope.logged import Logged, check
from bandit_router.ope.outcomes import Folding, OutcomeModel, OutcomeSums
from bandit_router.ope.propensities import PropensityCheck
from bandit_router.ope.snips import Snips
from bandit_router.ope.support import Support
from bandit_router.ope.targets import Target
from bandit_router.ope.terms import terms

Outcome = Literal["score", "cost_usd", "reward"]
OUTCOMES: tuple[Outcome, ...] = ("score", "cost_usd", "reward")

ESTIMATORS: Mapping[str, type[Estimator]] = {e.name: e for e in (Ips, Snips, DoublyRobust)}


COST_MARGIN = 2.0
"""Costs have no upper limit, and intervals need one. A model's is this many times the largest cost
it had in the log, or the price known of it if that is more (the largest of all, if neither is
known): what the queries without a matching row would have cost on average is assumed to lie below
it."""


@dataclass(frozen=True)
class Question:
    """What is asked of a log.

    Attributes:
        models: every model of the log.
        estimators: names in :data:`ESTIMATORS`.
        quality_value_usd: at which rewards are counted, USD; None for the one logged with each row.
        folding: how the rows are divided for the models of doubly robust.

    Raises:
        InputError: an estimator is unknown, or the quality value is out of range.
    """

    models: tuple[str, ...]
    estimators: tuple[str, ...] = tuple(ESTIMATORS)
    quality_value_usd: float | None = None
    folding: Folding = "crossed"

    def __post_init__(self) -> None:
        for name in self.estimators:
            if name not in ESTIMATORS:
                raise InputError(f"unknown estimator {name!r}; there are: {', '.join(ESTIMATORS)}")
        value = self.quality_value_usd
        if value is not None and not 0.0 < value < np.inf:
            raise InputError(f"quality value {value!r} must be finite and above 0, in USD")

    def value_usd(self, log: Logged) -> np.ndarray:
        """The quality value of each row, (n,)."""
        if self.quality_value_usd is None:
            return log.quality_value_usd
        return np.full(len(log), self.quality_value_usd)


class Survey:
    """The first pass over a part of a log; mergeable by ``+``.

    Attributes:
        n: rows.
        propensities: whether they are those that drew.
        largest_cost_usd: the largest cost seen of each model, USD, (K,); 0 without any.
        smallest_value_usd: the smallest quality value that rewards are counted at, USD.
    """

    def __init__(self, question: Question, features: int) -> None:
        self._question, self._features = question, features
        k, folding = len(question.models), question.folding
        self.n = 0
        self.propensities = PropensityCheck(question.models)
        self.largest_cost_usd, self.smallest_value_usd = np.zeros(k), np.inf
        self._spent, self._priced = ExactSums(len(question.models)), np.zeros(k, np.int64)
        self._fits = "dr" in question.estimators
        self._score = OutcomeSums(k, features, folding=folding, bounded=True)
        self._cost = OutcomeSums(k, features, folding=folding, bounded=False)

    def add(self, log: Logged) -> None:
        """Check and take rows.

        Raises:
            InputError: a row breaks a range (see :func:`~bandit_router.ope.logged.check`), or has
                features of another length.
        """
        check(log)
        if log.features.shape[1] != self._features:
            raise InputError(
                f"interaction {int(log.position[0])}: {log.features.shape[1]} features where the "
                f"log began with {self._features}; evaluate logs of one featurizer at a time"
            )
        self.n += len(log)
        self.propensities.add(log)
        priced = ~np.isnan(log.cost_usd)
        cost = np.where(priced, log.cost_usd, 0.0)
        hit = log.action[:, None] == np.arange(len(log.models))
        self._spent.add(hit * cost[:, None])
        self._priced += (hit & priced[:, None]).sum(axis=0)
        np.maximum.at(self.largest_cost_usd, log.action, cost)
        low = float(self._question.value_usd(log).min(initial=np.inf))
        self.smallest_value_usd = min(self.smallest_value_usd, low)
        if self._fits:
            self._score.add(log, log.score)
            self._cost.add(log, log.cost_usd)

    def __add__(self, other: Survey) -> Self:
        result = type(self)(self._question, self._features)
        result.n = self.n + other.n
        result.propensities = self.propensities + other.propensities
        result.largest_cost_usd = np.maximum(self.largest_cost_usd, other.largest_cost_usd)
        result.smallest_value_usd = min(self.smallest_value_usd, other.smallest_value_usd)
        result._spent, result._priced = self._spent + other._spent, self._priced + other._priced
        result._score, result._cost = self._score + other._score, self._cost + other._cost
        return result

    def mean_costs_usd(self) -> dict[str, float]:
        """What each model cost where it was chosen, USD; models without a known cost left out."""
        spent = self._spent.values()[0]
        return {
            model: float(spent[k] / self._priced[k])
            for k, model in enumerate(self._question.models)
            if self._priced[k]
        }

    def mean_cost_usd(self) -> float:
        """What the logging policy spent per query whose cost is known, USD; 0 without any."""
        priced = int(self._priced.sum())
        return float(self._spent.values()[0].sum()) / priced if priced else 0.0

    def finish(self, prices_usd: Mapping[str, float] | None = None) -> Fitted:
        """What the second pass needs.

        Args:
            prices_usd: known beforehand, USD per query, by model: one that was hardly ever called
                may cost more than it did in the log.
        """
        known = prices_usd or {}
        prices = [known.get(model, 0.0) for model in self._question.models]
        largest = np.maximum(self.largest_cost_usd, prices)
        largest = np.where(largest > 0.0, largest, largest.max(initial=0.0))
        return Fitted(
            question=self._question,
            cost_limits_usd=COST_MARGIN * largest,
            smallest_value_usd=self.smallest_value_usd,
            score=self._score.fit() if self._fits else None,
            cost_usd=self._cost.fit() if self._fits else None,
        )


@dataclass(frozen=True)
class Fitted:
    """The outcome of the first pass.

    Attributes:
        cost_limits_usd: (K,) what no model is taken to cost more than; see :data:`COST_MARGIN`.
        smallest_value_usd: the smallest quality value that rewards are counted at, USD.
        score, cost_usd: outcome models; None when no estimator needs them.
    """

    question: Question
    cost_limits_usd: np.ndarray
    smallest_value_usd: float
    score: OutcomeModel | None
    cost_usd: OutcomeModel | None

    def ranges(self, target: np.ndarray) -> dict[Outcome, tuple[float, float]]:
        """Between which values the outcomes of a target's models lie; its probabilities (n, K)."""
        used = (target > 0.0).any(axis=0)
        dearest = float(np.max(self.cost_limits_usd, where=used, initial=0.0))
        return {
            "score": (0.0, 1.0),
            "cost_usd": (0.0, dearest),
            "reward": (-dearest / self.smallest_value_usd, 1.0),
        }

    def predictions(self, log: Logged) -> dict[Outcome, np.ndarray] | None:
        """Of every outcome for every model, each (n, K)."""
        if self.score is None or self.cost_usd is None:
            return None
        score, cost = self.score.predict(log), self.cost_usd.predict(log)
        value = self.question.value_usd(log)[:, None]
        return {"score": score, "cost_usd": cost, "reward": score - cost / value}


class TargetSums:
    """The second pass over a part of a log, for one target; mergeable by ``+``.

    Attributes:
        support: how much of the target the log can answer for.
        estimators: by outcome and by name.
    """

    def __init__(self, target: Target, fitted: Fitted) -> None:
        self._target, self._fitted = target, fitted
        question = fitted.question
        self.support = Support(target.name, question.models)
        self.estimators: dict[Outcome, dict[str, Estimator]] = {
            outcome: {name: ESTIMATORS[name]() for name in question.estimators}
            for outcome in OUTCOMES
        }

    def add(
        self,
        log: Logged,
        outcomes: Mapping[Outcome, np.ndarray],
        predictions: Mapping[Outcome, np.ndarray] | None,
    ) -> None:
        """Take rows with their outcomes (n,), NaN where unknown, and predictions (n, K)."""
        probabilities = self._target.probabilities(log)
        self.support.add(log, probabilities)
        ranges = self._fitted.ranges(probabilities)
        for outcome, estimators in self.estimators.items():
            known = np.flatnonzero(~np.isnan(outcomes[outcome]))
            every = len(known) == len(log)
            pick = (lambda array: array) if every else partial(np.take, indices=known, axis=0)
            batch = terms(
                log if every else log.take(known),
                pick(probabilities),
                pick(outcomes[outcome]),
                ranges[outcome],
                None if predictions is None else pick(predictions[outcome]),
            )
            for estimator in estimators.values():
                estimator.add(batch)

    def __add__(self, other: TargetSums) -> Self:
        result = type(self)(self._target, self._fitted)
        result.support = self.support + other.support
        result.estimators = {
            outcome: {name: mine + other.estimators[outcome][name] for name, mine in named.items()}
            for outcome, named in self.estimators.items()
        }
        return result


def survey(question: Question, features: int, batches: Iterable[Logged]) -> Survey:
    """The first pass over a part of the log."""
    result = Survey(question, features)
    for log in batches:
        result.add(log.over(question.models))
    return result


def measure(
    fitted: Fitted, targets: Sequence[Target], batches: Iterable[Logged]
) -> list[TargetSums]:
    """The second pass over a part of the log, all targets at once."""
    result = [TargetSums(target, fitted) for target in targets]
    for batch in batches:
        log = batch.over(fitted.question.models)
        value = fitted.question.value_usd(log)
        outcomes: dict[Outcome, np.ndarray] = {
            "score": log.score,
            "cost_usd": log.cost_usd,
            "reward": log.score - log.cost_usd / value,
        }
        predictions = fitted.predictions(log)
        for sums in result:
            sums.add(log, outcomes, predictions)
    return result
