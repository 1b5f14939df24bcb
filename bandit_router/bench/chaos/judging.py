"""Wait until an installation has settled, and judge it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from bandit_router.bench.brokers.processes import wait_until
from bandit_router.bench.chaos.finding import Finding
from bandit_router.bench.chaos.rig import Running
from bandit_router.bench.chaos.site import LearnerProcess, Site
from bandit_router.bench.chaos.undisturbed import follow
from bandit_router.bench.chaos.verify import applied, differences, missing_rows, progress


def settle(site: Site, *, timeout_s: float = 60.0) -> bool:
    """Wait until every whole decision has been learned by somebody; whether that came true.

    The learners that run go on until then, and are killed.
    """
    wanted = site.acknowledged().whole
    settled = False
    with contextlib.suppress(TimeoutError):
        wait_until(
            lambda: missing_rows(all_stores(site.learners), wanted) == 0,
            timeout_s,
            "all decisions are learned",
        )
        settled = True
    for learner in site.learners:
        learner.kill()
    return settled


def settled_events(site: Site, events: int, *, rows: int = 0, timeout_s: float = 120.0) -> float:
    """Wait until the learners have stored so many events and rows; the seconds that took.

    They are killed then.

    Raises:
        TimeoutError: they have not.
    """
    start = time.monotonic()
    try:
        wait_until(
            lambda: reached(progress(all_stores(site.learners)), (events, rows)),
            timeout_s,
            f"{events} events are stored: {[learner.log() for learner in site.learners]}",
        )
        return time.monotonic() - start
    finally:
        for learner in site.learners:
            learner.kill()


def reached(found: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether both counts are there."""
    return found[0] >= wanted[0] and found[1] >= wanted[1]


def all_stores(learners: Sequence[LearnerProcess]) -> list[Any]:
    """The databases of several machines."""
    return [path for learner in learners for path in learner.stores]


def judge(
    site: Site,
    broker: Running,
    fault: str,
    *,
    injected: int,
    started: float,
    note: str = "",
    wrong: tuple[str, ...] = (),
) -> Finding:
    """The finding of an installation whose processes have stopped.

    What was lost or doubled is counted in the log of a reader that follows the topics undisturbed;
    what the learners have is compared with it.
    """
    acknowledged = site.acknowledged()
    reference = site.reference = follow(site, site.folder / "undisturbed")
    found = applied(reference.values())
    stores = all_stores(site.learners)
    wrong = [*wrong, *(f"learn_seq has gaps in {name}" for name in found.gaps)]
    wrong += [f"learn_seq has gaps in {name}" for name in applied(stores).gaps]
    different = differences(stores, reference)
    if not stores:
        wrong.append("no learner has stored anything")
    if not acknowledged.count:
        wrong.append("nothing was acknowledged")
    again = sum(count for reason, count in found.rejected.items() if "duplicate" in reason)
    notes = [note, f"{again} duplicates set aside" if again else ""]
    return Finding(
        fault=fault,
        broker=broker.name,
        injected=injected,
        acknowledged=acknowledged.count,
        lost=found.lost(acknowledged),
        doubled=found.doubled,
        bits_equal=not different,
        seconds=time.monotonic() - started,
        note=", ".join(filter(None, notes)),
        wrong=(*wrong, *different),
    )
