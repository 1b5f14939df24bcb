"""A network that fails, a clock that is wrong, a learner that is halted."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import get_args

from bandit_router.bench.brokers import Mode
from bandit_router.bench.brokers.processes import wait_until
from bandit_router.bench.chaos.finding import Finding
from bandit_router.bench.chaos.judging import judge, settle
from bandit_router.bench.chaos.kills import RATE, wait_for_progress
from bandit_router.bench.chaos.rig import Rig
from bandit_router.bench.chaos.undisturbed import void_records
from bandit_router.bench.chaos.verify import progress

FAULTS = tuple(mode for mode in get_args(Mode) if mode != "pass")
HOUR_S = 3600.0

_WHAT = {
    "reset": "connections reset",
    "drop_responses": "responses dropped",
    "black_hole": "network is a black hole",
    "delay": "everything delayed",
}


def bad_network(
    rig: Rig,
    modes: Sequence[Mode],
    *,
    times: int,
    lasting_s: float,
    seed: int = 4,
) -> Finding:
    """The network between broker and everybody fails in these ways, each so many times and long."""
    started = time.monotonic()
    with (
        rig.broker(own=True, proxied=True) as broker,
        rig.site(broker) as site,
    ):
        router, learner = site.router(rate=RATE), site.learner()
        router.start()
        learner.start()
        rng = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        spans = []
        for mode in [*modes] * times:
            router.wait_serving(router.served() + rng.randrange(10, 100))
            wait_for_progress(learner, 1)
            broker.proxy.mode = mode
            begun = time.monotonic()
            try:
                # The service is what goes on: its own acknowledgements are the clock here.
                events = int(3 * RATE * lasting_s)
                router.wait_serving(router.served() + events, timeout_s=10 * lasting_s + 10)
            finally:
                broker.proxy.mode = "pass"
                spans.append((begun, time.monotonic()))
        router.stop()
        settle(site)
        slowest_ms = site.acknowledged().slowest_ms(spans)
        return judge(
            site,
            broker,
            f"{', '.join(_WHAT[mode] for mode in modes)} for {lasting_s:g} s",
            injected=times * len(modes),
            started=started,
            note=f"slowest decision meanwhile {slowest_ms:.0f} ms",
        )


def wrong_clock(rig: Rig, *, decisions: int, skew_s: float = HOUR_S) -> Finding:
    """Two routers serve one app; the clock of one is off."""
    started = time.monotonic()
    with rig.broker() as broker, rig.site(broker) as site:
        right = site.router("right", seed=1, rate=RATE / 2, limit=decisions // 2)
        wrong = site.router("wrong", seed=2, rate=RATE / 2, limit=decisions // 2, skew_s=skew_s)
        learner = site.learner()
        learner.start()
        for router in (right, wrong):
            router.start()
        limit_s = 60.0 + decisions / RATE * 2
        wait_until(lambda: not (right.running or wrong.running), limit_s, "both end")
        settle(site)
        hours = f"{skew_s / HOUR_S:+g} h"
        return judge(
            site, broker, f"clock of one of two routers off by {hours}", injected=1, started=started
        )


def halted_learner(rig: Rig, *, times: int, session_timeout_s: float) -> Finding:
    """SIGSTOP of the learner until another has taken over; then it goes on, as a zombie."""
    started = time.monotonic()
    with (
        rig.broker() as broker,
        rig.site(broker, session_timeout_s=session_timeout_s) as site,
    ):
        router = site.router(rate=RATE)
        learners = [site.learner("learner-a"), site.learner("learner-b")]
        router.start()
        learners[0].start()
        wait_for_progress(learners[0], 1)
        learners[1].start()
        at_work = 0
        took = []
        for _ in range(times):
            zombie, other = learners[at_work], learners[1 - at_work]
            halted = time.monotonic()
            zombie.server.pause()
            try:
                wait_for_progress(other, 1, timeout_s=6 * session_timeout_s + 20)
            finally:
                zombie.server.resume()
            took.append(time.monotonic() - halted)
            before = progress(other.stores)[0]
            wait_for_progress(other, 100)
            at_work = 1 - at_work if progress(other.stores)[0] > before else at_work
        router.stop()
        settle(site)
        return judge(
            site,
            broker,
            f"learner halted (SIGSTOP) beyond its session of {session_timeout_s:g} s",
            injected=times,
            started=started,
            note=f"another had taken over after {max(took):.1f} s at most; "
            f"{void_records(site)} records of the order journal are void",
        )
