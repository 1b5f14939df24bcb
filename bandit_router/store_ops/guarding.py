"""Guardrails: a rollout that takes itself back when an anytime-valid test shows harm.

Each rail is a :class:`~bandit_router.ope.harm.HarmMonitor`, fed with the rows of
:class:`~bandit_router.store_ops.units.Units`. The level is divided among the rails, so while none
of the limits is passed the chance of any rollback, ever, is at most ``alpha``. Quality is compared
by unit, bandit against static; cost, escalations and errors are those of every decision that the
bandit served.

An alarm switches the flag off, which every router follows within 2 s, and is noted in the flag file
and in the store. A file that cannot be written is tried again at every look. Until a person lifts
the rollback, or its cool-down is over, the flag is switched off again whoever switches it on. After
that the rails begin anew, and every unit counts again with its first decision since.

What the quality rail cannot see: harm to units that have all been exposed before. A unit is dealt
once, so only its first decision is a draw that the test may rest on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from bandit_router.adapters.flag_file import edit, read_bytes
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.adapters.sqlite_guardrails import GuardLog
from bandit_router.config import GuardrailsSection, Settings
from bandit_router.errors import ConfigError, SnapshotError, StorageError
from bandit_router.events import Change
from bandit_router.ope.harm import HarmConfig, HarmMonitor
from bandit_router.ope.sequences import SequenceConfig
from bandit_router.rollout.flag_document import flag_state, parse
from bandit_router.rollout.rollback import FOREVER, rollback_of, rolled_back, serves_bandit
from bandit_router.store_ops.units import UnitRow, Units, UnitState

Rail = Literal["quality", "cost", "escalations", "errors"]

KEEP_EVERY = 2000
"""Events between two states that are kept; after a crash those since the last are read again."""

RESTART_EVERY = 500
"""Rows after which a rail starts another process, for harm that begins late: a bad snapshot."""

_CAP = 10.0
"""A cost counts with at most so many times its limit, which makes an alarm no less true."""

_CONTRAST, _ONE = np.array([-1.0, 1.0]), np.array([1.0])


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """Why and when a rail gave way.

    Attributes:
        rollback_id: names the rollback in the flag file.
        ts: seconds since the Unix epoch.
        row: how many rows the rail had.
        offset: of the decision of the last of them.
        log_evidence: log of the e-process; the alarm is at log(1 / alpha).
        alpha: the rail's level.
        limit: the rail's limit.
        told: whether the log has been told.
    """

    rollback_id: str
    ts: float
    rail: Rail
    row: int
    offset: int
    log_evidence: float
    alpha: float
    limit: float
    told: bool = False

    @property
    def why(self) -> str:
        """In one sentence."""
        what = {
            "quality": f"the bandit's score is below that of static by more than {-self.limit:g}",
            "cost": f"the bandit's cost per query is above ${self.limit:g}",
            "escalations": f"more than {self.limit:g} of the bandit's requests escalate",
            "errors": f"more than {self.limit:g} of the bandit's requests get no answer",
        }[self.rail]
        return f"rolled back: {what} (shown after {self.row:,} rows, at level {self.alpha:g})"


class _State(msgspec.Struct, kw_only=True):
    units: UnitState
    since: int
    rails: dict[str, bytes]
    alarm: Alarm | None


class Guard:
    """Watches the rollout of one app. It belongs to the thread of its store.

    Args:
        store: what the app is learned in.
        flags, flag: the flag file, and the flag's name.
        emit: takes the change that tells of a rollback; it must be durable when it returns.

    Raises:
        StorageError: the store cannot be read.
        SnapshotError: what was kept in it is damaged.

    Attributes:
        alarm: the rollback in force, or None.
        problem: what could not be done and is tried again at the next look, "" for nothing.
    """

    def __init__(
        self,
        store: SqliteStore,
        section: GuardrailsSection,
        *,
        app: str,
        flags: Path,
        flag: str,
        emit: Callable[[Change], object],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._log = GuardLog(store)
        self._section, self._app = section, app
        self._flags, self._flag = flags, flag
        self._emit, self._clock = emit, clock
        self._configs = rails_of(section)
        self.problem = ""
        kept = self._log.kept()
        state = None if kept is None else _decoded(kept, store.path)
        self._units = Units(self._log, self._log.has_unit, state.units if state else None)
        self._kept_at = self._units.offset
        self._since = state.since if state else 0
        self.alarm: Alarm | None = state.alarm if state else None
        self._rails = self._made(state.rails if state else {})
        for config in self._configs.values():  # loads the kernels, so that no request waits for it
            HarmMonitor(1, config).update([0.0], [0], _ONE, _ONE)

    def look(self, until: int) -> None:
        """Take the rows that are final now, and do what follows.

        Args:
            until: offset of the last event that has been learned and committed.
        """
        try:
            for row in self._units.advance(until):
                self._take(row)
            self.problem = ""
            if self.alarm is not None:
                self._hold(self.alarm, until)
            if self._units.offset - self._kept_at >= max(KEEP_EVERY, 4 * self._units.waiting):
                self._keep()
        except (StorageError, ConfigError) as error:
            self.problem = f"guardrails: {error}; tried again at the next look"

    def status(self) -> dict[str, Any]:
        """The rails with the evidence against each, and the rollback in force."""
        return {
            "rails": {
                name: {"rows": rail.rows, "log_evidence": rail.log_evidence}
                for name, rail in self._rails.items()
            },
            "rolled_back": None if self.alarm is None else msgspec.to_builtins(self.alarm),
            "problem": self.problem,
        }

    def _take(self, row: UnitRow) -> None:
        if self.alarm is not None or row.offset <= self._since:
            return
        for name, rail in self._rails.items():
            if not _fed(name, rail, row):
                continue
            self.alarm = Alarm(
                rollback_id=f"{self._app.replace(' ', '_')}:{row.offset}",
                ts=self._clock(),
                rail=name,
                row=rail.rows,
                offset=row.offset,
                log_evidence=rail.log_evidence,
                alpha=rail.config.alpha,
                limit=rail.config.limit,
            )
            return

    def _hold(self, alarm: Alarm, until: int) -> None:
        """Keep the flag off while the rollback is in force; tell of it once."""
        try:
            lifted = self._switch_off(alarm)
        except (StorageError, ConfigError) as error:
            self.problem = f"the flag could not be switched off, tried again: {error}"
            lifted = False
        if not alarm.told:
            data = msgspec.to_builtins(alarm) | {"why": alarm.why, "problem": self.problem}
            del data["told"]
            self._emit(Change(ts=alarm.ts, app=self._app, kind="rollback", data=data))
            self.alarm = msgspec.structs.replace(alarm, told=True)
            self._keep()
        elif lifted:
            self.alarm, self._since, self._rails = None, until, self._made({})
            self._units.fresh.clear()
            self._keep(forget=True)

    def _switch_off(self, alarm: Alarm) -> bool:
        """Switch the flag off unless it is so; True where the rollback has been lifted instead."""
        end = FOREVER
        if self._section.cool_down_s is not None:
            end = alarm.ts + self._section.cool_down_s
        try:
            where = str(self._flags)
            document = parse(read_bytes(self._flags), where)
            noted = rollback_of(document, self._flag)
            serving = serves_bandit(flag_state(document, self._flag, where))
        except ConfigError:
            noted, serving = None, True  # a broken file: routers go on with what it said before
        if noted is not None and alarm.rollback_id in noted.lifted:
            return True
        if end != FOREVER and self._clock() >= end:
            return True
        if serving or noted is None or alarm.rollback_id not in noted.ids:
            edit(
                self._flags,
                self._flag,
                lambda old: rolled_back(old, self._flag, alarm.rollback_id, alarm.why, end),
                replace_broken=True,
            )
        return False

    def _keep(self, *, forget: bool = False) -> None:
        rails = {name: rail.dump() for name, rail in self._rails.items()}
        state = _State(units=self._units.state, since=self._since, rails=rails, alarm=self.alarm)
        self._log.keep(msgspec.msgpack.encode(state), self._units.fresh, forget=forget)
        self._units.fresh.clear()
        self._kept_at = self._units.offset

    def _made(self, states: dict[str, bytes]) -> dict[Rail, HarmMonitor]:
        """A monitor per rail: as it was kept, or anew where there is none or its limit is new."""
        made: dict[Rail, HarmMonitor] = {}
        for name, config in self._configs.items():
            known = HarmMonitor.load(states[name]) if name in states else None
            actions = 2 if name == "quality" else 1
            same = known is not None and known.config == config
            made[name] = known if same and known else HarmMonitor(actions, config)
        return made


def rails_of(section: GuardrailsSection) -> dict[Rail, HarmConfig]:
    """The configured rails, each with its part of the level."""
    wanted: dict[Rail, tuple[Literal["below", "above"], float | None, SequenceConfig]] = {
        "quality": (
            "below",
            None if section.quality_margin is None else -section.quality_margin,
            SequenceConfig(horizon=300.0, scale=0.9, alpha=0.02),
        ),
        "cost": (
            "above",
            section.cost_cap_usd,
            SequenceConfig(
                upper=_CAP * (section.cost_cap_usd or 1.0),
                horizon=300.0,
                scale=section.cost_cap_usd or 1.0,
                alpha=0.02,
            ),
        ),
        "escalations": ("above", section.escalation_limit, _rate()),
        "errors": ("above", section.error_limit, _rate()),
    }
    set_ = {
        name: (s, limit, range_) for name, (s, limit, range_) in wanted.items() if limit is not None
    }
    return {
        name: HarmConfig(
            harm_is=side,
            limit=limit,
            alpha=section.alpha / len(set_),
            restart_every=RESTART_EVERY,
            rewards=range_,
        )
        for name, (side, limit, range_) in set_.items()
    }


def open_guard(
    settings: Settings, store: SqliteStore, app: str, emit: Callable[[Change], object]
) -> Guard | None:
    """The guardrails of the settings over an app's store; None where none is set."""
    section, rollout = settings.guardrails, settings.rollout
    if rollout.flags is None or not rails_of(section):
        return None
    return Guard(store, section, app=app, flags=rollout.flags, flag=rollout.flag, emit=emit)


def _decoded(kept: bytes, path: Path) -> _State:
    """What was kept. A rollback must not be forgotten in silence, so damage is an error."""
    try:
        return msgspec.msgpack.decode(kept, type=_State)
    except msgspec.DecodeError as error:
        raise SnapshotError(
            f"{path}: the state of the guardrails is damaged: {error}. Look whether the rollout "
            "was rolled back, then empty the tables guardrails and exposed_units"
        ) from error


def _rate() -> SequenceConfig:
    return SequenceConfig(horizon=300.0, scale=0.3, alpha=0.02)


def _fed(name: Rail, rail: HarmMonitor, row: UnitRow) -> bool:
    """Feed a row to a rail where it has a value for it; whether the rail has given way."""
    closed = row.closed
    if closed is None:
        return False
    if name == "quality":
        if row.share is None or closed.score is None:
            return False
        pmf = np.array([1.0 - row.share, row.share])
        return rail.update([closed.score], [int(row.treated)], pmf, _CONTRAST)
    if not row.treated:
        return False
    value = {
        "cost": closed.cost_usd,
        "escalations": float(bool(closed.escalations)),
        "errors": float(row.error),
    }[name]
    if value is None:
        return False
    return rail.update([min(value, rail.config.rewards.upper)], [0], _ONE, _ONE)
