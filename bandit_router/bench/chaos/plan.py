"""Every fault, how often each is injected, and running them one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bandit_router.bench.chaos import cluster, feedback, kills, network, storage
from bandit_router.bench.chaos.finding import Finding
from bandit_router.bench.chaos.rig import KAFKA, TANSU, NotHere, Rig
from bandit_router.errors import InputError, StorageError, TransportError
from bandit_router.progress import progress

if TYPE_CHECKING:
    from rich.console import Console

BOTH = (TANSU, KAFKA)


@dataclass(frozen=True)
class Size:
    """How much is injected.

    Attributes:
        kills: of each process.
        times: each other fault is injected.
        network_s: how long the network fails each time, seconds.
        halted_s: session that a halted learner outlasts, seconds.
        locked_s: how long a file stays locked, seconds.
        decisions: in scenarios that send a given stream.
        backlog: events.
    """

    kills: int = 50
    times: int = 5
    network_s: float = 10.0
    halted_s: float = 30.0
    locked_s: float = 30.0
    decisions: int = 5000
    backlog: int = 100_000


QUICK = Size(
    kills=5, times=1, network_s=2.0, halted_s=6.0, locked_s=3.0, decisions=500, backlog=15_000
)


@dataclass(frozen=True)
class Scenario:
    """One fault.

    Attributes:
        name: for ``--only``.
        brokers: the kinds of broker it is run on when both are there.
        run: injects it.
    """

    name: str
    brokers: tuple[str, ...]
    run: Callable[[Rig, Size], Finding]


def _killed(victim: str) -> Callable[[Rig, Size], Finding]:
    return lambda rig, size: kills.killed(rig, victims=(victim,), kills=size.kills)


def _network(mode: network.Mode) -> Callable[[Rig, Size], Finding]:
    return lambda rig, size: network.bad_network(
        rig, (mode,), times=size.times, lasting_s=size.network_s
    )


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("kill-router", BOTH, _killed("router")),
    Scenario("kill-learner", BOTH, _killed("learner")),
    Scenario("kill-broker", (KAFKA,), _killed("broker")),
    Scenario("kill-relay", BOTH, _killed("relay")),
    Scenario(
        "undelivered",
        BOTH,
        lambda rig, size: kills.killed_before_delivery(rig, kills=size.kills),
    ),
    Scenario(
        "empty-restart",
        (TANSU,),
        lambda rig, size: kills.forgetful_restart(rig, restarts=size.times),
    ),
    *(Scenario(mode.replace("_", "-"), (TANSU,), _network(mode)) for mode in network.FAULTS),
    Scenario(
        "wrong-clock",
        (TANSU,),
        lambda rig, size: network.wrong_clock(rig, decisions=size.decisions),
    ),
    Scenario(
        "halted-learner",
        BOTH,
        lambda rig, size: network.halted_learner(
            rig, times=min(size.times, 2), session_timeout_s=size.halted_s
        ),
    ),
    Scenario(
        "repeated-feedback",
        (TANSU,),
        lambda rig, size: feedback.repeated_feedback(rig, decisions=size.decisions),
    ),
    Scenario("backlog", BOTH, lambda rig, size: storage.backlog(rig, events=size.backlog)),
    Scenario(
        "locked-files",
        (TANSU,),
        lambda rig, size: storage.locked_files(rig, times=1, lasting_s=size.locked_s),
    ),
    Scenario("full-outbox", (TANSU,), lambda rig, _: storage.full_disk(rig, where="outbox")),
    Scenario("full-store", (TANSU,), lambda rig, _: storage.full_disk(rig, where="store")),
    Scenario(
        "kill-leader", (KAFKA,), lambda rig, size: cluster.leader_killed(rig, times=size.times)
    ),
    Scenario(
        "out-of-range",
        (KAFKA,),
        lambda rig, size: cluster.out_of_range(rig, decisions=size.decisions // 10),
    ),
    Scenario("too-large", BOTH, lambda rig, size: cluster.too_large(rig, times=size.times)),
    Scenario(
        "timed-out", BOTH, lambda rig, size: cluster.delivery_timed_out(rig, times=size.times)
    ),
)
"""In the order of the table."""


def chosen(only: Sequence[str]) -> tuple[Scenario, ...]:
    """The scenarios of those names; all for none.

    Raises:
        InputError: there is none of a name.
    """
    known = [scenario.name for scenario in SCENARIOS]
    for name in only:
        if name not in known:
            raise InputError(
                f"--only {name}: there is no such fault; there are: {', '.join(known)}"
            )
    return tuple(s for s in SCENARIOS if not only or s.name in only)


def run_chaos(
    rigs: Sequence[Rig], size: Size, console: Console, only: Sequence[str] = ()
) -> list[Finding]:
    """Inject everything, one fault after the other; progress goes to ``console``."""
    jobs = [
        (scenario, rig)
        for scenario in chosen(only)
        for rig in rigs
        if rig.kind in scenario.brokers or rig.kind not in BOTH
    ]
    found = []
    with progress(console, "chaos", len(jobs)) as tick:
        for scenario, rig in jobs:
            finding = attempt(partial(scenario.run, rig, size), scenario.name, rig.kind)
            console.print(f"{finding.fault} on {finding.broker}: {finding.verdict}", markup=False)
            found.append(finding)
            tick(1)
    return found


def attempt(run: Callable[[], Finding], name: str, kind: str) -> Finding:
    """The finding of one scenario; one that cannot be run, or breaks down, says so."""
    started = time.monotonic()
    try:
        return run()
    except NotHere as reason:
        return Finding(fault=name, broker=kind, skipped=str(reason))
    except (TimeoutError, RuntimeError, TransportError, StorageError) as error:
        return Finding(
            fault=name,
            broker=kind,
            seconds=time.monotonic() - started,
            wrong=(f"{type(error).__name__}: {error}",),
        )
