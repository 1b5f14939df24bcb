"""How decisions and outcomes are joined: the joiner's parameters, checked once."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from bandit_router.errors import ConfigError
from bandit_router.reward import Aggregation, Metric

DEFAULT_METRICS = {
    "score": Metric(kind="float", low=0.0, high=1.0),
    "accepted": Metric(kind="bool"),
    "thumbs": Metric(kind="thumbs"),
}


class JoinRules(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters of a :class:`~bandit_router.joiner.Joiner`. All times are event time.

    Attributes:
        window_s: attribution window. An outcome later than this after its decision is late.
        slack_s: how far out of order events may arrive without being missed.
        closing: ``first`` closes an interaction as soon as its answer and its score are there;
            ``window`` waits for the window's end and aggregates everything that came.
        aggregation: how several values of the score metric become one score.
        score_metric: the feedback metric that is the score; a key of ``metrics``.
        metrics: what the values of each metric mean; feedback of others is set aside.
        default_score: score of an interaction without feedback; None leaves it unknown.
        error_score: score of a request that got no answer at all; None leaves it unknown.
        require_completion: without a completion nobody knows which model served; True then closes
            with ``learn = False``, False trusts that the drawn one did.
        max_jump_s: an event further ahead of the stream than this moves the clock only when
            ``jump_witnesses`` decisions in a row say the same.
        max_open / max_early / max_closed: bounds on memory: open decisions, outcomes that wait for
            their decision, closed decisions remembered to tell duplicates.
        max_outcomes: outcomes kept per decision.

    Raises:
        ConfigError: a value is out of its range, or the score metric is unknown.
    """

    window_s: float = 3600.0
    slack_s: float = 60.0
    closing: Literal["first", "window"] = "first"
    aggregation: Aggregation = "last"
    score_metric: str = "score"
    metrics: dict[str, Metric] = msgspec.field(default_factory=DEFAULT_METRICS.copy)
    default_score: float | None = None
    error_score: float | None = 0.0
    require_completion: bool = True
    max_jump_s: float = 300.0
    jump_witnesses: int = 3
    max_open: int = 100_000
    max_early: int = 100_000
    max_closed: int = 30_000
    max_outcomes: int = 64

    def __post_init__(self) -> None:
        # Rules that are equal have equal bytes, whatever order a configuration file had.
        msgspec.structs.force_setattr(self, "metrics", dict(sorted(self.metrics.items())))
        for name in ("window_s", "slack_s", "max_jump_s", "default_score", "error_score"):
            if isinstance(getattr(self, name), int):
                msgspec.structs.force_setattr(self, name, float(getattr(self, name)))
        for name in ("window_s", "slack_s", "max_jump_s"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"{name} = {value!r}: must be finite and not negative")
        if self.window_s == 0.0:
            raise ConfigError("window_s = 0: no feedback could ever be attributed")
        if self.max_jump_s < self.slack_s:
            raise ConfigError(
                f"max_jump_s = {self.max_jump_s!r} is below slack_s = {self.slack_s!r}: events "
                "that are merely out of order would count as clock jumps"
            )
        for name in ("jump_witnesses", "max_open", "max_early", "max_closed", "max_outcomes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: must be at least 1")
        if self.score_metric not in self.metrics:
            known = ", ".join(sorted(self.metrics))
            raise ConfigError(f"score_metric {self.score_metric!r} is not among metrics: {known}")
        for name in ("default_score", "error_score"):
            score = getattr(self, name)
            if score is not None and not 0.0 <= score <= 1.0:
                raise ConfigError(f"{name} = {score!r}: must be in [0, 1] or absent")
