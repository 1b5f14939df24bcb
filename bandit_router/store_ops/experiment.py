"""The experiment that a rollout is: bandit against static by unit, from a store's log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.adapters.sqlite_units import UnitLog
from bandit_router.models import Catalog
from bandit_router.ope.sample_ratio import ALPHA as SPLIT_ALPHA
from bandit_router.ope.sequences import Bounds, ContrastSequence, SequenceConfig, design_scale
from bandit_router.rollout.verdict import ALPHA, DIFFERENCE_ALPHA, Verdict, verdict
from bandit_router.store_ops.exposures import exposed
from bandit_router.store_ops.units import UnitRow, Units

HORIZON = 2000.0
"""Units after which the intervals are to be tightest."""

COST_LIMIT_FACTOR = 10.0
"""A request counts with at most this many times the highest expected cost of the catalog: an
interval needs a range that was known beforehand."""

CONTRAST = np.array([-1.0, 1.0])
MEASURES = ("score", "cost_usd", "reward", "escalation_rate")
_SPREADS = {"score": 0.45, "cost_usd": 0.1, "reward": 0.45, "escalation_rate": 0.3}


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One measure, bandit less static.

    Attributes:
        bandit, static: plain means over the units of each; None without one.
        difference: estimate of the mean difference over the units so far.
        lower, upper: hold at every number of units with 95 %; None before the first.
        units: how many are in.
        missing: units that are left out for want of a value.
    """

    bandit: float | None
    static: float | None
    difference: float | None
    lower: float | None
    upper: float | None
    units: int
    missing: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What an experiment shows so far.

    Attributes:
        measures: by name, as :data:`MEASURES` has them.
        verdict: see :func:`~bandit_router.rollout.verdict.verdict`.
        units: units whose rows are final, of each variant.
        waiting: decisions behind them: open ones, and those that wait for one before them.
        capped_costs: units that cost more than the limit, and count with the limit.
        cost_limit_usd: the limit.
        split_p_value: anytime-valid p of "units are split as the flag says".
        assumes: what is assumed of units without a score; "" when there are none.
    """

    measures: dict[str, Difference]
    verdict: Verdict
    units: dict[str, int]
    waiting: int
    capped_costs: int
    cost_limit_usd: float
    split_p_value: float
    split_alpha: float
    assumes: str


class _Measure:
    """The sequence of one measure, with the plain means of both sides."""

    def __init__(self, config: SequenceConfig) -> None:
        self.sequence = ContrastSequence(2, config)
        self.missing = 0
        self._sums, self._counts = [0.0, 0.0], [0, 0]

    def take(self, value: float | None, treated: bool, share: float) -> None:  # noqa: FBT001
        if value is None:
            self.missing += 1
            return
        side = int(treated)
        self.sequence.update([value], [side], np.array([1.0 - share, share]), CONTRAST)
        self._sums[side] += value
        self._counts[side] += 1

    def difference(self) -> Difference:
        bounds = self.sequence.bounds(ALPHA)
        means = [s / n if n else None for s, n in zip(self._sums, self._counts, strict=True)]
        return Difference(
            bandit=means[1],
            static=means[0],
            difference=bounds.estimate if bounds.rows else None,
            lower=_finite(bounds.lower),
            upper=_finite(bounds.upper),
            units=bounds.rows,
            missing=self.missing,
        )


class Experiment:
    """Compares by unit. Feed it rows in the order in which :class:`Units` gives them.

    Args:
        quality_value_usd: V, USD; the reward is score - cost / V.
        cost_limit_usd: a higher cost counts as this.
    """

    def __init__(self, quality_value_usd: float, cost_limit_usd: float) -> None:
        self.units = {"bandit": 0, "static": 0}
        self.capped = 0
        self._value, self._limit = quality_value_usd, cost_limit_usd
        self._measures: dict[str, _Measure] = {}

    def take(self, row: UnitRow) -> None:
        """Take a final row; one that is no first exposure is passed over."""
        if row.share is None or row.closed is None:
            return
        if not self._measures:
            self._measures = self._made(row.share)
        for name, value in self._values(row).items():
            self._measures[name].take(value, row.treated, row.share)
        self.units["bandit" if row.treated else "static"] += 1

    def differences(self) -> dict[str, Difference]:
        """Every measure so far."""
        measures = self._measures or self._made(0.5)
        return {name: measure.difference() for name, measure in measures.items()}

    def bounds(self, name: str, alpha: float) -> Bounds:
        """The interval of one measure at a level of one's own."""
        return (self._measures or self._made(0.5))[name].sequence.bounds(alpha)

    def _made(self, share: float) -> dict[str, _Measure]:
        """Sequences tuned to the share of the first unit, which was known before it was dealt."""
        pmf = np.array([[1.0 - share, share]])
        cost = self._limit
        ranges = {"cost_usd": (0.0, cost), "reward": (-cost / self._value, 1.0)}
        made = {}
        for name in MEASURES:
            lower, upper = ranges.get(name, (0.0, 1.0))
            spread = _SPREADS[name] * (cost if name == "cost_usd" else 1.0)
            scale = design_scale(pmf, CONTRAST[None, :], spread)
            config = SequenceConfig(lower=lower, upper=upper, horizon=HORIZON, scale=scale)
            made[name] = _Measure(config)
        return made

    def _values(self, row: UnitRow) -> dict[str, float | None]:
        closed = row.closed
        assert closed is not None  # noqa: S101 - the caller has looked
        cost = closed.cost_usd
        if cost is not None and cost > self._limit:
            self.capped += 1
            cost = self._limit
        known = closed.score is not None and cost is not None
        return {
            "score": closed.score,
            "cost_usd": cost,
            "reward": closed.score - cost / self._value if known else None,  # type: ignore[operator]
            "escalation_rate": float(bool(closed.escalations)),
        }


def cost_limit(catalog: Catalog) -> float:
    """The cost that a request counts with at most, USD."""
    return COST_LIMIT_FACTOR * max(spec.prior_cost_usd() for spec in catalog)


def report(
    store: SqliteStore, *, quality_value_usd: float, cost_limit_usd: float, margin: float
) -> Report:
    """Compare the units of a store's log. Memory grows with the number of units.

    Args:
        quality_value_usd: V, USD.
        cost_limit_usd: as :func:`cost_limit` gives it, say.
        margin: scores that differ by no more than this count as equal.

    Raises:
        StorageError: the store cannot be read.
    """
    log = UnitLog(store)
    units = Units(log, lambda _: False)
    experiment = Experiment(quality_value_usd, cost_limit_usd)
    for row in units.advance(log.last_offset()):
        experiment.take(row)
    split = exposed(store).split
    score, cost, reward = (
        experiment.bounds(name, DIFFERENCE_ALPHA) for name in ("score", "cost_usd", "reward")
    )
    measures = experiment.differences()
    return Report(
        measures=measures,
        verdict=verdict(score, cost, reward, margin=margin, mismatch=split.mismatch()),
        units=experiment.units,
        waiting=units.waiting,
        capped_costs=experiment.capped,
        cost_limit_usd=cost_limit_usd,
        split_p_value=split.p_value,
        split_alpha=SPLIT_ALPHA,
        assumes=assumption(measures),
    )


def assumption(measures: Mapping[str, Difference]) -> str:
    """What is assumed of the units that have no score, in one sentence; "" without any."""
    missing, units = measures["score"].missing, measures["score"].units
    if not missing:
        return ""
    return (
        f"{missing:,} of {missing + units:,} units got no feedback and are left out of score and "
        "reward: their intervals assume that feedback is missing for the same reasons in both "
        "variants (joiner.default_score puts a score in its place)."
    )


def as_json(found: Report) -> dict[str, Any]:
    """The report as plain values."""
    return msgspec.to_builtins(found)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
