"""Regret of a running policy, from what it logs of itself: estimated at any time, with bounds.

For each single model k, the *regret per query* against it after n rows is

    rho_k = (1 / n) sum_t ( r_t(k) - sum_a h_t(a) r_t(a) ),

where r_t(a) = score - cost / quality value is the reward that model a would have had on query t and
h_t the pmf that was logged. It is what always asking k would have brought, less what our own pmf
brings on average over its draws; positive means that we lose. "best_fixed" is the largest rho_k.

Nobody sees r_t(a) for the models that were not asked. The exploration floor, eps / K for every
model, is what makes rho_k estimable all the same: each row is weighed by the logged probabilities,
in a :class:`~bandit_router.ope.sequences.ContrastSequence` with the contrast "k less the pmf".

What holds, exactly, at any sample size: the bounds on one comparator that was named beforehand hold
after every row at once with probability >= 1 - alpha. Those on the best of K models, which is
selected by looking, get alpha / K for each model (:mod:`~bandit_router.ope.selected`): for K = 3
that costs about an eighth of the width, for K = 10 about a quarter. Nothing is asymptotic, and
neither prompts, prices, models nor our policy need stand still. It rests on this:

* every pmf is the one that the action was drawn from, and rows come in the order of decisions;
* no answer of a model costs more than stated. A dearer one counts as one of that cost and is
  counted in ``left_out``: the bounds are then those of costs cut off there;
* every row has its outcome. Rows without one are left out and counted; should outcomes fail to come
  for reasons that have to do with how good they were, no bound knows it.

Bounds stay wide until exploration has met the comparator: with eps = .005 and three models, one row
in 600 says what a model that the policy avoids would have done.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import msgspec
import numpy as np

from bandit_router.errors import InputError, SnapshotError
from bandit_router.ope.logged import PMF_TOLERANCE
from bandit_router.ope.regret_rows import Choices, choices_of, usable
from bandit_router.ope.selected import best_of_bounds
from bandit_router.ope.sequence_rows import Rows
from bandit_router.ope.sequences import Bounds, ContrastSequence, SequenceConfig, level
from bandit_router.ope.windowed import WindowedSequence
from bandit_router.types import Interaction

OVER_LIMIT = "cost over its limit"
_STATE = "bandit_router.regret/1"


class RegretConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What regret is measured against, in which unit, and where the bounds are to be tightest.

    Attributes:
        models: the K comparators, and all that may ever be chosen.
        quality_value_usd: what one fully good answer is worth, USD, > 0: of the measured reward,
            whatever the rows were decided at.
        dearest_usd: per model, what one answer can cost at most, USD, known beforehand.
        strongest: the model that "strongest" stands for, or None to leave it out.
        alpha: level of the bounds.
        horizon: rows after which they are to be tightest; see
            :class:`~bandit_router.ope.sequences.SequenceConfig`.
        scale: expected standard deviation of one row's pseudo-outcome, in reward; the default suits
            floors of .002 to .05. A wrong guess widens the bounds a little, and harms nothing else.
        window: rows after which a recent window begins anew; 0 for none.

    Raises:
        InputError: a value is out of its range, or a model is unknown or named twice.
    """

    models: tuple[str, ...]
    quality_value_usd: float
    dearest_usd: tuple[float, ...]
    strongest: str | None = None
    alpha: float = 0.05
    horizon: float = 10_000.0
    scale: float = 1.5
    window: int = 0

    def __post_init__(self) -> None:
        if not self.models or len(set(self.models)) != len(self.models):
            raise InputError(f"regret needs at least one model, each once, not {self.models}")
        if len(self.dearest_usd) != len(self.models):
            raise InputError("regret needs one largest cost for every model")
        if self.strongest is not None and self.strongest not in self.models:
            raise InputError(f"the strongest model {self.strongest!r} is none of {self.models}")
        if not 0.0 < self.quality_value_usd < math.inf:
            raise InputError(f"quality value {self.quality_value_usd!r} must be finite and above 0")
        if not all(0.0 <= cost < math.inf for cost in self.dearest_usd):
            raise InputError(f"the largest costs {self.dearest_usd} must be finite, not negative")
        if self.window < 0:
            raise InputError(f"the window {self.window!r} must not be negative")
        self.sequence()

    def sequence(self) -> SequenceConfig:
        """Range and tuning of each comparator's sequence: as tight as may be for best_fixed."""
        return SequenceConfig(
            lower=-max(self.dearest_usd) / self.quality_value_usd,
            upper=1.0,
            horizon=self.horizon,
            scale=self.scale,
            alpha=level(self.alpha) / len(self.models),
        )


@dataclass(frozen=True)
class Regret:
    """Regret per query against one comparator.

    Attributes:
        comparator: the model, for "best_fixed" the one with the largest lower bound.
        per_query: estimate and bounds, in reward; positive means that we lose. The estimate is that
            of ``comparator``; for "best_fixed" it is kept between the bounds.
        since: first row that it covers, counted from 0.
    """

    comparator: str
    per_query: Bounds
    since: int = 0

    @property
    def cumulative(self) -> tuple[float, float, float]:
        """Estimate, lower and upper bound summed over the rows; the bounds hold likewise."""
        own = self.per_query
        if own.rows == 0:
            return 0.0, own.lower, own.upper
        return own.estimate * own.rows, own.lower * own.rows, own.upper * own.rows


class RegretTracker:
    """Takes logged rows in the order of their decisions; see the module.

    Time per row grows with K for each comparator. Rows taken one by one and all at once leave the
    same bits.

    Attributes:
        config: as given.
        left_out: rows not taken, and costs cut off, by reason.
    """

    def __init__(self, config: RegretConfig) -> None:
        self.config, self.left_out = config, Counter[str]()
        size, sequence = len(config.models), config.sequence()
        self._sequence = sequence
        self._columns = {model: k for k, model in enumerate(config.models)}
        self._least = np.array([-cost / config.quality_value_usd for cost in config.dearest_usd])
        self._rows = 0
        self._whole: list[ContrastSequence | None] = [
            ContrastSequence(size, sequence) for _ in config.models
        ]
        self._recent: list[WindowedSequence | None] = [
            WindowedSequence(size, config.window, sequence) for _ in config.models if config.window
        ]

    # -- taking rows ------------------------------------------------------------------------------

    def follow(self, interactions: Sequence[Interaction]) -> None:
        """Take joined interactions, in the order of their decisions.

        What was forced, is not to be learned or has no score or no cost is left out and counted.

        Raises:
            InputError: as :meth:`update`, or a model is none of the config's. Nothing was taken.
        """
        left_out = Counter[str]()
        self.update(choices_of(usable(interactions, left_out), self.config.models))
        self.left_out.update(left_out)

    def update(self, choices: Choices) -> None:
        """Take choices as arrays with the config's models as columns.

        Raises:
            InputError: a number is out of its range, a pmf does not sum to 1, or a propensity is
                not its entry of the pmf. Nothing was taken then.
        """
        scores, costs, given, actions = _numbers(choices)
        size = len(self._columns)
        columns = np.clip(actions.astype(np.int64), 0, size - 1)  # others are refused below
        dearest = np.array(self.config.dearest_usd)[columns]
        rewards = scores - np.minimum(costs, dearest) / self.config.quality_value_usd
        rows = Rows.checked(
            rewards, actions, choices.pmf, np.zeros(size), None, self._least,
            size=size, lower=self._sequence.lower, upper=self._sequence.upper,
        )  # fmt: skip
        entry = rows.pmf[np.arange(len(rows.actions)), rows.actions]
        off = ~(np.abs(entry - given) <= PMF_TOLERANCE * entry)
        _refuse(off, "propensity that is not the pmf's entry of its action")
        self._take(rows)
        over = int((costs > dearest).sum())
        if over:
            self.left_out[OVER_LIMIT] += over

    def _take(self, rows: Rows) -> None:
        for k in range(len(self._columns)):
            if not (rows.pmf[:, k] > 0.0).all():
                self._whole[k] = None
                self._recent[k : k + 1] = [None] if self._recent else []
            sequence = self._whole[k]
            if sequence is None:
                continue
            contrast = -rows.pmf
            contrast[:, k] += 1.0
            part = dataclasses.replace(rows, contrast=contrast)
            sequence.take(part)
            recent = self._recent[k] if self._recent else None
            if recent is not None:
                recent.take(part)
        self._rows += len(rows.rewards)

    def _column(self, model: str) -> int:
        try:
            return self._columns[model]
        except KeyError:
            raise InputError(f"{model!r:.80} is none of the models {self.config.models}") from None

    # -- what is known ----------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """Rows taken."""
        return self._rows

    @property
    def unsupported(self) -> tuple[str, ...]:
        """Models that some row gave no chance: nothing can be said of them from then on."""
        return tuple(m for m, own in zip(self.config.models, self._whole, strict=True) if not own)

    def against(self, model: str) -> Regret | None:
        """Against one model that was named beforehand; None without support.

        Raises:
            InputError: the model is none of the config's.
        """
        sequence = self._whole[self._column(model)]
        if sequence is None:
            return None
        return Regret(model, sequence.bounds(self.config.alpha))

    def strongest(self) -> Regret | None:
        """Against the config's strongest model; None without one or without support."""
        return None if self.config.strongest is None else self.against(self.config.strongest)

    def best_fixed(self) -> Regret | None:
        """Against the best single model, selected by looking; None when one lacks support.

        The bounds are on the largest of the K. The estimate is that of the model which is best by
        its lower bound: the largest of the K estimates would be that of whatever model the policy
        hardly ever asks, whose estimate is all noise.
        """
        share = self.config.alpha / len(self.config.models)
        return self._best([own and own.bounds(share) for own in self._whole], 0)

    def recent_best_fixed(self) -> Regret | None:
        """:meth:`best_fixed` over the last ``window`` to ``2 * window`` rows.

        Each window's bounds hold at all its rows with probability 1 - alpha, so of many windows a
        share of up to alpha is missed. None without a window, too.
        """
        if not self._recent:
            return None
        share = self.config.alpha / len(self.config.models)
        recent = [own and own.recent(share) for own in self._recent]
        since = max(own.start if own else 0 for own in recent)
        return self._best([own and own.bounds for own in recent], since)

    def _best(self, each: Sequence[Bounds | None], since: int) -> Regret | None:
        known = [own for own in each if own is not None]
        if len(known) < len(each):
            return None
        bounds = best_of_bounds(known).bounds
        leader = max(range(len(known)), key=lambda k: (known[k].lower, known[k].estimate))
        estimate = max(min(known[leader].estimate, bounds.upper), bounds.lower)
        kept = dataclasses.replace(bounds, estimate=estimate if bounds.rows else 0.0)
        return Regret(self.config.models[leader], kept, since)

    # -- states -----------------------------------------------------------------------------------

    def dump(self) -> bytes:
        """The whole state, deterministic."""
        parts = [[own and own.dump() for own in some] for some in (self._whole, self._recent)]
        left_out = sorted(self.left_out.items())
        return msgspec.msgpack.encode([_STATE, self.config, self._rows, left_out, *parts])

    @classmethod
    def load(cls, state: bytes) -> Self:
        """Inverse of :meth:`dump`. Raises SnapshotError."""
        try:
            kind, config, rows, left_out, whole, recent = msgspec.msgpack.decode(state, type=_Form)
        except (msgspec.DecodeError, InputError) as error:
            raise SnapshotError(f"this is no state of a regret tracker: {error}") from error
        made = cls(config)
        if kind != _STATE or rows < 0 or len(whole) != len(made._whole):
            raise SnapshotError("this is no state of a regret tracker")
        if len(recent) != len(made._recent):
            raise SnapshotError("a regret tracker's state has other windows than its config")
        made._whole = [None if own is None else ContrastSequence.load(own) for own in whole]
        made._recent = [None if own is None else WindowedSequence.load(own) for own in recent]
        for sequence in made._whole:
            if sequence is not None and (sequence.rows, sequence.config) != (
                rows,
                made._sequence,
            ):
                raise SnapshotError("the parts of a regret tracker's state do not fit together")
        made._rows, made.left_out = rows, Counter(dict(left_out))
        return made


_Form = tuple[str, RegretConfig, int, list[tuple[str, int]], list[bytes | None], list[bytes | None]]


def _numbers(choices: Choices) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores, costs, propensities and actions, of one length and in their ranges."""
    own = (choices.scores, choices.costs_usd, choices.propensities)
    scores, costs, given = (np.asarray(array, dtype=np.float64) for array in own)
    actions = np.asarray(choices.actions)
    shapes = [array.shape for array in (scores, costs, given, actions)]
    if len(set(shapes)) > 1 or scores.ndim != 1:
        raise InputError(f"scores, costs, propensities and actions of shapes {shapes}")
    if len(actions) and actions.dtype.kind not in "iu":
        raise InputError("actions must be whole numbers, the columns of the chosen models")
    _refuse(~((scores >= 0.0) & (scores <= 1.0)), "score outside [0, 1]")
    _refuse(~((costs >= 0.0) & (costs < np.inf)), "cost that is negative or not finite")
    return scores, costs, given, actions


def _refuse(wrong: np.ndarray, complaint: str) -> None:
    if wrong.any():
        raise InputError(f"row {int(np.argmax(wrong))}: {complaint}; nothing was taken")
