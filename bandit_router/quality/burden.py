"""What an answer costs its reader besides money: seconds of waiting and failed first attempts."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from bandit_router.errors import InputError, SnapshotError


class BurdenConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of waiting and of failed attempts.

    Attributes:
        usd_per_second: what a second of waiting costs the user, USD, >= 0.
        usd_per_escalation: what a failed attempt costs beyond its money and time, USD, >= 0.
        memory: interactions of a model after which old evidence has lost most of its weight.
    """

    usd_per_second: float = 0.0
    usd_per_escalation: float = 0.0
    memory: float = 200.0


class Burden:
    """Expected USD of waiting and of failed attempts per model, from running means.

    A model never seen has the mean of those that were: neither a reward nor a punishment for being
    new. The money that a rescue costs is not counted here: it is part of the cost.

    Raises:
        InputError: a price is negative or not finite, or memory is below 1.
    """

    def __init__(self, config: BurdenConfig | None = None) -> None:
        self._config = config or BurdenConfig()
        prices = (self._config.usd_per_second, self._config.usd_per_escalation)
        if not all(0.0 <= price < math.inf for price in prices) or not self._config.memory >= 1.0:
            raise InputError(f"prices {prices} must be finite and >= 0, memory at least 1")
        self._priced = any(price > 0.0 for price in prices)
        self._seconds: dict[str, tuple[int, float]] = {}
        self._failed: dict[str, tuple[int, float]] = {}

    def learn(self, model: str, latency_s: float | None, escalations: int) -> None:
        """Take one interaction: seconds until the final answer, number of failed attempts."""
        if not self._priced:
            return
        if latency_s is not None:
            self._take(self._seconds, model, latency_s)
        self._take(self._failed, model, float(escalations))

    def _take(self, means: dict[str, tuple[int, float]], model: str, value: float) -> None:
        seen, mean = means.get(model, (0, 0.0))
        step = 1.0 / min(seen + 1, self._config.memory)
        means[model] = (seen + 1, mean + step * (value - mean))

    def usd(self, models: Sequence[str]) -> np.ndarray | None:
        """Expected burden of each model, USD, shape (K,); None when nothing is priced."""
        if not self._priced:
            return None
        config = self._config
        waiting = config.usd_per_second * _expected(self._seconds, models)
        return waiting + config.usd_per_escalation * _expected(self._failed, models)

    def dump(self) -> bytes:
        """The whole state, deterministic."""
        return msgspec.msgpack.encode([self._seconds, self._failed], order="deterministic")

    def load(self, state: bytes) -> None:
        """Inverse of :meth:`dump`. Raises SnapshotError, and has changed nothing then."""
        means = dict[str, tuple[int, float]]
        try:
            seconds, failed = msgspec.msgpack.decode(state, type=tuple[means, means])
        except (msgspec.DecodeError, RecursionError) as error:
            raise SnapshotError(f"this is no state of a burden: {error}") from error
        for seen, mean in (*seconds.values(), *failed.values()):
            if seen < 1 or not math.isfinite(mean):
                raise SnapshotError("a burden's state holds a number that is out of range")
        self._seconds, self._failed = seconds, failed


def _expected(means: dict[str, tuple[int, float]], models: Sequence[str]) -> np.ndarray:
    usual = sum(mean for _, mean in means.values()) / len(means) if means else 0.0
    return np.array([means[model][1] if model in means else usual for model in models])
