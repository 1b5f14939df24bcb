"""Who was exposed to which variant, read from the decisions of a store: they are the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import msgspec

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.assigning import FLAG_ERROR, FLAG_OFF
from bandit_router.events import Change
from bandit_router.ope.sample_ratio import SampleRatio
from bandit_router.rollout.variants import VARIANTS, is_pinned
from bandit_router.store_ops.units import known_shares
from bandit_router.types import Decision

_BATCH = 512


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """A unit's first decision in a variant.

    Attributes:
        ts: event time of that decision, seconds since the Unix epoch.
        first: whether it is the unit's first in any variant.
        shares: of each variant at that time, as the log has it; None where it is not known, or
            where the flag was not asked (switched off, in error).
    """

    unit_id: str
    variant: str
    event_id: str
    ts: float
    first: bool
    shares: dict[str, float] | None


class Exposed(msgspec.Struct, frozen=True, kw_only=True):
    """A store's exposures, counted.

    Attributes:
        units: exposed to each variant; a unit that was moved is counted in both.
        decisions: made in each variant.
        moved: units that were in a second variant later.
        split: the test of how units were split at their first exposure.
        not_tested: units whose shares at that time, or whose variant, are not known.
    """

    units: dict[str, int]
    decisions: dict[str, int]
    moved: int
    split: SampleRatio
    not_tested: int


def exposures(store: SqliteStore) -> Iterator[tuple[Decision, Exposure | None]]:
    """Every decision of a rollout in log order, with the exposure where it is a first one.

    Decisions from before the first ``flag_changed`` are of no rollout and left out, and so are
    those whose model was pinned. Where several routers write one log, one may have seen a change of
    the flag a moment before the log had it: for at most the time of one look at the flag file,
    shares may be those of a moment later.
    """
    seen: dict[str, set[str]] = {}
    begun, shares, after = False, None, 0
    while batch := store.read(after, _BATCH):
        for offset, event in batch:
            after = offset
            if isinstance(event, Change) and event.kind == "flag_changed":
                begun, shares = True, known_shares(event.data)
            elif isinstance(event, Decision) and begun and not is_pinned(event.rules):
                known = seen.setdefault(event.unit_id, set())
                if event.variant in known:
                    yield event, None
                    continue
                asked = not {FLAG_OFF, FLAG_ERROR}.intersection(event.rules)
                exposure = Exposure(
                    unit_id=event.unit_id,
                    variant=event.variant,
                    event_id=event.event_id,
                    ts=event.ts,
                    first=not known,
                    shares=shares if asked else None,
                )
                known.add(event.variant)
                yield event, exposure


def exposed(store: SqliteStore) -> Exposed:
    """Count a store's exposures, and test the split. Memory grows with the number of units.

    Raises:
        StorageError: the store cannot be read.
    """
    units, decisions = Counter[str](), Counter[str]()
    moved, not_tested, split = set[str](), 0, SampleRatio(VARIANTS)
    for decision, exposure in exposures(store):
        decisions[decision.variant] += 1
        if exposure is None:
            continue
        units[exposure.variant] += 1
        if not exposure.first:
            moved.add(exposure.unit_id)
        elif exposure.shares is None or exposure.variant not in VARIANTS:
            not_tested += 1
        else:
            split.update(exposure.variant, exposure.shares)
    return Exposed(
        units={variant: units[variant] for variant in VARIANTS},
        decisions={variant: decisions[variant] for variant in VARIANTS},
        moved=len(moved),
        split=split,
        not_tested=not_tested,
    )
