"""A router process under steady traffic: ``python -m bandit_router.bench.chaos.traffic PLAN.json``.

It decides at a constant rate and records a completion and a feedback for every decision, as a
service would that answers at once. What was acknowledged goes to a file (see ``acks``). It ends
when the file ``stop`` appears, or after a number of decisions.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from bandit_router.bench.chaos.acks import UNLOGGED, AckWriter
from bandit_router.bench.synthetic import EMBEDDING_SIZE
from bandit_router.config import load_settings
from bandit_router.errors import BanditRouterError
from bandit_router.events import Completion, Feedback
from bandit_router.events.ids import uuid7
from bandit_router.types import Context, Decision

if TYPE_CHECKING:
    from bandit_router.streaming.edge import Edge

UNITS = 1000


class TrafficPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one router process does.

    Attributes:
        config: the configuration file.
        acks: file for what was acknowledged.
        stop: the process closes its edge and ends when this file is there.
        seed: of ids, contexts and outcomes; two lives of one router have different ones.
        rate: decisions per second.
        limit: decisions after which it stops by itself; 0 for none.
        skew_s: how far the router's clock is off, seconds.
        drain_s: how long to wait at the end until Kafka has acknowledged everything, seconds.
    """

    config: str
    acks: str
    stop: str
    seed: int
    rate: float = 100.0
    limit: int = 0
    skew_s: float = 0.0
    drain_s: float = 5.0


class Traffic:
    """Contexts and outcomes, drawn from a seed. A dearer model answers better."""

    def __init__(self, seed: int, models: tuple[str, ...], skew_s: float = 0.0) -> None:
        self._rng = np.random.default_rng([seed, 0x7AFF])
        self._models = models
        self._skew_s = skew_s

    def now(self) -> float:
        """The router's clock, seconds since the epoch."""
        return time.time() + self._skew_s

    def context(self) -> Context:
        """The next query."""
        embedding = self._rng.standard_normal(EMBEDDING_SIZE)
        now = self.now()
        return Context(
            event_id=uuid7(now, self._rng.bytes(10)),
            ts=now,
            prompt="Which of these is right?",
            unit_id=f"unit-{self._rng.integers(UNITS)}",
            embedding=(embedding / np.linalg.norm(embedding)).astype(np.float32),
        )

    def completion(self, decision: Decision) -> Completion:
        """The drawn model answered."""
        place = self._models.index(decision.action)
        return Completion(
            event_id=decision.event_id,
            ts=self.now(),
            app=decision.app,
            model=decision.action,
            cost_usd=0.0005 * 4.0**place * float(self._rng.lognormal(0.0, 0.3)),
            latency_s=0.5,
        )

    def feedback(self, decision: Decision) -> Feedback:
        """Somebody judged the answer."""
        place = self._models.index(decision.action)
        return Feedback(
            event_id=decision.event_id,
            ts=self.now(),
            app=decision.app,
            metric="score",
            value=float(self._rng.random() < 0.4 + 0.15 * place),
            source="chaos",
            feedback_id="f",
        )


def run(plan: TrafficPlan) -> None:
    """Serve until told to stop. A refused event is not acknowledged, and the service goes on."""
    from bandit_router.streaming.edge import open_edge

    settings = load_settings(Path(plan.config))
    traffic = Traffic(plan.seed, settings.catalog.names, plan.skew_s)
    acks = AckWriter(Path(plan.acks))
    with open_edge(settings, embed=False) as edge:
        for _ in _paced(plan):
            _serve(edge, traffic, acks)


def _paced(plan: TrafficPlan) -> Iterator[None]:
    """Once per decision, at the plan's rate; of a stall at most a second is made up for."""
    stop, due, done = Path(plan.stop), time.monotonic(), 0
    while not stop.exists() and (plan.limit == 0 or done < plan.limit):
        yield
        done += 1
        due = max(due + 1.0 / plan.rate, time.monotonic() - 1.0)
        time.sleep(max(due - time.monotonic(), 0.0))


def _serve(edge: Edge, traffic: Traffic, acks: AckWriter) -> None:
    """One request: a decision, its completion, its feedback."""
    from bandit_router.streaming.edge import OUTBOX_UNAVAILABLE

    try:
        start = time.perf_counter()
        decision = edge.decide(traffic.context())
        took_s = time.perf_counter() - start
        if OUTBOX_UNAVAILABLE in decision.rules:
            acks.write(UNLOGGED, decision.event_id, took_s)
            return
        acks.write("d", decision.event_id, took_s)
        for kind, outcome in (
            ("c", traffic.completion(decision)),
            ("f", traffic.feedback(decision)),
        ):
            start = time.perf_counter()
            edge.record([outcome])
            acks.write(kind, decision.event_id, time.perf_counter() - start)
    except BanditRouterError as error:
        sys.stderr.write(f"not acknowledged: {error}\n")


def main() -> None:
    """Entry point."""
    run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=TrafficPlan))


if __name__ == "__main__":
    main()
