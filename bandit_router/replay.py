"""Replay of an outcome table through policies: one pass, test then learn, bandit feedback only.

Each query goes through the very objects that serve and learn live (router, joiner, learner, loop),
fed from memory. The law of this module: the only score and cost that are ever read for a query,
before everything is measured, are those of the model that the router chose.

All policies of one seed see the same queries in the same order, the same draws and the same
prices, so that runs can be compared in pairs.
"""

from __future__ import annotations

import dataclasses
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from bandit_router.adapters.tables import OutcomeTable
from bandit_router.budget import BudgetPacer
from bandit_router.errors import InputError
from bandit_router.events import Completion, Feedback, Outcome
from bandit_router.features.featurizer import Embedder
from bandit_router.joiner import Joiner, JoinRules
from bandit_router.learner import Learner
from bandit_router.loop import Loop
from bandit_router.models import Catalog, ModelSpec
from bandit_router.policy.base import Policy
from bandit_router.regret import fixed_hull
from bandit_router.router import Router
from bandit_router.types import Context, Decision, Features, Interaction

PRICE_NOISE = 0.3
"""Standard deviation of log(price known beforehand / mean cost in the log)."""

QUALITY_SHARES = (0.03, 0.3, 1.0)
"""Default quality values: at these, the best-scoring model's mean cost is that share of one."""

_SMALLEST_PRICE_USD = 1e-9
_START_ANSWERS = 100.0
"""A pacer starts from this many budgets as quality value: the middle, by the logarithm, of what
:class:`~bandit_router.budget.BudgetPacer` allows."""


class FeatureMaker(Protocol):
    """The part of the featurizer that a replay needs."""

    featurizer_id: str
    dimension: int

    def features_many(self, contexts: Sequence[Context]) -> list[Features]:
        """Features of many contexts, in their order."""
        ...


PolicyMaker = Callable[[str, Catalog, int, float | None], Policy]
"""Builds a policy from (name, catalog, seed, budget in USD per query or None)."""


@dataclass(frozen=True)
class Setting:
    """One run: a policy at a quality value (with a budget, the pacer starts from it), and a seed.

    Attributes:
        seed: of the query order, the draws, the price noise and the policy.
    """

    policy: str
    quality_value_usd: float
    budget_usd: float | None
    seed: int


@dataclass(frozen=True)
class Trace:
    """What one run chose, in order of arrival. All arrays have shape (n,).

    Attributes:
        queries: row of each query in the table.
        chosen: column of the model chosen.
        explored: whether the uniform share of the pmf drew it.
        propensities: with which probability it was drawn.
        quality_values_usd: in force at each decision.
        seconds: wall time of deciding and learning.
        pmf: shape (n, K), what each action was drawn from, by column; None where not known.
    """

    setting: Setting
    queries: np.ndarray
    chosen: np.ndarray
    explored: np.ndarray
    propensities: np.ndarray
    quality_values_usd: np.ndarray
    seconds: float
    pmf: np.ndarray | None = None


@dataclass(frozen=True)
class Plan:
    """Which runs a replay makes.

    Raises:
        InputError: a number is out of its range, or nothing would be run.
    """

    policies: tuple[str, ...]
    quality_values_usd: tuple[float, ...]
    budgets_usd: tuple[float, ...] = ()
    seeds: int = 1
    seed0: int = 0
    delay: int = 0

    def __post_init__(self) -> None:
        if not self.policies or not (self.quality_values_usd or self.budgets_usd):
            raise InputError("a replay needs a policy, and a quality value or a budget")
        for what, values in (
            ("quality value", self.quality_values_usd),
            ("budget", self.budgets_usd),
        ):
            for value in values:
                if not 0.0 < value < np.inf:
                    raise InputError(f"{what} {value!r} must be finite and above 0, in USD")
        if self.seeds < 1 or self.seed0 < 0 or self.delay < 0:
            raise InputError("a replay needs seeds >= 1, seed0 >= 0 and delay >= 0")

    def settings(self) -> Iterator[Setting]:
        """Every run, grouped by seed."""
        for seed in range(self.seed0, self.seed0 + self.seeds):
            for policy in dict.fromkeys(self.policies):
                for value in dict.fromkeys(self.quality_values_usd):
                    yield Setting(policy, value, None, seed)
                for budget in dict.fromkeys(self.budgets_usd):
                    yield Setting(policy, budget * _START_ANSWERS, budget, seed)


@dataclass(frozen=True)
class Labelled:
    """A log with every model's outcome, to warm-start from, and its queries' features."""

    table: OutcomeTable
    features: FeatureSets


FeatureSets = Callable[[str], Sequence[Features]]
"""Features of every row of a table, by the name of the policy that is to see them."""


class Player:
    """One policy with the live objects around it; plays tables one after the other.

    Args:
        policy: learns as it goes.
        catalog: the models, whose names are the tables' columns.
        quality_value_usd: USD, > 0; with a budget the pacer starts from it.
        budget_usd: target mean cost per query, USD, or None for a constant quality value.
        seed: salts the draws.
        delay: outcomes arrive when so many further queries have been decided.
        featurizer_id: stamped on the decisions.
    """

    def __init__(
        self,
        policy: Policy,
        catalog: Catalog,
        *,
        quality_value_usd: float,
        budget_usd: float | None = None,
        seed: int = 0,
        delay: int = 0,
        featurizer_id: str = "",
    ) -> None:
        self._policy = policy
        pacer = None if budget_usd is None else BudgetPacer(quality_value_usd, budget_usd)
        learner = Learner(policy, catalog, pacer)
        self._router = Router(
            policy,
            _GivenFeatures(featurizer_id),
            catalog,
            salt=f"replay/{seed}",
            quality_value_usd=lambda: pacer.quality_value_usd if pacer else quality_value_usd,
            state=learner,
        )
        rules = JoinRules(window_s=max(3600.0, 2.0 * delay), max_open=max(1000, 2 * delay))
        self._loop = Loop(Joiner(rules), learner, _NoSink())
        self._delay = delay
        self._played = 0

    def warm_start(
        self,
        table: OutcomeTable,
        features: Sequence[Features],
        order: Sequence[int],
        quality_value_usd: float,
    ) -> None:
        """Learn a full-information log: for each query one interaction per model.

        The interactions are those of a uniform logging policy (propensity 1/K) that was asked K
        times. They reach the policy alone: what was spent on labels is not charged to the budget.
        """
        models = table.models
        share = 1.0 / len(models)
        for place, row in enumerate(order):
            for column, model in enumerate(models):
                self._policy.learn(
                    Interaction(
                        event_id=f"warm-{place}-{column}",
                        ts=float(place),
                        closed_ts=float(place),
                        features=features[row],
                        eligible=models,
                        pmf=(share,) * len(models),
                        action=model,
                        propensity=share,
                        slice="explore",
                        quality_value_usd=quality_value_usd,
                        score=float(table.scores[row, column]),
                        cost_usd=float(table.costs_usd[row, column]),
                    )
                )

    def play(
        self,
        table: OutcomeTable,
        features: Sequence[Features],
        order: Sequence[int],
        tick: Callable[[int], None] | None = None,
    ) -> Steps:
        """Decide and learn the queries ``order`` (rows of the table), in that order.

        Args:
            features: of each row of the table.
            tick: called now and then with the number of queries done since.
        """
        steps, columns = Steps(table.models), {model: k for k, model in enumerate(table.models)}
        scores, costs = table.scores.tolist(), table.costs_usd.tolist()
        waiting: deque[tuple[Outcome, Outcome]] = deque()
        start = time.perf_counter()
        for place, row in enumerate(order):
            decision = self._decide(features[row])
            column = columns[decision.action]
            steps.add(decision, column)
            waiting.append(self._outcomes(decision, scores[row][column], costs[row][column]))
            if len(waiting) > self._delay:
                self._deliver(waiting.popleft())
            if tick is not None and (place & 127) == 127:
                tick(128)
        while waiting:
            self._deliver(waiting.popleft())
        if tick is not None:
            tick(len(order) & 127)
        steps.seconds = time.perf_counter() - start
        return steps

    def _decide(self, features: Features) -> Decision:
        context = Context(event_id=f"replay-{self._played}", ts=float(self._played))
        self._played += 1
        decision = self._router.decide(context, features=features)
        self._loop.feed(decision, self._played)
        return decision

    def _outcomes(
        self, decision: Decision, score: float, cost_usd: float
    ) -> tuple[Outcome, Outcome]:
        """The events by which the chosen model's outcome arrives, when its delay is over."""
        event_id, later = decision.event_id, decision.ts + self._delay
        return (
            Completion(event_id=event_id, ts=later, model=decision.action, cost_usd=cost_usd),
            Feedback(
                event_id=event_id,
                ts=later,
                metric="score",
                value=score,
                source="log",
                feedback_id="log",
            ),
        )

    def _deliver(self, outcomes: tuple[Outcome, Outcome]) -> None:
        for outcome in outcomes:
            self._loop.feed(outcome, self._played)


@dataclass
class Steps:
    """What a :class:`Player` decided, in order; see :class:`Trace`."""

    models: tuple[str, ...]
    chosen: list[int] = field(default_factory=list)
    explored: list[bool] = field(default_factory=list)
    propensities: list[float] = field(default_factory=list)
    quality_values_usd: list[float] = field(default_factory=list)
    pmf: array[float] = field(default_factory=lambda: array("d"))
    seconds: float = 0.0

    def add(self, decision: Decision, column: int) -> None:
        """Note one decision."""
        self.chosen.append(column)
        self.explored.append(decision.slice == "explore")
        self.propensities.append(decision.propensity)
        self.quality_values_usd.append(decision.quality_value_usd)
        if decision.eligible == self.models:
            self.pmf.extend(decision.pmf)
        else:
            shares = dict(zip(decision.eligible, decision.pmf, strict=True))
            self.pmf.extend(shares.get(model, 0.0) for model in self.models)

    def trace(self, setting: Setting, queries: np.ndarray) -> Trace:
        """The steps as arrays."""
        return Trace(
            setting,
            queries,
            np.array(self.chosen, dtype=np.int32),
            np.array(self.explored, dtype=bool),
            np.array(self.propensities),
            np.array(self.quality_values_usd),
            self.seconds,
            np.array(self.pmf).reshape(len(self.chosen), len(self.models)),
        )


class _NoSink:
    """Keeps nothing: a replay measures choices, and long logs would fill memory."""

    def put(self, *step: object) -> None:
        """Drop one step."""

    def commit(self) -> None:
        """Nothing was kept."""


class _GivenFeatures:
    """Stands where the featurizer stands live; in replay the features are always given."""

    def __init__(self, featurizer_id: str) -> None:
        self.featurizer_id = featurizer_id

    def features(self, context: Context) -> Features:
        raise InputError(f"query {context.event_id!r} came without features")


def replay(
    plan: Plan,
    table: OutcomeTable,
    features: FeatureSets,
    make_policy: PolicyMaker,
    *,
    prices: Catalog | None = None,
    warm: Labelled | None = None,
    featurizer_id: str = "",
    tick: Callable[[int], None] | None = None,
) -> Iterator[Trace]:
    """Run every setting of ``plan`` and yield its trace.

    Args:
        features: of each row of the table. All policies but foreign ones get the same.
        make_policy: builds a fresh policy for a run.
        prices: the catalog every policy knows; None blurs the log's mean costs, by the seed.
        warm: learned first, in an order given by the seed.
        tick: progress, in queries.

    Raises:
        InputError: ``prices`` and the table are not of the same models.
    """
    if prices is not None and prices.names != table.models:
        raise InputError("the price list and the log do not have the same models")
    for setting in plan.settings():
        catalog = prices or blurred_catalog(table, setting.seed)
        policy = make_policy(setting.policy, catalog, setting.seed, setting.budget_usd)
        player = Player(
            policy,
            catalog,
            quality_value_usd=setting.quality_value_usd,
            budget_usd=setting.budget_usd,
            seed=setting.seed,
            delay=plan.delay,
            featurizer_id=featurizer_id,
        )
        if warm is not None:
            order = query_order(len(warm.table), setting.seed).tolist()
            labelled = warm.features(setting.policy)
            player.warm_start(warm.table, labelled, order, setting.quality_value_usd)
        queries = query_order(len(table), setting.seed)
        steps = player.play(table, features(setting.policy), queries.tolist(), tick)
        yield steps.trace(setting, queries)


def query_order(n: int, seed: int) -> np.ndarray:
    """The order in which a seed's runs see n queries."""
    return np.random.default_rng(seed).permutation(n)


def blurred_catalog(table: OutcomeTable, seed: int) -> Catalog:
    """Each model with its mean cost in the log times seeded lognormal noise.

    That is about what a price list tells of costs: token prices without the answers' lengths.
    """
    rng = np.random.default_rng([seed, 0x9E3779B9])  # apart from the query order's stream
    noise = np.exp(PRICE_NOISE * rng.standard_normal(len(table.models)))
    costs = np.maximum(table.costs_usd.mean(axis=0) * noise, _SMALLEST_PRICE_USD)
    return Catalog(
        ModelSpec(model=model, expected_cost_usd=float(cost))
        for model, cost in zip(table.models, costs, strict=True)
    )


def default_quality_values(table: OutcomeTable) -> tuple[float, ...]:
    """Three quality values that suit the log: where its best-scoring model's mean cost is 3 %,
    30 % and all of what a fully good answer is worth, so that quality, then both, then cost rule.
    """
    scores, costs = table.scores.mean(axis=0), table.costs_usd.mean(axis=0)
    best = np.lexsort((costs, -scores))[0]
    cost = max(float(costs[best]), _SMALLEST_PRICE_USD)
    return tuple(float(f"{cost / share:.4g}") for share in QUALITY_SHARES)


def budget_quality_value(table: OutcomeTable, budget_usd: float) -> float:
    """The quality value at which spending ``budget_usd`` per query is right, in hindsight.

    It is the inverse slope of the fixed-arm hull there (of its last edge beyond the dearest
    vertex, of its first below the cheapest). Runs with a budget are measured at it, all alike; no
    policy is told. With a single vertex, which leaves no slope, it is 100 budgets.
    """
    hull = fixed_hull(table.scores, table.costs_usd)
    if len(hull.scores) < 2:
        return budget_usd * _START_ANSWERS
    edge = int(np.clip(np.searchsorted(hull.costs_usd, budget_usd), 1, len(hull.scores) - 1))
    run = hull.costs_usd[edge] - hull.costs_usd[edge - 1]
    return float(run / (hull.scores[edge] - hull.scores[edge - 1]))


def embedded(
    table: OutcomeTable, embedder: Embedder, tick: Callable[[int], None] | None = None
) -> OutcomeTable:
    """The table with embeddings: its own, or those of its prompts."""
    if table.embeddings is not None:
        return table
    chunks = []
    for start in range(0, len(table), 256):
        prompts = table.prompts[start : start + 256]
        chunks.append(embedder.embed_many(prompts))
        if tick is not None:
            tick(len(prompts))
    return dataclasses.replace(table, embeddings=np.concatenate(chunks))


def table_features(
    table: OutcomeTable, featurizer: FeatureMaker, context_columns: Sequence[str] = ()
) -> list[Features]:
    """Features of every query of the table, with the named context columns.

    Raises:
        InputError: the table has no embeddings, or they do not suit the featurizer.
    """
    if table.embeddings is None:
        raise InputError(f"{table.path}: no embeddings; make them first")
    return featurizer.features_many(
        [
            Context(
                event_id=table.query_ids[row],
                ts=0.0,
                prompt=table.prompts[row],
                columns=table.context(row, context_columns),
                embedding=table.embeddings[row],
            )
            for row in range(len(table))
        ]
    )


def without_queries(labelled: OutcomeTable, table: OutcomeTable) -> OutcomeTable:
    """``labelled`` less the queries that ``table`` also has (by id or by prompt): no leak.

    Raises:
        InputError: nothing is left.
    """
    ids, prompts = set(table.query_ids), set(table.prompts)
    rows = [
        row
        for row, (query_id, prompt) in enumerate(
            zip(labelled.query_ids, labelled.prompts, strict=True)
        )
        if query_id not in ids and prompt not in prompts
    ]
    if not rows:
        raise InputError(
            f"{labelled.path}: every query of the warm-start log is also in the log to replay: "
            "choose other --folds, or another file"
        )
    return labelled.take(rows)
