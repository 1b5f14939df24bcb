"""Bounds on the best of several means, when which one is best is read off the same data.

The best single model is chosen by looking. A sequence made for one comparator does not cover the
one that happened to look best, so all K comparators get alpha / K each (Bonferroni over
comparators; over time each is already covered). Then, at every row at once,

    max_k lower_k <= max_k mean_k <= max_k upper_k        with probability >= 1 - alpha.

The union also holds when the best comparator changes over time, as it does under drift: what is
bounded is the best running mean so far, whoever has it. It costs little: K = 10 widens the bounds
by about a quarter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bandit_router.errors import InputError
from bandit_router.ope.sequences import Bounds, ContrastSequence, level


@dataclass(frozen=True)
class BestOf:
    """The best of K means.

    Attributes:
        bounds: of the largest of the K means; its ``estimate`` is the largest of the K estimates,
            which is biased upwards as every maximum of noisy numbers is.
        each: bounds of every mean; hold all at once.
        leader: index of the largest estimate.
        plausible: indices of the means that may be the largest, ascending; the truly best one is
            among them whenever the bounds hold.
    """

    bounds: Bounds
    each: tuple[Bounds, ...]
    leader: int
    plausible: tuple[int, ...]


def best_of(sequences: Sequence[ContrastSequence], alpha: float = 0.05) -> BestOf:
    """The largest of the sequences' running means, at level ``alpha`` for all of them together.

    For the regret against the best fixed model, give one sequence per model with the contrast
    "this model less the logging policy", all over the same rows.

    Raises:
        InputError: no sequence, or sequences of different numbers of rows.
    """
    if not sequences or len({sequence.rows for sequence in sequences}) > 1:
        raise InputError("the best of several needs sequences over the same rows, at least one")
    share = level(alpha) / len(sequences)
    return best_of_bounds([sequence.bounds(share) for sequence in sequences])


def best_of_bounds(each: Sequence[Bounds]) -> BestOf:
    """The same from bounds over the same rows, at least one, that hold all at once already."""
    lower = max(bounds.lower for bounds in each)
    leader = max(range(len(each)), key=lambda k: each[k].estimate)
    bounds = Bounds(
        each[leader].estimate, lower, max(bounds.upper for bounds in each), each[0].rows
    )
    plausible = tuple(k for k, own in enumerate(each) if own.upper >= lower)
    return BestOf(bounds, tuple(each), leader, plausible)
