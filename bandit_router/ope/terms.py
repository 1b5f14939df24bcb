"""What one batch of logged rows contributes, for one target and one outcome."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bandit_router.ope.logged import Logged


@dataclass(frozen=True)
class Terms:
    """Arrays of shape (n,), one entry per row.

    Attributes:
        weight: importance weight: the target's probability of the logged action over the logged
            one. Never clipped.
        outcome: what the logged action brought.
        predicted: what a model that never saw this row predicts for the logged action; zeros
            without a model.
        direct: the target's mean of those predictions; zeros without a model.
        weight_range: the least and the largest weight that any action of these rows could have had.
        outcome_range: the least and the largest value that an outcome can have.
        predicted_range: the least and the largest prediction for an action the target may take.
    """

    weight: np.ndarray
    outcome: np.ndarray
    predicted: np.ndarray
    direct: np.ndarray
    weight_range: tuple[float, float]
    outcome_range: tuple[float, float]
    predicted_range: tuple[float, float] = (0.0, 0.0)

    def __len__(self) -> int:
        return len(self.weight)


def terms(
    log: Logged,
    target: np.ndarray,
    outcome: np.ndarray,
    outcome_range: tuple[float, float],
    prediction: np.ndarray | None = None,
) -> Terms:
    """The terms of ``log`` for a target's probabilities (n, K) and a model's predictions (n, K)."""
    rows = np.arange(len(log))
    chosen = target[rows, log.action]
    supported = log.pmf > 0.0
    # A propensity so small that the quotient overflows cannot have drawn the row.
    ratio = np.divide(target, log.pmf, out=np.zeros_like(target), where=supported)
    low = np.min(ratio, where=supported, initial=np.inf)
    high = np.max(ratio, where=supported, initial=0.0)
    predicted = direct = np.zeros(len(log))
    between = (0.0, 0.0)
    if prediction is not None:
        predicted = prediction[rows, log.action]
        direct = (target * prediction).sum(axis=1)
        acts = target > 0.0
        between = (
            float(np.min(prediction, where=acts, initial=np.inf)),
            float(np.max(prediction, where=acts, initial=-np.inf)),
        )
    return Terms(
        weight=chosen / log.propensity,
        outcome=outcome,
        predicted=predicted,
        direct=direct,
        weight_range=(float(low), float(high)),
        outcome_range=outcome_range,
        predicted_range=between,
    )
