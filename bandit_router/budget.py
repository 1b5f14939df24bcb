"""The budget pacer: holds the mean cost per query at a target by turning the quality value.

A router with quality value V picks models whose last USD buys at least 1 / V of score. Turning V is
therefore the cheapest way to spend a given mean: the mix stays on the best trade-off it knows. The
pacer is a proportional-integral controller on log V (Astrom & Murray, *Feedback Systems*, ch. 10):

    debt_{t+1} = debt_t + c_t / A - 1,    log V_t = a_t - pull * debt_t,
    a_{t+1} = a_t - drift * pull * debt_t

where debt counts queries' worth of the mean A aimed at. Holding the debt near 0, rather than the
recent rate near A, brings the cumulative mean back after any surprise, without a horizon, and is
blind to how heavy the tail of the costs is. The debt is bounded on both sides, so that neither a
long idle spell nor a price shock is remembered for ever.
"""

from __future__ import annotations

import math

import msgspec

from bandit_router.errors import InputError, SnapshotError


class PacerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Gains of :class:`BudgetPacer`, per observed query.

    Attributes:
        pull: effect on log V of one query's budget of debt.
        drift: share of that effect that moves the level for good.
        aim: mean cost aimed at, as a share of the target: the margin for what is in flight.
        max_credit, max_debt: bounds on the debt, in queries' budgets.
        span: V stays within [B, span * B].
    """

    pull: float = 0.02
    drift: float = 0.01
    aim: float = 0.99
    max_credit: float = 60.0
    max_debt: float = 400.0
    span: float = 1e4


class BudgetPacer:
    """The quality value in force, in USD per unit of score.

    Args:
        quality_value_usd: what one fully good answer is worth, > 0: constant without a target, the
            starting point with one.
        target_cost_usd: mean cost per query to hold, > 0, or None.

    Raises:
        InputError: a value is not finite and above 0.
    """

    def __init__(
        self,
        quality_value_usd: float,
        target_cost_usd: float | None = None,
        config: PacerConfig | None = None,
    ) -> None:
        for name, value in (
            ("quality_value_usd", quality_value_usd),
            ("target_cost_usd", 1.0 if target_cost_usd is None else target_cost_usd),
        ):
            if not (math.isfinite(value) and value > 0.0):
                raise InputError(f"{name} {value!r} must be finite and above 0")
        self._target, self._config = target_cost_usd, config or PacerConfig()
        self._given = quality_value_usd
        self._level, self._debt = math.log(quality_value_usd), 0.0

    @property
    def quality_value_usd(self) -> float:
        """V for the next decision, USD per unit of score, > 0."""
        if self._target is None:
            return self._given
        low, high = self._bounds(self._target)
        return math.exp(min(max(self._level - self._config.pull * self._debt, low), high))

    @property
    def target_cost_usd(self) -> float | None:
        """Mean cost per query to hold, USD, or None."""
        return self._target

    def observe(self, cost_usd: float) -> None:
        """Take what one query cost, USD, >= 0; called once per learned interaction."""
        if self._target is None:
            return
        config = self._config
        debt = self._debt + cost_usd / (config.aim * self._target) - 1.0
        self._debt = min(max(debt, -config.max_credit), config.max_debt)
        low, high = self._bounds(self._target)
        level = self._level - config.drift * config.pull * self._debt
        self._level = min(max(level, low), high)

    def _bounds(self, target: float) -> tuple[float, float]:
        low = math.log(target)
        return low, low + math.log(self._config.span)

    def dump(self) -> bytes:
        """The whole state."""
        return msgspec.msgpack.encode([self._level, self._debt])

    def load(self, state: bytes) -> None:
        """Inverse of :meth:`dump`. Raises SnapshotError."""
        try:
            level, debt = msgspec.msgpack.decode(state, type=tuple[float, float])
        except msgspec.DecodeError as error:
            raise SnapshotError(f"this is no pacer state: {error}") from error
        if not (math.isfinite(level) and math.isfinite(debt)):
            raise SnapshotError("a pacer state holds a number that is not finite")
        self._level, self._debt = level, debt
