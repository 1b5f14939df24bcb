"""What a regret tracker reads of a log: the drawn actions, what they were drawn from, the outcomes.

Unlike :class:`~bandit_router.ope.logged.Logged` it needs no features, and every row has an outcome.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bandit_router.errors import InputError
from bandit_router.types import Interaction

FORCED, NO_OUTCOME = "forced", "no outcome"


@dataclass(frozen=True)
class Choices:
    """n choices with their outcomes, in the order of the decisions.

    Attributes:
        actions: shape (n,), column of the chosen model.
        propensities: shape (n,), with which probability it was drawn.
        pmf: shape (n, K), what it was drawn from; 0 where a model was not eligible.
        scores: shape (n,), in [0, 1], of the chosen model.
        costs_usd: shape (n,), of the chosen model.
    """

    actions: np.ndarray
    propensities: np.ndarray
    pmf: np.ndarray
    scores: np.ndarray
    costs_usd: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)

    def part(self, start: int, stop: int) -> Choices:
        """Rows [start, stop)."""
        arrays = (self.actions, self.propensities, self.pmf, self.scores, self.costs_usd)
        return Choices(*(array[start:stop] for array in arrays))


def usable(interactions: Sequence[Interaction], left_out: Counter[str]) -> list[Interaction]:
    """Those that were drawn, may be learned and have both score and cost; counts the others."""
    kept = []
    for row in interactions:
        if row.slice == "forced" or not row.learn:
            left_out[FORCED] += 1
        elif row.score is None or row.cost_usd is None:
            left_out[NO_OUTCOME] += 1
        else:
            kept.append(row)
    return kept


def choices_of(interactions: Sequence[Interaction], models: Sequence[str]) -> Choices:
    """Usable interactions as arrays with the given columns.

    Raises:
        InputError: a model is none of ``models``, or a pmf does not fit the eligible ones.
    """
    columns = {model: column for column, model in enumerate(models)}
    pmf = np.zeros((len(interactions), len(columns)))
    actions = np.zeros(len(interactions), dtype=np.int64)
    for place, row in enumerate(interactions):
        unknown = [model for model in (*row.eligible, row.action) if model not in columns]
        if unknown:
            raise InputError(
                f"interaction {row.event_id!r:.80}: {unknown[0]!r:.80} is none of {tuple(models)}"
            )
        if len(row.pmf) != len(row.eligible):
            raise InputError(f"interaction {row.event_id!r:.80}: its pmf does not fit its models")
        pmf[place, [columns[model] for model in row.eligible]] = row.pmf
        actions[place] = columns[row.action]
    return Choices(
        actions,
        np.array([row.propensity for row in interactions], dtype=np.float64),
        pmf,
        np.array([row.score for row in interactions], dtype=np.float64),
        np.array([row.cost_usd for row in interactions], dtype=np.float64),
    )
