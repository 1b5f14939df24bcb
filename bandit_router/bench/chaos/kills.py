"""``kill -9`` of every process, again and again, under traffic."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from bandit_router.adapters.kafka.client import DECISIONS
from bandit_router.adapters.outbox import Outbox
from bandit_router.bench.brokers.processes import wait_until
from bandit_router.bench.chaos.finding import Finding
from bandit_router.bench.chaos.judging import judge, settle
from bandit_router.bench.chaos.rig import TANSU, NotHere, Rig, Running
from bandit_router.bench.chaos.site import LearnerProcess, Router, Site
from bandit_router.bench.chaos.topics import event_ids
from bandit_router.bench.chaos.verify import progress

RATE = 100.0
BACK_S = 30.0
"""How long a killed process may take until it works again, before the next kill comes anyway."""
DRAINED_S, SETTLED_S = 90.0, 150.0
"""How long the relay, and then the learner, may take once nobody is killed any more."""


def killed(rig: Rig, *, victims: Sequence[str], kills: int, seed: int = 1) -> Finding:
    """Kill each of ``victims`` (``router``, ``relay``, ``learner``, ``broker``) so many times.

    A victim is killed at a seeded random moment after it has come back to work, a learner or broker
    that takes long for that also before. Several are killed independently of each other.
    """
    if "broker" in victims and rig.kind == TANSU:
        raise NotHere("Tansu in memory keeps nothing over a kill; see its restart")
    started = time.monotonic()
    with (
        rig.broker(own="broker" in victims) as broker,
        rig.site(broker) as site,
    ):
        router, learner = site.router(rate=RATE), site.learner()
        router.start()
        learner.start()
        router.wait_serving()

        def kill_again_and_again(victim: str) -> int:
            rng = random.Random(f"{seed}/{victim}")  # noqa: S311 - a schedule, not a secret
            return sum(_KILLS[victim](router, learner, broker, rng) for _ in range(kills))

        with ThreadPoolExecutor(len(victims)) as at_once:
            done = dict(zip(victims, at_once.map(kill_again_and_again, victims), strict=True))
        router.wait_serving()
        with contextlib.suppress(TimeoutError):  # what stays in the outbox counts as lost
            wait_drained(site, router, timeout_s=DRAINED_S)
        router.stop()
        settled = settle(site, timeout_s=SETTLED_S)
        each = ", ".join(f"{victim} {count}" for victim, count in done.items())
        return judge(
            site,
            broker,
            f"kill -9 of {' and '.join(victims)} at {RATE:.0f} decisions/s",
            injected=sum(done.values()),
            started=started,
            note=(each if len(done) > 1 else "") + ("" if settled else " not all was learned"),
        )


def _kill_router(router: Router, _: LearnerProcess, __: Running, rng: random.Random) -> int:
    """After a random number of acknowledged events of this life."""
    router.wait_serving(rng.randrange(3, 90))
    router.kill()
    router.start()
    return 1


def _kill_relay(router: Router, _: LearnerProcess, __: Running, rng: random.Random) -> int:
    """The process beside the router that sends; the router starts another."""
    router.wait_serving(rng.randrange(3, 60))
    wait_until(lambda: router.relay_pid() is not None, BACK_S, "a relay is there")
    pid = router.relay_pid()
    if pid is None:  # it has just been killed with its router
        return 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: router.relay_pid() not in {None, pid}, BACK_S, "another relay is there")
    return 1


def _kill_learner(_: Router, learner: LearnerProcess, __: Running, rng: random.Random) -> int:
    """Once it has stored a few events more in this life, or before it gets to it."""
    wait_for_progress(learner, rng.randrange(1, 60), timeout_s=rng.uniform(1.0, 5.0))
    learner.kill()
    learner.start()
    return 1


def _kill_broker(_: Router, learner: LearnerProcess, broker: Running, rng: random.Random) -> int:
    """Once events have come through it to the learner again, or before that."""
    wait_for_progress(learner, rng.randrange(1, 60), timeout_s=rng.uniform(0.2, 2.0))
    broker.process.kill()
    broker.process.restart()
    return 1


_KILLS: dict[str, Callable[[Router, LearnerProcess, Running, random.Random], int]] = {
    "router": _kill_router,
    "relay": _kill_relay,
    "learner": _kill_learner,
    "broker": _kill_broker,
}


def wait_for_progress(learner: LearnerProcess, events: int, timeout_s: float = BACK_S) -> bool:
    """Wait until a learner has stored so many events more; whether it did in time."""
    before = progress(learner.stores)[0]
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: progress(learner.stores)[0] >= before + events, timeout_s, "it learns")
        return True
    return False


def killed_before_delivery(rig: Rig, *, kills: int, seed: int = 2) -> Finding:
    """Kill the router, and the relay in it, between acknowledgement and delivery.

    The broker is halted first, so that what is acknowledged from then on waits in the outbox.
    """
    started = time.monotonic()
    with (
        rig.broker(own=True) as broker,
        rig.site(broker) as site,
    ):
        router, learner = site.router(rate=RATE), site.learner()
        router.start()
        learner.start()
        rng = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        stranded = 0
        for _ in range(kills):
            router.wait_serving()
            broker.process.pause()
            try:
                before = router.served()
                router.wait_serving(before + rng.randrange(20, 60))
                router.kill()
                stranded += router.served() - before
            finally:
                broker.process.resume()
            router.start()
        router.wait_serving()
        router.stop()
        settle(site)
        return judge(
            site,
            broker,
            "kill -9 of the relay between acknowledgement and delivery",
            injected=kills,
            started=started,
            note=f"{stranded} events were acknowledged and not delivered",
        )


def forgetful_restart(rig: Rig, *, restarts: int, seed: int = 3) -> Finding:
    """A broker that comes back empty: what it had not acknowledged drains, service never stops."""
    started = time.monotonic()
    with rig.broker(own=True) as broker, rig.site(broker) as site:
        router = site.router(rate=RATE)
        router.start()
        rng = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        lost = waited = 0
        drained_s = 0.0
        for _ in range(restarts):
            router.wait_serving()
            wait_drained(site, router)
            broker.process.kill()
            before = site.acknowledged()
            router.wait_serving(router.served() + rng.randrange(100, 300))
            meanwhile = site.acknowledged().decisions - before.decisions
            waited += len(meanwhile)
            broker.process.restart()
            site.make_topics()
            back = time.monotonic()
            lost += _not_arrived(site, meanwhile)
            drained_s = max(drained_s, time.monotonic() - back)
        router.stop()
        acknowledged = site.acknowledged()
    pause_s = max(
        (b - a for a, b in zip(acknowledged.times_s, acknowledged.times_s[1:], strict=False)),
        default=0.0,
    )
    return Finding(
        fault="broker restarted empty",
        broker=broker.name,
        injected=restarts,
        acknowledged=acknowledged.count,
        lost=lost,
        seconds=time.monotonic() - started,
        note=f"{waited} decisions made meanwhile were there {drained_s:.1f} s after it; longest "
        f"pause between two {pause_s:.2f} s",
    )


def _not_arrived(site: Site, wanted: set[str], timeout_s: float = 60.0) -> int:
    """How many of these decisions are not in the topic when they should long be there.

    A broker that has forgotten a producer refuses what that one had under way, until the relay's
    ``delivery_timeout_s`` is over and it makes another producer.
    """
    left = wanted
    deadline = time.monotonic() + timeout_s
    while left and time.monotonic() < deadline:
        left = wanted - event_ids(site, DECISIONS)
    return len(left)


def wait_drained(site: Site, router: Router, timeout_s: float = 30.0) -> None:
    """Wait until next to nothing waits in a router's outbox. Raises TimeoutError."""
    with Outbox.open(router.outbox, check=False) as outbox:
        wait_until(
            lambda: outbox.backlog().events <= RATE,  # what comes in while it goes out
            timeout_s,
            f"the outbox of {router.name} drains ({site.folder})",
        )
