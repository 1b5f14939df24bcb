"""`bench streaming`: what the way of events through Kafka and of snapshots back costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bandit_router.bench.chaos.rig import Rig
from bandit_router.bench.figures import Figure
from bandit_router.progress import progress

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = "bandit_router.bench.streaming/1"
LEGEND = (
    "Medians, and the smallest and largest of the repeats. What is compared ran in turn, on the "
    "same broker, with the same records and kafka-python settings. Everything shares this machine: "
    "broker, router and learner."
)
DEFAULTS = {"snapshot_every": 500, "publish_every_s": 2.0}


@dataclass(frozen=True)
class StreamingPlan:
    """How much is run.

    Attributes:
        events: relayed per round.
        interactions: learned per round.
        relearned: after a restart.
        puts: timed per round.
        rounds: of each.
        seconds: of traffic for the way back, and for the swaps.
    """

    events: int = 30_000
    interactions: int = 10_000
    relearned: int = 10_000
    puts: int = 3000
    rounds: int = 3
    seconds: float = 30.0


QUICK = StreamingPlan(
    events=10_000, interactions=3000, relearned=10_000, puts=900, rounds=2, seconds=10.0
)


def run_streaming(plan: StreamingPlan, rig: Rig, console: Console) -> tuple[list[Figure], str]:
    """Measure everything on one broker; the figures, and the broker's name."""
    from bandit_router.bench import streaming_learner, streaming_relay, streaming_router

    with rig.broker() as broker:
        site = partial(rig.site, broker, **DEFAULTS)
        parts: list[Callable[[], list[Figure]]] = [
            lambda: _on(
                site,
                partial(streaming_relay.relay_figures, events=plan.events, rounds=plan.rounds),
            ),
            lambda: _on(
                site, partial(streaming_relay.put_figures, puts=plan.puts, rounds=plan.rounds)
            ),
            lambda: streaming_learner.learner_figures(
                site, interactions=plan.interactions, rounds=plan.rounds
            ),
            lambda: streaming_learner.restart_figures(
                partial(rig.site, broker), interactions=plan.relearned, rounds=plan.rounds
            ),
            lambda: _on(site, partial(streaming_router.way_back_figures, seconds=plan.seconds)),
            lambda: _on(site, partial(streaming_router.swap_figures, seconds=plan.seconds)),
        ]
        figures: list[Figure] = []
        with progress(console, "streaming", len(parts)) as tick:
            for part in parts:
                figures += part()
                tick(1)
        return figures, broker.name


def _on(make_site: Callable[..., Any], measure: Callable[[Any], list[Figure]]) -> list[Figure]:
    """Measure on an installation of its own."""
    with make_site() as site:
        return measure(site)


def to_builtins(
    figures: list[Figure], broker: str, where: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "schema": SCHEMA,
        "broker": broker,
        "machine": where,
        "seconds": seconds,
        "figures": [figure.to_builtins() for figure in figures],
    }
