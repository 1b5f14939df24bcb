"""How the buckets are split among the variants: contiguous ranges, in a fixed order.

A unit's bucket is a hash of the flag's name and the unit, so it never depends on the percentages.
A variant has a range of buckets; the ranges follow each other as :data:`VARIANTS` has them. With
the total kept, raising ``bandit`` moves its upper end only: buckets go from the incumbent to the
bandit, none goes back, and none enters or leaves the holdout at the other end.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from bandit_router.errors import InputError
from bandit_router.rollout.variants import VARIANTS

BUCKETS = 10_000
"""So that a share can be given to a hundredth of a percent."""


class Split(msgspec.Struct, frozen=True):
    """The number of buckets per variant, in the order of their ranges."""

    parts: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """All buckets."""
        return sum(buckets for _, buckets in self.parts)

    @property
    def percent(self) -> dict[str, float]:
        """The share of each variant, percent."""
        shares = dict.fromkeys(VARIANTS, 0.0)
        for variant, buckets in self.parts:
            shares[variant] = shares.get(variant, 0.0) + 100.0 * buckets / self.total
        return shares

    def of(self, bucket: int) -> str:
        """The variant of a bucket, 0 <= bucket < total."""
        end = 0
        for variant, buckets in self.parts:
            end += buckets
            if bucket < end:
                return variant
        raise InputError(f"bucket {bucket} is outside 0..{self.total - 1}")

    def moved(self, after: Split) -> dict[str, float]:
        """Which units ``after`` serves otherwise: percent of all by ``"FROM>TO"``."""
        total = self.total * after.total  # both are cut at multiples of 1 / total
        ours = {cut * after.total for cut in self._ends()}
        theirs = {cut * self.total for cut in after._ends()}
        cuts = sorted(ours | theirs)
        moved: Counter[str] = Counter()
        start = 0
        for end in cuts:
            was, is_now = self.of(start // after.total), after.of(start // self.total)
            if was != is_now and end > start:
                moved[f"{was}>{is_now}"] += end - start
            start = end
        return {pair: 100.0 * width / total for pair, width in moved.items()}

    def _ends(self) -> list[int]:
        ends, end = [], 0
        for _, buckets in self.parts:
            end += buckets
            ends.append(end)
        return ends


def split(bandit: float, *, shadow: float = 0.0, explore: float = 0.0) -> Split:
    """The split of these shares, percent; ``static`` has the rest.

    Raises:
        InputError: a share is no multiple of 0.01 in [0, 100], or together they exceed 100.
    """
    buckets = {
        "bandit": _buckets("bandit", bandit),
        "shadow": _buckets("shadow", shadow),
        "explore": _buckets("explore", explore),
    }
    taken = sum(buckets.values())
    if taken > BUCKETS:
        raise InputError(
            f"bandit {bandit:g} %, shadow {shadow:g} % and explore {explore:g} % exceed 100 %"
        )
    buckets["static"] = BUCKETS - taken
    return Split(tuple((variant, buckets[variant]) for variant in VARIANTS))


def split_of(targeting: Any) -> Split | None:
    """The split that a flag's targeting says, or None when it is anything else."""
    pairs = targeting.get("fractional") if isinstance(targeting, dict) else None
    if not isinstance(pairs, list) or len(targeting) != 1:
        return None
    parts = []
    for pair in pairs:
        if not (isinstance(pair, list) and 1 <= len(pair) <= 2 and isinstance(pair[0], str)):
            return None
        buckets = pair[1] if len(pair) == 2 else 1
        if type(buckets) is not int:
            return None
        parts.append((pair[0], max(0, buckets)))
    made = Split(tuple(parts))
    return made if made.total > 0 else None


def _buckets(what: str, percent: float) -> int:
    buckets = round(percent * BUCKETS / 100.0) if 0.0 <= percent <= 100.0 else -1
    if buckets < 0 or abs(buckets * 100.0 / BUCKETS - percent) > 1e-9:
        raise InputError(f"{what} {percent!r} % must be a multiple of 0.01 from 0 to 100")
    return buckets
