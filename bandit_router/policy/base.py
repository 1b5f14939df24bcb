"""The Policy protocol, the pmf's floor and the sampler: the one producer of propensities."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from bandit_router.errors import DecisionError, InputError
from bandit_router.models import Catalog
from bandit_router.types import Evaluation, Features, Interaction, Slice


@runtime_checkable
class Policy(Protocol):
    """What the loop needs of anything that chooses models and learns from what came back.

    A policy is a pure function of its construction arguments and the sequence of ``learn`` and
    ``set_catalog`` calls: no clock, no I/O, no global RNG. ``evaluate`` never changes what later
    calls return.
    """

    name: str

    def evaluate(
        self, features: Features, eligible: Sequence[str], quality_value_usd: float
    ) -> Evaluation:
        """pmf, predicted score, cost and utility for the eligible actions, in their order.

        Raises:
            DecisionError: ``eligible`` is empty.
            CatalogError: an eligible action is not in the catalog.
        """
        ...

    def learn(self, interaction: Interaction) -> None:
        """Update from one interaction. Never modifies it. Ignores ``learn=False`` rows.

        Raises:
            InputError: the interaction does not fit (features of another length); the policy is as
                it was.
        """
        ...

    def set_catalog(self, catalog: Catalog) -> None:
        """Take a changed catalog: models added, removed or repriced, from the next call on."""
        ...

    def dump(self) -> bytes:
        """The whole state as bytes, deterministic: equal state, equal bytes."""
        ...

    def load(self, state: bytes) -> None:
        """Replace the state by one that ``dump`` gave; what follows is bit-equal to never
        having stopped. Raises SnapshotError when the bytes do not fit this policy.
        """
        ...


def dense_of(features: Features, dimension: int) -> np.ndarray:
    """``features.dense``, shape (dimension,).

    Raises:
        InputError: it has another length: another featurizer made it than the policy was made for.
    """
    if features.dense.shape != (dimension,):
        raise InputError(
            f"features have shape {features.dense.shape}, this policy was made for ({dimension},)"
        )
    return features.dense


def mix_uniform(preference: np.ndarray, epsilon: float) -> np.ndarray:
    """(1 - eps) * preference + eps / K, renormalised: every entry is at least eps / K.

    Args:
        preference: shape (K,), K >= 1, non-negative, finite, sum above 0.
        epsilon: the share of the uniform distribution, in [0, 1].

    Raises:
        DecisionError: K is 0, or ``preference`` is negative, not finite or sums to 0.
    """
    values = preference.tolist()
    k, total = len(values), sum(values)
    if not 0.0 < total < math.inf or min(values) < 0.0:
        raise DecisionError(f"no usable preference over {k} eligible actions: {preference!r}")
    return preference * ((1.0 - epsilon) / total) + epsilon / k


def uniforms(salt: str, event_id: str) -> tuple[float, float]:
    """Two uniforms in [0, 1) derived from (salt, event_id) alone, so any draw can be recomputed."""
    digest = hashlib.blake2b(
        event_id.encode("utf-8", "surrogatepass"),
        digest_size=16,
        key=salt.encode("utf-8", "surrogatepass")[:64],
    ).digest()
    a, b = struct.unpack("<QQ", digest)
    return (a >> 11) * 2.0**-53, (b >> 11) * 2.0**-53


def sample(evaluation: Evaluation, salt: str, event_id: str) -> tuple[int, Slice]:
    """Draw an action's index from ``evaluation.pmf``, and say which slice drew it.

    The pmf is the mixture (1 - eps) pi + eps / K. The first uniform picks the part, the second the
    action inside that part, so the marginal law of the action is exactly the pmf.

    Returns:
        (index into the eligible actions, ``"explore"`` or ``"policy"``).
    """
    part, point = uniforms(salt, event_id)
    pmf, epsilon = evaluation.pmf.tolist(), evaluation.epsilon
    k = len(pmf)
    if part < epsilon:
        return min(int(point * k), k - 1), "explore"
    floor = epsilon / k
    left = point * (sum(pmf) - epsilon)
    last = 0
    for index, probability in enumerate(pmf):
        own = probability - floor
        if own > 0.0:
            last = index
            left -= own
            if left < 0.0:
                return index, "policy"
    return last, "policy"
