"""The default policy: the mixture's preference with an epsilon share of uniform."""

from __future__ import annotations

from collections.abc import Sequence

from bandit_router.errors import DecisionError, InputError
from bandit_router.models import Catalog
from bandit_router.policy.base import mix_uniform
from bandit_router.quality.mixture import Mixture
from bandit_router.types import Evaluation, Features, Interaction


class BanditPolicy:
    """Contextual bandit over models: p = (1 - eps) pi + eps / K, pi from posterior draws.

    Args:
        outcomes: what is learned of scores and costs.
        epsilon: share of uniform exploration, in [0, 1]. Every eligible action's propensity is at
            least ``epsilon / K``.

    Raises:
        InputError: ``epsilon`` is outside [0, 1].
    """

    name = "bandit"

    def __init__(self, outcomes: Mixture, *, epsilon: float = 0.01) -> None:
        if not 0.0 <= epsilon <= 1.0:
            raise InputError(f"epsilon {epsilon!r} must be in [0, 1]")
        self._outcomes, self._epsilon = outcomes, epsilon

    def evaluate(
        self, features: Features, eligible: Sequence[str], quality_value_usd: float
    ) -> Evaluation:
        """See :class:`~bandit_router.policy.base.Policy`."""
        if not eligible:
            raise DecisionError("no eligible model")
        belief = self._outcomes.evaluate(features, eligible, quality_value_usd)
        return Evaluation(
            pmf=mix_uniform(belief.preference, self._epsilon),
            epsilon=self._epsilon,
            score=belief.score,
            cost_usd=belief.cost_usd,
            utility=belief.score - belief.cost_usd / quality_value_usd,
        )

    def learn(self, interaction: Interaction) -> None:
        """See :class:`~bandit_router.policy.base.Policy`."""
        if interaction.learn:
            self._outcomes.learn(
                interaction.features, interaction.action, interaction.score, interaction.cost_usd
            )

    def set_catalog(self, catalog: Catalog) -> None:
        """See :class:`~bandit_router.policy.base.Policy`."""
        self._outcomes.set_catalog(catalog)

    def dump(self) -> bytes:
        """The outcome model's state; the policy itself keeps none."""
        return self._outcomes.dump()

    def load(self, state: bytes) -> None:
        """Inverse of :meth:`dump`. Raises SnapshotError."""
        self._outcomes.load(state)
