"""The way back into a router: how soon it decides by what was learned, and what a swap costs."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path

import numpy as np

from bandit_router.bench.chaos.site import Site
from bandit_router.bench.chaos.traffic import Traffic
from bandit_router.bench.figures import Figure, median_figure
from bandit_router.config import Settings
from bandit_router.errors import BanditRouterError
from bandit_router.streaming.edge import Edge, open_edge

BACK_AT_MOST_S = 5.0
SWAP_AT_MOST_MS = 50.0
RATE = 100.0
AROUND_S = 0.5
"""A pause so long before a new snapshot is seen is put down to its loading, seconds."""


def way_back_figures(site: Site, *, seconds: float) -> list[Figure]:
    """From a decision to one by a snapshot that has learned from it, under steady traffic."""
    traffic = Traffic(11, site.settings.catalog.names)
    learner = site.learner()
    learner.start()
    waiting: deque[tuple[int, float]] = deque()
    taken: list[float] = []
    with open_edge(_of_router(site), embed=False) as edge:
        end = time.monotonic() + seconds
        made, due = 0, time.monotonic()
        while time.monotonic() < end:
            start = time.monotonic()
            decision = edge.decide(traffic.context())
            edge.record([traffic.completion(decision)])
            edge.record([traffic.feedback(decision)])
            made += 1
            waiting.append((made, start))
            while waiting and waiting[0][0] <= decision.learn_seq:
                taken.append(start - waiting.popleft()[1])
            due += 1.0 / RATE
            time.sleep(max(due - time.monotonic(), 0.0))
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


def swap_figures(site: Site, *, seconds: float) -> list[Figure]:
    """The longest pause between two decisions in a busy loop, around each swap of the snapshot."""
    traffic = Traffic(12, site.settings.catalog.names)
    learner = site.learner()
    learner.start()
    with open_edge(_of_router(site), embed=False) as edge:
        ended, snapshots, dropped = _decide_on(edge, traffic, seconds)
    learner.kill()
    pauses_ms = np.diff(ended, prepend=ended[0]) * 1e3
    swaps = [i for i in range(1, len(snapshots)) if snapshots[i] != snapshots[i - 1]]
    around = [
        float(pauses_ms[np.searchsorted(ended, ended[i] - AROUND_S) + 1 : i + 1].max())
        for i in swaps
    ]
    if not around:
        raise BanditRouterError("the router saw no new snapshot: nothing to measure")
    note = f"{len(swaps)} swaps in {seconds:g} s of {len(ended):,} decisions, one after the other"
    return [
        median_figure("pause of decisions around a swap", around, "ms", note=note),
        Figure(
            "pause of decisions around a swap, longest",
            max(around),
            "ms",
            at_most=SWAP_AT_MOST_MS,
            note=f"the decision itself included; median decision {np.median(pauses_ms):.2f} ms",
        ),
        Figure("requests dropped in swaps", float(dropped), "", at_most=0.0, note="errors raised"),
    ]


def _decide_on(edge: Edge, traffic: Traffic, seconds: float) -> tuple[np.ndarray, list[str], int]:
    """When each decision was there, by which snapshot, and how many failed."""
    ended, snapshots, dropped = [], [], 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        try:
            decision = edge.decide(traffic.context())
            edge.record([traffic.completion(decision), traffic.feedback(decision)])
        except BanditRouterError:
            dropped += 1
            continue
        ended.append(time.perf_counter())
        snapshots.append(decision.snapshot_id)
    return np.array(ended), snapshots, dropped


def _of_router(site: Site) -> Settings:
    """The settings with files of the router's own."""
    folder: Path = site.folder / "router"
    folder.mkdir(exist_ok=True)
    events = site.settings.events.model_copy(
        update={"outbox": folder / "outbox.db", "folder": folder}
    )
    return site.settings.model_copy(update={"events": events})
