"""How far off-policy estimates are from the truth that a replay knows.

A policy is replayed on a routing log, which says what every model would have brought. From what it
logged, each target is estimated, over and over: with other seeds of the replay itself, in which the
policy learns anew, or with other draws from the probabilities of one replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bandit_router.adapters.estimators import interval
from bandit_router.adapters.tables import OutcomeTable
from bandit_router.adapters.vocabulary import fold_keys
from bandit_router.models import Catalog
from bandit_router.ope.evaluation import Outcome, Question, measure, survey
from bandit_router.ope.logged import Logged
from bandit_router.ope.outcomes import Folding
from bandit_router.ope.targets import Mixed, Preferred, Target, Uniform, fixed
from bandit_router.policy.base import Policy
from bandit_router.regret import hull_mixture
from bandit_router.replay import FeatureMaker, Player, blurred_catalog, query_order, table_features
from bandit_router.types import Evaluation, Features, Interaction

MakePolicy = Callable[[str, Catalog, int], Policy]
"""From (name, catalog, seed)."""


@dataclass(frozen=True)
class Replayed:
    """What a policy logged on a table, and what every model would have brought.

    Attributes:
        logged: in order of arrival.
        scores, costs_usd: (n, K), in the same order.
    """

    logged: Logged
    scores: np.ndarray
    costs_usd: np.ndarray

    def redrawn(self, seed: int) -> Replayed:
        """The same queries and probabilities, other actions drawn from them."""
        rng, log = np.random.default_rng([seed, 0x0BE]), self.logged
        cumulated = log.pmf.cumsum(axis=1)
        point = rng.random(len(log))[:, None] * cumulated[:, -1:]
        action = (point >= cumulated).sum(axis=1)
        keys = rng.integers(0, 2**32, len(log), dtype=np.uint32)
        return self._with(action, keys)

    def _with(self, action: np.ndarray, keys: np.ndarray) -> Replayed:
        log, rows = self.logged, np.arange(len(action))
        drawn = Logged(
            models=log.models,
            position=log.position,
            action=action,
            propensity=log.pmf[rows, action],
            pmf=log.pmf,
            eligible=log.eligible,
            score=self.scores[rows, action],
            cost_usd=self.costs_usd[rows, action],
            quality_value_usd=log.quality_value_usd,
            features=log.features,
            fold_key=keys,
            contexts=log.contexts,
        )
        return Replayed(drawn, self.scores, self.costs_usd)


class _Recording:
    """A policy that keeps what it is told."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self.name = policy, policy.name
        self.rows: list[Interaction] = []
        self.set_catalog, self.dump, self.load = policy.set_catalog, policy.dump, policy.load

    def evaluate(
        self, features: Features, eligible: Sequence[str], quality_value_usd: float
    ) -> Evaluation:
        return self._policy.evaluate(features, eligible, quality_value_usd)

    def learn(self, interaction: Interaction) -> None:
        self.rows.append(interaction)
        self._policy.learn(interaction)


def replayed(
    table: OutcomeTable,
    features: Sequence[Features],
    make: MakePolicy,
    *,
    quality_value_usd: float,
    seed: int,
    policy: str = "bandit",
) -> Replayed:
    """Replay a policy, cold, over the whole table and keep what it logged."""
    catalog = blurred_catalog(table, seed)
    recording = _Recording(make(policy, catalog, seed))
    player = Player(recording, catalog, quality_value_usd=quality_value_usd, seed=seed)
    order = query_order(len(table), seed)
    player.play(table, features, order.tolist())
    rows = recording.rows
    action = np.array([table.models.index(row.action) for row in rows], dtype=np.intp)
    n, scores, costs = np.arange(len(rows)), table.scores[order], table.costs_usd[order]
    pmf = np.array([row.pmf for row in rows])
    logged = Logged(
        models=table.models,
        position=n,
        action=action,
        propensity=np.array([row.propensity for row in rows]),
        pmf=pmf,
        eligible=np.ones(pmf.shape, dtype=bool),
        score=scores[n, action],
        cost_usd=costs[n, action],
        quality_value_usd=np.full(len(rows), quality_value_usd),
        features=np.array([row.features.dense for row in rows]),
        fold_key=fold_keys(row.event_id for row in rows),
        contexts=[row.features for row in rows],
    )
    return Replayed(logged, scores, costs)


@dataclass(frozen=True)
class ByFeature:
    """A target that looks at the query: of two models, one where a feature is above its median."""

    name: str
    models: tuple[str, str]
    feature: int
    median: float
    greed: float = 0.9

    def probabilities(self, log: Logged) -> np.ndarray:
        """See :class:`~bandit_router.ope.targets.Target`."""
        high = log.features[:, self.feature] > self.median
        result = np.zeros(log.pmf.shape)
        for model, mine in zip(self.models, (high, ~high), strict=True):
            result[:, log.models.index(model)] = np.where(mine, self.greed, 1.0 - self.greed)
        return result


def six_targets(table: OutcomeTable, features: Sequence[Features]) -> tuple[Target, ...]:
    """The cheapest model, the best, one by the query, two mixtures, and uniform."""
    by_price = [table.models[k] for k in np.argsort(table.costs_usd.mean(axis=0))]
    by_score = [table.models[k] for k in np.argsort(table.scores.mean(axis=0))]
    dense = np.array([f.dense for f in features])
    feature = int(np.argmax(dense.std(axis=0)))
    costs = table.costs_usd.mean(axis=0)
    shares = hull_mixture(table.scores, table.costs_usd, 0.75 * costs.min() + 0.25 * costs.max())
    mixture = tuple(
        (float(share), fixed(model, by_price))
        for share, model in zip(shares, table.models, strict=True)
        if share > 0.0
    )
    return (
        Preferred("cheapest", tuple(by_price)),
        Preferred("best", tuple(reversed(by_score))),
        ByFeature(
            "by feature", (by_score[-1], by_price[0]), feature, float(np.median(dense[:, feature]))
        ),
        Mixed("hull", mixture),
        Uniform(),
        Mixed(
            "mostly best", ((0.8, Preferred("best", tuple(reversed(by_score)))), (0.2, Uniform()))
        ),
    )


@dataclass(frozen=True)
class Accuracy:
    """Estimates of one target by one estimator over many runs, of the mean score.

    Attributes:
        truth: mean over the runs of what it would have got.
        errors: (runs,) estimate less truth.
        variance: mean over the runs of the estimator's variance over draws of the actions, given
            the fitted models, from every model's outcome. Far less noisy than the mean of the
            squared errors, which few runs with a rare action rule; it leaves out what little the
            models of different folds have in common. NaN for snips, which has no such formula.
        covered: share of the runs whose interval held the truth.
        covered_normal: likewise, of the normal interval.
        width: mean width of the interval.
    """

    target: str
    estimator: str
    truth: float
    errors: np.ndarray
    variance: float
    covered: float
    covered_normal: float
    width: float

    @property
    def mean_squared_error(self) -> float:
        """Over the runs."""
        return float(np.mean(self.errors**2))

    @property
    def bias(self) -> float:
        """Mean error."""
        return float(self.errors.mean())

    @property
    def bias_in_standard_errors(self) -> float:
        """Bias over its standard error, which ``variance`` gives, and for snips the runs do.

        The runs themselves understate it for ips and dr as long as none of them drew a rare action.
        """
        variance = self.variance if np.isfinite(self.variance) else self.errors.var(ddof=1)
        return self.bias / float(np.sqrt(variance / len(self.errors)))


def accuracy(
    runs: Iterator[Replayed],
    targets: Sequence[Target],
    *,
    estimators: tuple[str, ...] = ("ips", "snips", "dr"),
    outcome: Outcome = "score",
    folding: Folding = "crossed",
) -> list[Accuracy]:
    """Estimate every target in every run and hold it against what replay knows."""
    found: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for run in runs:
        for key, row in _one(run, targets, estimators, outcome, folding).items():
            found.setdefault(key, []).append(row)
    result = []
    for (target, estimator), rows in found.items():
        truth, value, variance, inside, normal, width = np.array(rows).T
        result.append(
            Accuracy(
                target=target,
                estimator=estimator,
                truth=float(truth.mean()),
                errors=value - truth,
                variance=float(variance.mean()),
                covered=float(inside.mean()),
                covered_normal=float(normal.mean()),
                width=float(width.mean()),
            )
        )
    return result


def _one(
    run: Replayed,
    targets: Sequence[Target],
    estimators: tuple[str, ...],
    outcome: Outcome,
    folding: Folding,
) -> Mapping[tuple[str, str], tuple[float, ...]]:
    log = run.logged
    question = Question(log.models, estimators, None, folding)
    fitted = survey(question, log.features.shape[1], [log]).finish()
    reward = run.scores - run.costs_usd / log.quality_value_usd[:, None]
    full = {"score": run.scores, "cost_usd": run.costs_usd, "reward": reward}[outcome]
    predictions = fitted.predictions(log)
    fits = {"ips": np.zeros(full.shape)}
    if predictions is not None:
        fits["dr"] = predictions[outcome]
    found = {}
    for target, sums in zip(targets, measure(fitted, targets, [log]), strict=True):
        probabilities = target.probabilities(log)
        truth = float((probabilities * full).sum(axis=1).mean())
        for name, estimator in sums.estimators[outcome].items():
            if name == "snips" and not estimator.moments.matched:
                continue  # it has no value; the others are 0, or the model's
            estimate = estimator.estimate()
            low, high = interval(estimator)
            below, above = estimate.normal_interval()
            found[target.name, name] = (
                truth,
                estimate.value,
                variance_given(fits[name], log, probabilities, full) if name in fits else np.nan,
                low <= truth <= high,
                below <= truth <= above,
                high - low,
            )
    return found


def variance_given(
    prediction: np.ndarray, log: Logged, target: np.ndarray, outcome: np.ndarray
) -> float:
    """Variance of a doubly robust mean over draws of the actions; with predictions of 0, of IPS.

    Args:
        prediction, target, outcome: (n, K), of every model.
    """
    residual = target * (outcome - prediction)
    squares = np.divide(residual**2, log.pmf, out=np.zeros_like(residual), where=residual != 0.0)
    return float((squares.sum(axis=1) - residual.sum(axis=1) ** 2).sum()) / len(log) ** 2


def features_of(table: OutcomeTable, featurizer: FeatureMaker) -> list[Features]:
    """What the policies see of each query of a table."""
    return table_features(table, featurizer)
