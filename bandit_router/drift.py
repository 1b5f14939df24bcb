"""Drift alarms: has a model become worse than what is believed of it, without a word?

Per model, an e-detector in the Shiryaev-Roberts form (Shin, Ramdas and Rinaldo, "E-detectors: a
nonparametric framework for sequential change detection", 2023): with d_t = expected score - score
in [-1, 1] of the t-th interaction the model served,

    M_t = sum over bets b of w_b M_t^b,     M_t^b = (1 + b (d_t - margin)) (M_{t-1}^b + 1)

and an alarm when M_t passes the threshold. While the expectation overstates the truth by at most
``margin`` on average, given the past, each factor has mean at most 1, so M_t - t is a
supermartingale and the mean number of interactions of a model until a false alarm is at least the
threshold. The theorem stops applying where the expectation is itself biased by more than the
margin, as it can be in the first interactions of a model: those are not watched.
"""

from __future__ import annotations

import math

import msgspec

from bandit_router.errors import InputError, SnapshotError


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """A model answers worse than expected.

    Attributes:
        model: which.
        interactions: of this model since it was first watched or last alarmed.
        shortfall: mean of expected less observed score over the recent ones, in units of score.
    """

    model: str
    interactions: int
    shortfall: float


class DriftConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of :class:`DriftMonitor`.

    Attributes:
        threshold: mean interactions of a model between false alarms, at least.
        margin: mean overstatement of the score that is not called a drift.
        warmup: interactions of a model before it is watched.
        recent: memory, in interactions, of the reported shortfall.
    """

    threshold: float = 20_000.0
    margin: float = 0.05
    warmup: int = 40
    recent: float = 40.0


_BETS = (0.1, 0.2, 0.4, 0.8)


class DriftMonitor:
    """Watches every model's scores against what was expected of them.

    Raises:
        InputError: a setting is out of range.
    """

    def __init__(self, config: DriftConfig | None = None) -> None:
        self._config = config or DriftConfig()
        if not (self._config.threshold > 1.0 and 0.0 <= self._config.margin < 0.25):
            raise InputError("threshold must be above 1 and margin in [0, 0.25)")
        self._seen: dict[str, int] = {}
        self._shortfall: dict[str, float] = {}
        self._detector: dict[str, list[float]] = {}

    def observe(self, model: str, expected: float, score: float) -> Alarm | None:
        """Take one interaction; the alarm it raises, if any. Both numbers in [0, 1]."""
        seen = self._seen.get(model, 0) + 1
        self._seen[model] = seen
        gap = expected - score
        before = self._shortfall.get(model, 0.0)
        self._shortfall[model] = before + (gap - before) / min(seen, self._config.recent)
        if seen <= self._config.warmup:
            return None
        detector = self._detector.setdefault(model, [0.0] * len(_BETS))
        excess = gap - self._config.margin
        for index, bet in enumerate(_BETS):
            detector[index] = (1.0 + bet * excess) * (detector[index] + 1.0)
        if sum(detector) < self._config.threshold * len(_BETS):
            return None
        alarm = Alarm(model=model, interactions=seen, shortfall=self._shortfall[model])
        self.forget(model)
        return alarm

    def forget(self, model: str) -> None:
        """Start over with one model."""
        for table in (self._seen, self._shortfall, self._detector):
            table.pop(model, None)

    def dump(self) -> bytes:
        """The whole state, deterministic."""
        return msgspec.msgpack.encode(
            [self._seen, self._shortfall, self._detector], order="deterministic"
        )

    def load(self, state: bytes) -> None:
        """Inverse of :meth:`dump`. Raises SnapshotError."""
        form = tuple[dict[str, int], dict[str, float], dict[str, list[float]]]
        try:
            seen, shortfall, detector = msgspec.msgpack.decode(state, type=form)
        except msgspec.DecodeError as error:
            raise SnapshotError(f"this is no drift monitor's state: {error}") from error
        numbers = [*shortfall.values(), *(value for row in detector.values() for value in row)]
        if not all(map(math.isfinite, numbers)):
            raise SnapshotError("a drift monitor's state holds a number that is not finite")
        if any(len(row) != len(_BETS) for row in detector.values()) or min([1, *seen.values()]) < 1:
            raise SnapshotError("a drift monitor's state has a wrong length or count")
        self._seen, self._shortfall, self._detector = seen, shortfall, detector
