"""The way back into a router: how soon it decides by what was learned, and what a swap costs."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bandit_router.bench.chaos.site import Site
from bandit_router.bench.chaos.traffic import Traffic
from bandit_router.bench.figures import Figure, median_figure
from bandit_router.config import Settings
from bandit_router.errors import BanditRouterError, TransportError
from bandit_router.streaming.edge import Edge, open_edge

BACK_AT_MOST_S = 5.0
SWAP_AT_MOST_MS = 50.0
RATE = 100.0
START_S = 60.0
"""How long the first snapshot may take, seconds."""
MARGIN_S = 0.005
"""Beyond the time that a snapshot took to load, what is put down to its swap, seconds."""


def way_back_figures(site: Site, *, seconds: float) -> list[Figure]:
    """From a decision to one by a snapshot that has learned from it, under steady traffic."""
    traffic = Traffic(11, site.settings.catalog.names)
    learner = site.learner()
    learner.start()
    waiting: deque[tuple[int, float]] = deque()
    taken: list[float] = []
    with open_edge(_of_router(site), embed=False) as edge:
        made, learned, start = 0, 0, time.monotonic()
        end, due = start + START_S, start
        while start < end:
            decision = edge.decide(traffic.context())
            edge.record([traffic.completion(decision)])
            edge.record([traffic.feedback(decision)])
            made += 1
            if not learned and decision.learn_seq:  # the learner is at work: from here on it counts
                waiting.clear()
                learned, end = decision.learn_seq, start + seconds
            waiting.append((made, start))
            while waiting and waiting[0][0] <= decision.learn_seq:
                taken.append(start - waiting.popleft()[1])
            due = max(due + 1.0 / RATE, time.monotonic() - 1.0)
            time.sleep(max(due - time.monotonic(), 0.0))
            start = time.monotonic()
    if not taken:
        raise TransportError(f"the learner published nothing in {START_S:g} s: {learner.log()}")
    learner.kill()
    settings = site.settings
    note = (
        f"{RATE:g} decisions/s, {len(taken):,} decisions, outcomes at once; a snapshot every "
        f"{settings.snapshots.every} interactions or {settings.events.publish_every_s:g} s"
    )
    return [
        median_figure("decision to new snapshot in a router", taken, "s", note=note),
        Figure(
            "decision to new snapshot in a router, longest",
            max(taken),
            "s",
            at_most=BACK_AT_MOST_S,
            note="of the same",
        ),
    ]


@dataclass
class _Busy:
    """What a busy loop of requests saw.

    Attributes:
        ended_s: when each request was done.
        swaps: (index of the first request by a new snapshot, how long its loading took, seconds).
        dropped: requests that failed.
    """

    ended_s: list[float] = field(default_factory=list)
    swaps: list[tuple[int, float]] = field(default_factory=list)
    dropped: int = 0


def swap_figures(site: Site, *, seconds: float) -> list[Figure]:
    """The longest pause between two requests in a busy loop, while a snapshot is swapped in."""
    traffic = Traffic(12, site.settings.catalog.names)
    learner = site.learner()
    learner.start()
    with open_edge(_of_router(site), embed=False) as edge:
        _decide_on(edge, traffic, START_S, until_swapped=True)
        seen = _decide_on(edge, traffic, seconds)
    learner.kill()
    if not seen.swaps:
        raise TransportError(f"the router saw no new snapshot: {learner.log()}")
    ended = np.array(seen.ended_s)
    pauses_ms = np.diff(ended, prepend=ended[0]) * 1e3
    swapping = np.zeros(len(ended), bool)
    around = []
    for first, took_s in seen.swaps:
        begin = int(np.searchsorted(ended, ended[first] - took_s - MARGIN_S))
        swapping[begin : first + 1] = True
        around.append(float(pauses_ms[begin : first + 1].max()))
    elsewhere_ms = float(pauses_ms[~swapping].max())
    note = f"{len(around)} swaps in {seconds:g} s of {len(ended):,} requests, one after the other"
    return [
        median_figure("pause of requests in a swap", around, "ms", note=note),
        Figure(
            "pause of requests in a swap, longest",
            max(around),
            "ms",
            at_most=SWAP_AT_MOST_MS,
            note=f"the request itself included, {np.median(pauses_ms):.2f} ms; the longest pause "
            f"between swaps was {elsewhere_ms:.0f} ms",
        ),
        Figure(
            "requests dropped in swaps", float(seen.dropped), "", at_most=0.0, note="errors raised"
        ),
    ]


def _decide_on(
    edge: Edge, traffic: Traffic, seconds: float, *, until_swapped: bool = False
) -> _Busy:
    """Serve one request after the other."""
    seen, snapshot_id = _Busy(), ""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        try:
            decision = edge.decide(traffic.context())
            edge.record([traffic.completion(decision), traffic.feedback(decision)])
        except BanditRouterError:
            seen.dropped += 1
            continue
        seen.ended_s.append(time.perf_counter())
        if decision.snapshot_id != snapshot_id:
            if snapshot_id or until_swapped:
                took_s = edge.status()["follower"]["swap_s"]
                seen.swaps.append((len(seen.ended_s) - 1, took_s))
            snapshot_id = decision.snapshot_id
            if until_swapped:
                break
    return seen


def _of_router(site: Site) -> Settings:
    """The settings with files of the router's own."""
    folder: Path = site.folder / "router"
    folder.mkdir(exist_ok=True)
    events = site.settings.events.model_copy(
        update={"outbox": folder / "outbox.db", "folder": folder}
    )
    return site.settings.model_copy(update={"events": events})
