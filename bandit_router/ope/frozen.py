"""A policy as it stands, as a target: asked for every row, and told of none."""

from __future__ import annotations

import numpy as np

from bandit_router.errors import CatalogError, InputError
from bandit_router.ope.logged import Logged
from bandit_router.policy.base import Policy


class Frozen:
    """A policy that no longer learns.

    Had it gone on learning, what it would have learned of choices that were never made is not in
    the log, so no such value can be had from weights.

    Args:
        name: for people and JSON.
        policy: asked, never changed. It must not have learned from the rows it is evaluated on.
        quality_value_usd: that it is to decide at, USD; None for the one logged with each row.
    """

    def __init__(self, name: str, policy: Policy, quality_value_usd: float | None = None) -> None:
        self.name = name
        self._policy, self._value = policy, quality_value_usd

    def probabilities(self, log: Logged) -> np.ndarray:
        """See :class:`~bandit_router.ope.targets.Target`.

        Raises:
            InputError: the rows came without contexts, or do not suit the policy.
        """
        if log.contexts is None:
            raise InputError(f"{self.name}: the log was read without the features a policy needs")
        models = np.array(log.models, dtype=object)
        values = log.quality_value_usd.tolist()
        result = np.zeros(log.pmf.shape)
        for row, (context, mask) in enumerate(zip(log.contexts, log.eligible, strict=True)):
            value = values[row] if self._value is None else self._value
            try:
                pmf = self._policy.evaluate(context, tuple(models[mask]), value).pmf
            except CatalogError as error:
                raise InputError(
                    f"{self.name} cannot decide interaction {int(log.position[row])}: {error}"
                ) from error
            result[row, mask] = pmf / pmf.sum()
        return result
