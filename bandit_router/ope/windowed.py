"""Bounds on the recent past, by restarts: what a long running mean hides when the world drifts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import msgspec
import numpy as np

from bandit_router.errors import InputError, SnapshotError
from bandit_router.ope.sequence_rows import Rows
from bandit_router.ope.sequences import Bounds, ContrastSequence, SequenceConfig, level

_STATE = "bandit_router.windowed/1"


@dataclass(frozen=True)
class Recent:
    """Bounds on the mean over the rows [start, rows).

    Attributes:
        start: first row of the window, counted from 0 at the first row ever taken.
        restart: number of the sequence, 0 for the one that began with the first row.
        bounds: ``bounds.rows`` is the length of the window so far.
    """

    start: int
    restart: int
    bounds: Bounds


class WindowedSequence:
    """A sequence is started every ``window`` rows and ended after twice as many.

    So there are two at any time, and the older covers the last ``window`` to ``2 * window`` rows.

    What holds. For each restart taken alone, its bounds hold at all its rows with probability
    1 - alpha: of many windows a share of at most alpha is expected to be missed at some row. With
    ``simultaneous`` restart j gets alpha / ((j + 1) (j + 2)), which sums to alpha: then all bounds
    of all windows ever shown hold at once with probability 1 - alpha, and the bounds widen slowly
    with the logarithm of j. Naming a window because its bounds stand out needs the second.
    Not mergeable: the windows of two logs do not begin at the same rows.

    Args:
        actions: see :class:`~bandit_router.ope.sequences.ContrastSequence`.
        window: rows between restarts, >= 1.
        config: its horizon is replaced by the window's length.

    Raises:
        InputError: the window is below 1.
    """

    def __init__(self, actions: int, window: int, config: SequenceConfig | None = None) -> None:
        if window < 1:
            raise InputError(f"the window {window!r} must be at least one row")
        config = msgspec.structs.replace(config or SequenceConfig(), horizon=1.5 * window)
        self._window, self._rows, self._actions, self._config = window, 0, actions, config
        self._live = [ContrastSequence(actions, config)]

    @property
    def rows(self) -> int:
        """Rows ever taken."""
        return self._rows

    def update(
        self,
        rewards: np.ndarray | Sequence[float],
        actions: np.ndarray | Sequence[int],
        pmf: np.ndarray,
        contrast: np.ndarray,
        predicted: np.ndarray | None = None,
        least: np.ndarray | None = None,
    ) -> None:
        """See :meth:`ContrastSequence.update`; all rows are checked before any is taken."""
        low, high, size = self._config.lower, self._config.upper, self._actions
        rows = Rows.checked(
            rewards, actions, pmf, contrast, predicted, least, size=size, lower=low, upper=high
        )
        self.take(rows)

    def take(self, rows: Rows) -> None:
        """:meth:`update` with rows that were checked for this range and number of actions."""
        start, total, size = 0, len(rows.rewards), self._actions
        while start < total:
            if self._rows > 0 and self._rows % self._window == 0:
                self._live = [*self._live[-1:], ContrastSequence(size, self._config)]
            stop = min(total, start + self._window - self._rows % self._window)
            for sequence in self._live:
                sequence.take(rows.part(start, stop))
            self._rows += stop - start
            start = stop

    def grow(self, actions: int) -> None:
        """See :meth:`ContrastSequence.grow`."""
        for sequence in self._live:
            sequence.grow(actions)
        self._actions = actions

    def recent(self, alpha: float | None = None, *, simultaneous: bool = False) -> Recent:
        """Bounds of the older live sequence. Raises InputError for a level outside (0, 1)."""
        oldest = self._live[0]
        start = self._rows - oldest.rows
        restart = start // self._window
        share = level(self._config.alpha if alpha is None else alpha)
        if simultaneous:
            share /= (restart + 1) * (restart + 2)
        return Recent(start, restart, oldest.bounds(share))

    def dump(self) -> bytes:
        """The whole state, deterministic."""
        live = [sequence.dump() for sequence in self._live]
        return msgspec.msgpack.encode([_STATE, self._window, self._rows, live])

    @classmethod
    def load(cls, state: bytes) -> Self:
        """Inverse of :meth:`dump`. Raises SnapshotError."""
        try:
            form = tuple[str, int, int, list[bytes]]
            kind, window, rows, live = msgspec.msgpack.decode(state, type=form)
        except msgspec.DecodeError as error:
            raise SnapshotError(f"this is no state of a windowed sequence: {error}") from error
        sequences = [ContrastSequence.load(part) for part in live]
        if kind != _STATE or window < 1 or len(sequences) not in {1, 2}:
            raise SnapshotError("this is no state of a windowed sequence")
        oldest, newest = sequences[0], sequences[-1]
        if not oldest.rows <= rows or oldest.actions != newest.actions:
            raise SnapshotError("the parts of a windowed sequence's state do not fit together")
        made = cls(oldest.actions, window, oldest.config)
        made._rows, made._live = rows, sequences
        return made
