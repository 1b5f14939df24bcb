"""The verdict of an experiment in one sentence, from intervals that hold whenever one looks."""

from __future__ import annotations

from typing import Literal

import msgspec

from bandit_router.ope.sequences import Bounds

ALPHA = 0.05
"""Chance that a verdict is ever wrong, however often one looks."""

DIFFERENCE_ALPHA = ALPHA / 2.0
"""The level of each interval that a verdict is read from. ``better`` and ``worse`` can err by one
two-sided interval, ``cheaper`` by one side of each of two others: together at most ``ALPHA``."""

Kind = Literal["better", "worse", "cheaper", "undecided", "blocked"]


class Verdict(msgspec.Struct, frozen=True):
    """What the experiment says.

    Attributes:
        kind: ``better`` or ``worse`` in reward, ``cheaper`` at equal quality within the margin,
            ``undecided``, or ``blocked``: units were not split as the flag said.
        sentence: the same for people.
    """

    kind: Kind
    sentence: str


def verdict(
    score: Bounds, cost_usd: Bounds, reward: Bounds, *, margin: float, mismatch: bool
) -> Verdict:
    """Judge bandit less static.

    Args:
        score, cost_usd, reward: at the level :data:`DIFFERENCE_ALPHA`, after any number of units.
        margin: scores that differ by no more than this count as equal.
        mismatch: whether the sample-ratio test says that the split is off.
    """
    if mismatch:
        return Verdict(
            "blocked",
            "Blocked: units are not split as the flag says, so the variants cannot be compared.",
        )
    if cost_usd.upper < 0.0 and -margin < score.lower <= 0.0:
        return Verdict(
            "cheaper",
            f"Cheaper at equal quality: the bandit costs at least ${-cost_usd.upper:.3g} a request "
            f"less than static, and its score is not worse by {margin:g} or more.",
        )
    if reward.lower > 0.0:
        return Verdict(
            "better",
            f"Better: the bandit's reward is above that of static by at least {reward.lower:.3g}.",
        )
    if reward.upper < 0.0:
        return Verdict(
            "worse",
            f"Worse: the bandit's reward is below that of static by at least {-reward.upper:.3g}.",
        )
    return Verdict(
        "undecided",
        f"Not decided yet: after {reward.rows:,} units the difference of the rewards may still be "
        "of either sign.",
    )
