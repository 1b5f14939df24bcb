"""Guardrails: an e-process against "no harm beyond the margin", looked at after every row.

The null hypothesis is that the mean does not pass the limit: for a treatment's effect, "on average
over the rows so far, no worse than the incumbent by more than the margin". The evidence against it
is the one-sided mixture of :class:`~bandit_router.ope.sequences.ContrastSequence`, whose wealth
exceeds 1 / alpha with probability at most alpha while the null holds (Ville 1939), whenever and
however often one looks (Ramdas, Gruenwald, Vovk and Shafer, "Game-theoretic statistics and safe
anytime-valid inference", 2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Self

import msgspec
import numpy as np

from bandit_router.errors import InputError, SnapshotError
from bandit_router.ope.sequence_rows import Rows
from bandit_router.ope.sequences import ContrastSequence, SequenceConfig, level

_STATE = "bandit_router.harm/1"
_RESTARTS_KEPT = 2


class HarmConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What counts as harm.

    Attributes:
        harm_is: ``below`` when a mean under the limit is harm (a difference of quality), ``above``
            when one over it is (cost, share of errors or escalations).
        limit: in units of the mean. For "worse by more than 2 points" it is -0.02, and ``below``.
        alpha: chance of an alarm, ever, while there is no harm.
        restart_every: rows after which another process is started, so that harm that begins late
            is not diluted by a good past; None for a single process from the first row.
        rewards: range and tuning; the horizon is where the alarm is to come soonest.
    """

    harm_is: Literal["below", "above"]
    limit: float
    alpha: float = 0.005
    restart_every: int | None = None
    rewards: SequenceConfig = SequenceConfig(horizon=300.0, scale=0.9, alpha=0.02)

    def __post_init__(self) -> None:
        level(self.alpha)
        if not math.isfinite(self.limit):
            raise InputError(f"the limit {self.limit!r} must be finite")
        if self.restart_every is not None and self.restart_every < 1:
            raise InputError(f"restart_every {self.restart_every!r} must be at least one row")


class HarmMonitor:
    """Raises an alarm once, when the evidence of harm passes 1 / alpha; it stays raised.

    With restarts, process j (started after j * restart_every rows) holds the share
    1 / ((j + 1) (j + 2)) of the initial wealth, which waits until then; the sum is again an
    e-process, against the null that no stretch from a restart to any later row is harmful. The
    first process and the two newest are kept; the wealth of the others is given up, which only
    lowers the evidence. Without restarts the null is about the whole run alone. Not mergeable: when
    an alarm was due depends on the order of the rows.

    For an experiment push one row a unit, in the order of first exposure, with the pmf
    (1 - share, share) that was in force at that exposure: the share may change from row to row.

    Args:
        actions: see :class:`~bandit_router.ope.sequences.ContrastSequence`.
        config: what counts as harm.
    """

    def __init__(self, actions: int, config: HarmConfig) -> None:
        self.config = config
        self._rows, self._alarm = 0, -1
        self._live = [(0, ContrastSequence(actions, config.rewards))]

    def update(
        self,
        rewards: np.ndarray | Sequence[float],
        actions: np.ndarray | Sequence[int],
        pmf: np.ndarray,
        contrast: np.ndarray,
        predicted: np.ndarray | None = None,
        least: np.ndarray | None = None,
    ) -> bool:
        """Take rows, looking after each; whether the alarm is raised now.

        Raises:
            InputError: as :meth:`ContrastSequence.update`; nothing was taken then.
        """
        size, range_ = self._live[0][1].actions, self.config.rewards
        rows = Rows.checked(
            rewards,
            actions,
            pmf,
            contrast,
            predicted,
            least,
            size=size,
            lower=range_.lower,
            upper=range_.upper,
        )
        for t in range(len(rows.rewards)):
            self._take(rows.part(t, t + 1))
        return self.alarmed

    def _take(self, row: Rows) -> None:
        every = self.config.restart_every
        if every is not None and self._rows > 0 and self._rows % every == 0:
            fresh = ContrastSequence(self._live[0][1].actions, self.config.rewards)
            others = self._live[1:][1 - _RESTARTS_KEPT :]
            self._live = [self._live[0], *others, (self._rows // every, fresh)]
        for _, sequence in self._live:
            sequence.take(row)
        self._rows += 1
        if not self.alarmed and self.log_evidence >= -math.log(self.config.alpha):
            self._alarm = self._rows

    @property
    def rows(self) -> int:
        """Rows taken."""
        return self._rows

    @property
    def alarmed(self) -> bool:
        """Whether the evidence has ever passed 1 / alpha."""
        return self._alarm >= 0

    @property
    def alarm_row(self) -> int | None:
        """How many rows were in when the alarm was raised; None while it is not."""
        return self._alarm if self.alarmed else None

    @property
    def log_evidence(self) -> float:
        """Log of the e-process now; an alarm once it reaches log(1 / alpha)."""
        if self.config.restart_every is None:
            return self._own_evidence(self._live[0][1])
        started = self._live[-1][0] + 1
        terms = [-math.log(started + 1.0)]  # the shares of all processes yet to start
        terms += [
            self._own_evidence(sequence) - math.log((j + 1.0) * (j + 2.0))
            for j, sequence in self._live
        ]
        highest = max(terms)
        return highest + math.log(sum(math.exp(term - highest) for term in terms))

    def _own_evidence(self, sequence: ContrastSequence) -> float:
        if self.config.harm_is == "below":
            return sequence.log_evidence_below(self.config.limit)
        return sequence.log_evidence_above(self.config.limit)

    def dump(self) -> bytes:
        """The whole state, deterministic; a raised alarm survives."""
        live = [(j, sequence.dump()) for j, sequence in self._live]
        return msgspec.msgpack.encode([_STATE, self.config, self._rows, self._alarm, live])

    @classmethod
    def load(cls, state: bytes) -> Self:
        """Inverse of :meth:`dump`. Raises SnapshotError."""
        try:
            form = tuple[str, HarmConfig, int, int, list[tuple[int, bytes]]]
            kind, config, rows, alarm, live = msgspec.msgpack.decode(state, type=form)
        except (msgspec.DecodeError, InputError) as error:
            raise SnapshotError(f"this is no state of a harm monitor: {error}") from error
        sequences = [(j, ContrastSequence.load(part)) for j, part in live]
        if kind != _STATE or not sequences or not -1 <= alarm <= rows:
            raise SnapshotError("this is no state of a harm monitor")
        if any(sequence.config != config.rewards for _, sequence in sequences):
            raise SnapshotError("the parts of a harm monitor's state do not fit together")
        made = cls(sequences[0][1].actions, config)
        made._rows, made._alarm, made._live = rows, alarm, sequences
        return made
