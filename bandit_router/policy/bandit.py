"""The default policy: the mixture's preference with an epsilon share of uniform."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from bandit_router.drift import Alarm, DriftMonitor
from bandit_router.errors import DecisionError, InputError, SnapshotError
from bandit_router.models import Catalog
from bandit_router.policy.base import mix_uniform
from bandit_router.quality.burden import Burden
from bandit_router.quality.mixture import Mixture
from bandit_router.types import Evaluation, Features, Interaction


class BanditPolicy:
    """Contextual bandit over models: p = (1 - eps) pi + eps / K, pi the outcomes' preference.

    Args:
        outcomes: what is learned of scores and costs.
        epsilon: largest share of uniform exploration, in [0, 1].
        exploration_cost: largest expected loss of utility by that share, per query, in units of
            score, > 0. Where a uniform choice would lose more, the share shrinks to keep to it:
            exploring must not eat a budget that a single call of the dearest model exceeds.
        drift: watches for models that get worse in silence. An alarm widens what is believed of
            that model, so that it is judged anew; None to watch nothing.
        burden: what waiting and failed attempts cost; its USD join the predicted cost's in the
            utility, not in ``Evaluation.cost_usd``.

    The share used is in every evaluation and logged with every decision: every eligible action's
    propensity is at least that share / K.

    Raises:
        InputError: ``epsilon`` is outside [0, 1] or ``exploration_cost`` is not above 0.
    """

    name = "bandit"

    def __init__(
        self,
        outcomes: Mixture,
        *,
        epsilon: float = 0.02,
        exploration_cost: float = 0.001,
        drift: DriftMonitor | None = None,
        burden: Burden | None = None,
    ) -> None:
        if not 0.0 <= epsilon <= 1.0:
            raise InputError(f"epsilon {epsilon!r} must be in [0, 1]")
        if not exploration_cost > 0.0:
            raise InputError(f"exploration_cost {exploration_cost!r} must be above 0")
        self._outcomes, self._epsilon = outcomes, epsilon
        self._exploration_cost = exploration_cost
        self._drift, self._burden = drift, burden or Burden()
        self._alarms: list[Alarm] = []

    def evaluate(
        self, features: Features, eligible: Sequence[str], quality_value_usd: float
    ) -> Evaluation:
        """See :class:`~bandit_router.policy.base.Policy`."""
        if not eligible:
            raise DecisionError("no eligible model")
        burden_usd = self._burden.usd(eligible)
        penalty = None if burden_usd is None else burden_usd / quality_value_usd
        belief = self._outcomes.evaluate(features, eligible, quality_value_usd, penalty)
        utility = belief.score - belief.cost_usd / quality_value_usd
        if penalty is not None:
            utility -= penalty
        values = utility.tolist()  # for a dozen numbers, Python is quicker than numpy's reductions
        loss = max(values) - sum(values) / len(values)
        epsilon = min(self._epsilon, self._exploration_cost / max(loss, 1e-12))
        return Evaluation(
            pmf=mix_uniform(belief.preference, epsilon),
            epsilon=epsilon,
            score=belief.score,
            cost_usd=belief.cost_usd,
            utility=utility,
        )

    def learn(self, interaction: Interaction) -> None:
        """See :class:`~bandit_router.policy.base.Policy`."""
        if not interaction.learn:
            return
        expected = self._outcomes.learn(
            interaction.features, interaction.action, interaction.score, interaction.cost_usd
        )
        self._burden.learn(interaction.action, interaction.latency_s, len(interaction.escalations))
        if self._drift is None or expected is None or interaction.score is None:
            return
        alarm = self._drift.observe(interaction.action, expected, interaction.score)
        if alarm is not None:
            self._outcomes.forget(alarm.model)
            self._alarms.append(alarm)

    def take_alarms(self) -> list[Alarm]:
        """Drift alarms raised since the last call; handing them over clears them."""
        alarms, self._alarms = self._alarms, []
        return alarms

    def set_catalog(self, catalog: Catalog) -> None:
        """See :class:`~bandit_router.policy.base.Policy`."""
        self._outcomes.set_catalog(catalog)

    def dump(self) -> bytes:
        """The state of the outcome model, the drift monitor and the burden."""
        drift = b"" if self._drift is None else self._drift.dump()
        return msgspec.msgpack.encode([self._outcomes.dump(), drift, self._burden.dump()])

    def load(self, state: bytes) -> None:
        """Inverse of :meth:`dump`. Raises SnapshotError, and has changed nothing then."""
        try:
            outcomes, drift, burden = msgspec.msgpack.decode(state, type=tuple[bytes, bytes, bytes])
        except msgspec.DecodeError as error:
            raise SnapshotError(f"this is no state of policy {self.name!r}: {error}") from error
        if bool(drift) != (self._drift is not None):
            raise SnapshotError("this state was made with another choice of drift monitor")
        before = (self._burden.dump(), b"" if self._drift is None else self._drift.dump())
        try:
            self._load_small(burden, drift)
            self._outcomes.load(outcomes)
        except SnapshotError:
            self._load_small(*before)
            raise
        self._alarms = []

    def _load_small(self, burden: bytes, drift: bytes) -> None:
        self._burden.load(burden)
        if self._drift is not None:
            self._drift.load(drift)
