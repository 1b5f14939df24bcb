"""Confidence sequences for running means of off-policy values and of their differences.

What is estimated is written as a *contrast* d_t: signed masses over the actions of row t, fixed
before its action was drawn. With r_t(a) the reward that action a would have had (or its mean),

    v_t = sum_a d_t(a) r_t(a),        and the target after n rows is (v_1 + ... + v_n) / n.

========================================  ========================  ======================
wanted                                    contrast                  pmf
========================================  ========================  ======================
value of a target policy                  its pmf                   as logged
target less the logging policy            its pmf less the logged   as logged
one target less another                   the one's less the        as logged
                                          other's
treatment less control, row = unit        (-1, 1)                   (1 - share, share)
mean of what was observed                 (1,)                      (1,)
========================================  ========================  ======================

Method: the supermartingales of Mineiro (2022, "A lower confidence sequence for the changing mean of
non-negative right heavy-tailed observations with bounded mean"), one for each bet of a fixed grid,
over doubly robust pseudo-outcomes with capped controls (Waudby-Smith, Wu, Ramdas, Karampatziakis
and Mineiro, "Anytime-valid off-policy inference for contextual bandits"), averaged under a prior
over the bets (the method of mixtures: Robbins 1970; Howard, Ramdas, McAuliffe and Sekhon 2021), and
inverted by Ville's inequality. The lower bound is direct; the upper one is the lower bound of the
contrast's negative, which for a value is that of the mirrored reward. A difference is bounded as
one process: where target and logging policy agree its rows are exact zeros, which two sequences for
two values could not know.

What holds, exactly, at any sample size: P(the bounds hold after every row) >= 1 - alpha, if

* every pmf is the one the action was drawn from, given everything that happened before;
* rewards lie in the stated range;
* rows are pushed in an order that does not depend on what the draws themselves were: in the order
  of decisions. Feedback that comes late has to be waited for; rows left out because feedback never
  came are a selection that this theorem does not cover.

Nothing else: no independence, no constant mean, no bound on the weights. Prices, prompts and
models may drift, the logging policy may learn. Queries may be taken as given (then the target is
what the policy would have got on these very queries) or as drawn (then it is the running mean of
expected values): the same bounds hold for both. They are not intersected over time, since the
running mean moves. Without feedback on an action no bound narrows on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import msgspec
import numpy as np

from bandit_router.errors import InputError, SnapshotError
from bandit_router.ope import sequence_kernels as kernels
from bandit_router.ope.sequence_rows import Rows

_SPACING, _BELOW, _HIGHEST_BET, _PRIOR_WIDTH = 0.4, 3.6, 2.0, 0.6
_STATE = "bandit_router.contrast/1"


class SequenceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Range of the rewards, and where a sequence is to be tightest. Any setting is valid.

    Attributes:
        lower, upper: every reward lies in [lower, upper], known beforehand.
        horizon: rows after which the bounds are to be tightest. Elsewhere they are a little wider:
            by about an eighth at ten times the horizon.
        scale: expected standard deviation of one row's pseudo-outcome, in units of reward;
            :func:`design_scale` tells it from a few pmfs. A wrong guess acts as a horizon wrong by
            the square of the factor.
        alpha: the level the bets are chosen for; bounds can be asked for at any level.
    """

    lower: float = 0.0
    upper: float = 1.0
    horizon: float = 10_000.0
    scale: float = 0.4
    alpha: float = 0.05

    def __post_init__(self) -> None:
        numbers = (self.lower, self.upper, self.horizon, self.scale, self.alpha)
        if not (all(map(math.isfinite, numbers)) and self.lower < self.upper):
            raise InputError(f"a sequence needs finite settings and lower < upper, not {self}")
        if not (self.horizon >= 1.0 and self.scale > 0.0 and 0.0 < self.alpha < 1.0):
            raise InputError(f"horizon >= 1, scale > 0 and alpha in (0, 1) are needed, not {self}")

    def bets(self) -> tuple[np.ndarray, np.ndarray]:
        """Bets per unit of the scaled reward, shape (G,), descending, and logs of their prior.

        The bet that is best after ``horizon`` rows is on the grid, whose prior is a Cauchy density
        in the log of the bet around it, cut off at both ends.
        """
        span = self.upper - self.lower
        best = math.sqrt(2.0 * math.log(2.0 / self.alpha) + 2.0)
        best *= span / (self.scale * math.sqrt(self.horizon))
        above = max(0, math.floor(math.log(max(_HIGHEST_BET / best, 1.0)) / _SPACING))
        offsets = _SPACING * np.arange(above, -math.ceil(_BELOW / _SPACING) - 1, -1.0)
        prior = 1.0 / (1.0 + (offsets / _PRIOR_WIDTH) ** 2)
        return best * np.exp(offsets), np.log(prior / prior.sum())


@dataclass(frozen=True)
class Bounds:
    """A running mean with its bounds, in units of reward.

    Attributes:
        estimate: unbiased (given the logged pmfs), inside the possible range but not necessarily
            between the bounds.
        lower, upper: hold at the asked level, at every row at once. See :attr:`contradictory`.
        rows: how many rows are in.
    """

    estimate: float
    lower: float
    upper: float
    rows: int

    @property
    def width(self) -> float:
        """upper - lower."""
        return self.upper - self.lower

    @property
    def contradictory(self) -> bool:
        """Whether no value is left between the bounds.

        That has probability at most alpha: rather, a propensity or a range was not as stated.
        """
        return self.lower > self.upper


def design_scale(pmf: np.ndarray, contrast: np.ndarray, spread: float = 0.4) -> float:
    """Standard deviation of a pseudo-outcome as the design alone tells it: for the config's scale.

    Args:
        pmf, contrast: shape (n, K), n >= 1, of rows known before the sequence starts (a config's
            exploration share, or the decisions of a day before).
        spread: standard deviation of a reward about its control.
    """
    ratio = np.divide(contrast, pmf, out=np.zeros_like(contrast), where=contrast != 0.0)
    return max(spread * math.sqrt(float((pmf * ratio**2).sum(axis=1).mean())), 1e-6)


def level(alpha: float) -> float:
    """``alpha``, checked. Raises InputError outside (0, 1)."""
    if not 0.0 < alpha < 1.0:
        raise InputError(f"the level {alpha!r} must be in (0, 1)")
    return alpha


class ContrastSequence:
    """Bounds on the running mean of sum_a d(a) r(a) that hold at every row. See the module.

    O(G) arithmetic per row for a grid of some 20 to 40 bets, and O(G K) where a weight is so large
    that its control has to be capped.

    Args:
        actions: K, how many actions the rows' arrays have; :meth:`grow` adds to it.
        config: range and tuning.
    """

    def __init__(self, actions: int, config: SequenceConfig | None = None) -> None:
        if actions < 1:
            raise InputError(f"a sequence needs at least one action, not {actions}")
        self.config = config or SequenceConfig()
        self._bets, self._log_prior = self.config.bets()
        size = len(self._bets)
        self._log_wealth, self._drift = np.zeros((2, size)), np.zeros((2, size))
        self._sums = np.zeros(6)
        self._residual, self._weight = np.zeros(actions), np.zeros(actions)

    # -- taking rows ------------------------------------------------------------------------------

    def update(
        self,
        rewards: np.ndarray | Sequence[float],
        actions: np.ndarray | Sequence[int],
        pmf: np.ndarray,
        contrast: np.ndarray,
        predicted: np.ndarray | None = None,
        least: np.ndarray | None = None,
    ) -> None:
        """Take n rows, in the order of their decisions. Row by row or all at once: the same bits.

        Args:
            rewards: shape (n,), of the drawn actions.
            actions: shape (n,), index of the drawn action.
            pmf: shape (n, K) or (K,) for all rows: what each action was drawn from. 0 where an
                action was not eligible.
            contrast: shape (n, K) or (K,): d.
            predicted: shape (n, K): each action's reward as predicted before it was drawn (any
                number; the better, the narrower the bounds), or None. What the predictions are
                wrong by on average, action by action, is learned and added.
            least: shape (n, K) or (K,): the least reward that each action can have, where that is
                known to be above ``config.lower``: what it can cost at most, say. With large
                weights the bounds narrow by much when the cheap actions' range is known.

        Raises:
            InputError: a number is not finite or out of its range, a pmf does not sum to 1, or a
                contrast has mass on an action that could not be drawn. Nothing was taken then.
        """
        rows = Rows.checked(
            rewards,
            actions,
            pmf,
            contrast,
            predicted,
            least,
            size=len(self._weight),
            lower=self.config.lower,
            upper=self.config.upper,
        )
        self.take(rows)

    def take(self, rows: Rows) -> None:
        """:meth:`update` with rows that were checked for this range and number of actions."""
        kernels.push_many(
            rows.rewards, rows.actions, rows.pmf, rows.contrast, rows.base, rows.floor, self._bets,
            self._log_wealth, self._drift, self._sums, self._residual, self._weight,
        )  # fmt: skip

    def grow(self, actions: int) -> None:
        """Make room for actions that are new; those before keep their places.

        Raises:
            InputError: fewer actions than there are.
        """
        missing = actions - len(self._weight)
        if missing < 0:
            raise InputError(f"{len(self._weight)} actions cannot become {actions}")
        self._residual = np.concatenate([self._residual, np.zeros(missing)])
        self._weight = np.concatenate([self._weight, np.zeros(missing)])

    # -- what is known ----------------------------------------------------------------------------

    @property
    def actions(self) -> int:
        """K: how many actions the rows' arrays have."""
        return len(self._weight)

    @property
    def rows(self) -> int:
        """Rows taken."""
        return int(self._sums[kernels.ROWS])

    @property
    def estimate(self) -> float:
        """The mean pseudo-outcome, kept in the range of what is possible; 0 before any row."""
        if self.rows == 0:
            return 0.0
        least, most = self._sums[kernels.LEAST], self._sums[kernels.MOST]
        return self._in_reward(min(max(self._sums[kernels.TOTAL], least), most))

    @property
    def standard_error(self) -> float:
        """Of the mean pseudo-outcome, by the sample variance; infinite before two rows.

        For a fixed-time interval; nothing anytime-valid rests on it.
        """
        n = self._sums[kernels.ROWS]
        if n < 2.0:
            return math.inf
        mean = self._sums[kernels.TOTAL] / n
        variance = max(self._sums[kernels.SQUARES] / n - mean * mean, 0.0)
        return (self.config.upper - self.config.lower) * math.sqrt(variance / (n - 1.0))

    def bounds(self, alpha: float | None = None) -> Bounds:
        """Two-sided bounds at level ``alpha`` (the config's by default), half of it for each side.

        Before any row nothing is known: the bounds are infinite, the estimate 0.

        Raises:
            InputError: ``alpha`` is outside (0, 1).
        """
        half = 0.5 * level(self.config.alpha if alpha is None else alpha)
        return Bounds(self.estimate, self.lower_bound(half), self.upper_bound(half), self.rows)

    def lower_bound(self, alpha: float) -> float:
        """A one-sided lower bound at level ``alpha``, valid at every row. Raises InputError."""
        least, most = self._sums[kernels.LEAST], self._sums[kernels.MOST]
        found = max(self._least(0, level(alpha)), least)
        if self.rows == 0:
            return -math.inf
        return self._in_reward(min(found, most))

    def upper_bound(self, alpha: float) -> float:
        """A one-sided upper bound at level ``alpha``, valid at every row. Raises InputError."""
        least, most = self._sums[kernels.LEAST], self._sums[kernels.MOST]
        found = min(-self._least(1, level(alpha)), most)
        if self.rows == 0:
            return math.inf
        return self._in_reward(max(found, least))

    def log_evidence_above(self, value: float) -> float:
        """Log of an e-process against "the running mean is at most ``value`` after every row".

        While that is true, P(it ever exceeds log(1 / alpha)) <= alpha for every alpha.
        """
        return self._evidence(0, self._total(value))

    def log_evidence_below(self, value: float) -> float:
        """Log of an e-process against "the running mean is at least ``value`` after every row"."""
        return self._evidence(1, -self._total(value))

    # -- parts and states -------------------------------------------------------------------------

    def merge(self, other: Self) -> None:
        """Add the rows of another sequence with the same config.

        Valid for parts of one log and for logs side by side, in any number: the bets are fixed, so
        supermartingales of disjoint rows multiply, and the target becomes the mean over all rows.
        Where a policy learns from the rows of several parts, look at merged bounds only when all
        parts are in up to the same time: a part that lags behind is judged by draws whose
        consequences the others already show. Each part learned its own controls, so the bounds
        differ a little from those of one pass. They are not valid when a row is in both parts,
        which cannot be seen here.

        Raises:
            InputError: the configs differ.
        """
        if other.config != self.config:
            raise InputError("only sequences with the same config can be merged")
        self.grow(max(len(self._weight), len(other._weight)))
        size = len(other._weight)
        self._log_wealth += other._log_wealth
        self._drift += other._drift
        self._sums += other._sums
        self._residual[:size] += other._residual
        self._weight[:size] += other._weight

    def dump(self) -> bytes:
        """The whole state, deterministic."""
        state = [getattr(self, name).tolist() for name in _ARRAYS]
        return msgspec.msgpack.encode([_STATE, self.config, *state])

    @classmethod
    def load(cls, state: bytes) -> Self:
        """Inverse of :meth:`dump`.

        Raises:
            SnapshotError: this is no such state.
        """
        try:
            kind, config, *arrays = msgspec.msgpack.decode(state, type=_Form)
            if kind != _STATE:
                raise SnapshotError(f"this is a state of {kind!r}, not of {_STATE!r}")
            made = cls(len(arrays[-1]), config)
        except (msgspec.DecodeError, InputError) as error:
            raise SnapshotError(f"this is no state of a sequence: {error}") from error
        for name, values in zip(_ARRAYS, arrays, strict=True):
            array, before = np.array(values, dtype=np.float64), getattr(made, name)
            if array.shape != before.shape or not np.isfinite(array).all():
                raise SnapshotError(f"a sequence's state has a wrong {name[1:]}")
            setattr(made, name, array)
        if made._sums[kernels.ROWS] < 0.0 or (made._weight < 0.0).any():
            raise SnapshotError("a sequence's state has a negative count")
        return made

    # -- inside -----------------------------------------------------------------------------------

    def _side(self, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self._bets, self._log_prior, self._log_wealth[side], self._drift[side]

    def _least(self, side: int, alpha: float) -> float:
        return kernels.least_total(-math.log(alpha), *self._side(side))

    def _evidence(self, side: int, total: float) -> float:
        return kernels.log_evidence(total, *self._side(side))

    def _total(self, value: float) -> float:
        """A mean in units of reward as a sum of scaled rewards."""
        if not math.isfinite(value):
            raise InputError(f"the value {value!r} must be finite")
        known = self.config.lower * self._sums[kernels.MASS]
        return (value * self.rows - known) / (self.config.upper - self.config.lower)

    def _in_reward(self, total: float) -> float:
        """A sum of scaled rewards as a mean in units of reward; there is at least one row."""
        span = self.config.upper - self.config.lower
        return float((span * total + self.config.lower * self._sums[kernels.MASS]) / self.rows)


_ARRAYS = ("_log_wealth", "_drift", "_sums", "_residual", "_weight")
_Form = tuple[
    str, SequenceConfig, list[list[float]], list[list[float]], list[float], list[float], list[float]
]
