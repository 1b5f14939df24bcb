"""The learner: a pure function of one totally ordered training log.

Each row, a joined interaction or a change of the catalog, takes the next ``learn_seq``. Same rows,
same order: same bits, whether they are learned at once, after a restart, or years later by
``rebuild``. What would do harm is refused before it gets a number and before the policy sees it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from bandit_router.drift import Alarm
from bandit_router.errors import CatalogError, InputError, PolicyError, SnapshotError
from bandit_router.events import CATALOG_CHANGES, Change, Row
from bandit_router.models import Catalog, ModelSpec
from bandit_router.policy.base import Policy
from bandit_router.types import Interaction


class Pacer(Protocol):
    """The part of the budget pacer that learning touches."""

    def observe(self, cost_usd: float) -> None:
        """Take the cost of one learned interaction, USD."""
        ...

    def dump(self) -> bytes:
        """The whole state."""
        ...

    def load(self, state: bytes) -> None:
        """Go on from what ``dump`` gave."""
        ...


class LearnerState(msgspec.Struct, kw_only=True):
    """What :meth:`Learner.dump` writes."""

    learn_seq: int
    catalog: list[ModelSpec]
    policy: bytes
    pacer: bytes


FLOAT32_MAX = 3.4028234663852886e38

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(LearnerState)


class Learner:
    """Applies training rows to the policy and the budget pacer.

    Args:
        policy: learns from interactions whose ``learn`` is true.
        catalog: the models before the first row.
        pacer: observes their cost, where it is known; None without a budget.

    Attributes:
        policy, pacer: as given.
        catalog: the models now.
        learn_seq: number of the last row applied; 0 before the first.
        snapshot_id: the last snapshot taken of this learner or loaded into it, "" before the
            first; whoever takes or loads one sets it. It is no part of the state.
        refused: names (see :func:`row_name`) of rows that the policy is known to fail on: they are
            refused before it sees them. Whoever meets a PolicyError adds to it.
        changes: drift alarms that learning raised since the caller last emptied it. They are a
            function of the rows, as the state is, and no part of it.

    A policy that watches for drift has a method ``take_alarms`` (see
    :class:`~bandit_router.policy.bandit.BanditPolicy`); others need not have it.
    """

    def __init__(self, policy: Policy, catalog: Catalog, pacer: Pacer | None = None) -> None:
        self.policy = policy
        self.catalog = catalog
        self.learn_seq = 0
        self.snapshot_id = ""
        self.pacer = pacer
        self.refused: frozenset[str] = frozenset()
        self.changes: list[Change] = []
        self._take_alarms: Callable[[], Sequence[Alarm]] = getattr(policy, "take_alarms", tuple)

    def apply(self, row: Row) -> None:
        """Learn one row and advance ``learn_seq``.

        Raises:
            InputError: the row is refused (see :meth:`offer`); nothing has changed then.
        """
        reason = self.offer(row)
        if reason is not None:
            raise InputError(f"row {self.learn_seq + 1} cannot be learned: {reason}")

    def offer(self, row: Row) -> str | None:
        """Learn one row unless it must not be learned; returns why not, or None.

        ``poison``: a number is not finite or out of range, or the features do not fit the policy.
        ``unknown_action``: the model is not in the catalog (any more). ``bad_change``: the change
        does not fit the catalog. ``policy_error``: the policy is known to fail on it.

        Raises:
            PolicyError: the policy failed otherwise than by refusing; do not use it any more.
        """
        if self.refused and row_name(row) in self.refused:
            return "policy_error"
        try:
            reason = self._offer(row)
        except (MemoryError, OSError):
            raise  # the machine's fault, not the row's: it may go well next time
        except Exception as error:  # a fault in the policy must not stop the log at this row
            raise PolicyError(
                f"the policy failed on {row_name(row)!r:.80}: {type(error).__name__}: {error}",
                row=row_name(row),
            ) from error
        if reason is None:
            self.learn_seq += 1
        return reason

    def _offer(self, row: Row) -> str | None:
        if type(row) is Interaction:
            if not _is_sound(row):
                return "poison"
            if row.action not in self.catalog:
                return "unknown_action"
            if row.learn:
                try:
                    self.policy.learn(row)
                except InputError:
                    return "poison"
                if self.pacer is not None and row.cost_usd is not None:
                    self.pacer.observe(row.cost_usd)
                self.changes += [self._alarmed(alarm, row) for alarm in self._take_alarms()]
        else:
            try:
                catalog = self._changed(row)
            except InputError:
                return "bad_change"
            self.policy.set_catalog(catalog)
            self.catalog = catalog
        return None

    def dump(self) -> bytes:
        """The whole state, deterministic: the same rows, the same bytes."""
        return _encoder.encode(
            LearnerState(
                learn_seq=self.learn_seq,
                catalog=list(self.catalog),
                policy=self.policy.dump(),
                pacer=b"" if self.pacer is None else self.pacer.dump(),
            )
        )

    def load(self, state: bytes) -> None:
        """Go on from what :meth:`dump` gave; what follows is as if nothing had happened.

        Raises:
            SnapshotError: the bytes are no learner's state, or do not fit this policy; the learner
                is as it was.
        """
        try:
            loaded = _decoder.decode(state)
            catalog = Catalog(loaded.catalog)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, CatalogError) as error:
            raise SnapshotError(f"not a learner's state: {error}") from error
        if bool(loaded.pacer) != (self.pacer is not None):
            raise SnapshotError("one of the stored and the configured learner has a budget pacer")
        policy, pacer = self.policy.dump(), b"" if self.pacer is None else self.pacer.dump()
        try:
            self._load_parts(catalog, loaded.policy, loaded.pacer)
        except SnapshotError:
            self._load_parts(self.catalog, policy, pacer)
            raise
        self.catalog = catalog
        self.learn_seq = loaded.learn_seq
        self.changes = []

    def _load_parts(self, catalog: Catalog, policy: bytes, pacer: bytes) -> None:
        self.policy.set_catalog(catalog)
        self.policy.load(policy)
        if self.pacer is not None:
            self.pacer.load(pacer)

    def _alarmed(self, alarm: Alarm, row: Interaction) -> Change:
        """The event of an alarm that ``row``, about to be counted, has raised."""
        return Change(
            ts=row.closed_ts,
            app=row.app,
            kind="drift_alarm",
            data={
                "model": alarm.model,
                "interactions": alarm.interactions,
                "shortfall": alarm.shortfall,
                "learn_seq": self.learn_seq + 1,
                "event_id": row.event_id,
            },
        )

    def _changed(self, change: Change) -> Catalog:
        """The catalog after ``change``. Raises InputError when the change makes no sense."""
        if change.kind not in CATALOG_CHANGES:
            raise InputError(f"a change of kind {change.kind!r} has no place in a training log")
        if change.kind == "model_removed":
            model = change.data.get("model")
            if not isinstance(model, str):
                raise InputError("model_removed needs data.model")
            catalog = self.catalog.without(model)
            if not len(catalog):
                raise CatalogError(f"{model!r} is the last model; without it nothing can serve")
            return catalog
        try:
            spec = msgspec.convert(change.data, ModelSpec)
        except msgspec.ValidationError as error:
            raise CatalogError(f"{change.kind}: {error}") from error
        known = spec.model in self.catalog
        if known is (change.kind == "model_added"):
            raise CatalogError(
                f"{change.kind}: {spec.model!r} is {'already' if known else 'not'} in the catalog"
            )
        return self.catalog.with_model(spec)


def row_name(row: Row) -> str:
    """What a row is called where it is refused: its event_id, or kind, time and model."""
    if type(row) is Interaction:
        return row.event_id
    return f"{row.kind} {row.ts!r} {row.data.get('model')!r:.300}"


def _is_sound(row: Interaction) -> bool:
    """Whether every number that a policy may use is finite and in its range."""
    score, cost_usd = row.score, row.cost_usd
    return (
        (score is None or 0.0 <= score <= 1.0)
        and (cost_usd is None or 0.0 <= cost_usd < math.inf)
        and 0.0 < row.propensity <= 1.0
        and 0.0 < row.quality_value_usd < math.inf
        and row.action in row.eligible
        and _are_sound(row.features.dense.tolist())
    )


def _are_sound(dense: list[float]) -> bool:
    """Whether all are finite float32 numbers. On a few dozen, Python is faster than numpy."""
    if not dense:
        return True
    within = min(dense) >= -FLOAT32_MAX and max(dense) <= FLOAT32_MAX
    return within and math.isfinite(sum(dense))  # min and max may miss a NaN, the sum does not
