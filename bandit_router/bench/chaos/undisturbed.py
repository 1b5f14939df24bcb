"""A reader that nothing ever happens to: the topics from their start, once, into fresh stores.

It reads the order journal and the topics as plain lists when everything is over, and shares with
the learner only which records of the journal count and how a batch is ordered.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import msgspec

from bandit_router.adapters.kafka.client import ORDER, SOURCES
from bandit_router.adapters.kafka.inspect import Inspector
from bandit_router.adapters.kafka.journal import Chain, Entry
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.bench.chaos.site import Site
from bandit_router.bootstrap import make_connection
from bandit_router.errors import EventError
from bandit_router.events import decode
from bandit_router.store_ops import resume
from bandit_router.streaming.applearner import AppPlan
from bandit_router.streaming.learning import plans_of
from bandit_router.streaming.merging import merge

PAGE = 1000


class Placed(NamedTuple):
    """A record with what its order needs: Kafka's timestamp in ms, and its offset."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


Lists = dict[tuple[str, int], list[Placed]]


def follow(site: Site, folder: Path) -> dict[str, Path]:
    """What an undisturbed learner makes of the topics; its stores by file name."""
    lists = _read_all(site)
    connection = make_connection(site.settings.events)
    found = {}
    for plan in plans_of(site.settings):
        number = connection.partition_of(plan.app)
        path = folder / plan.store_path.name
        folder.mkdir(parents=True, exist_ok=True)
        _learn(plan, _log_of(plan.app, number, lists), path)
        found[path.name] = path
    return found


def void_records(site: Site) -> int:
    """How many records of the order journal do not count: a zombie's, or an overtaken claim."""
    void = 0
    for (topic, _), records in _read_all(site).items():
        chain = Chain()
        if topic == ORDER:
            void += sum(not chain.take(_entry(record)) for record in records)
    return void


def _read_all(site: Site) -> Lists:
    lists: Lists = defaultdict(list)
    with Inspector(make_connection(site.settings.events)) as inspector:
        for record in inspector.read(inspector.spans((*SOURCES, ORDER))):
            placed = Placed(
                record.offset, round((record.ts or 0.0) * 1000), record.key, record.value
            )
            lists[record.topic, record.partition or 0].append(placed)
    return lists


def _log_of(app: str, number: int, lists: Lists) -> list[bytes]:
    """The app's records in the order of the journal: those that belong into its log."""
    chain, log = Chain(), []
    for record in lists[ORDER, number]:
        entry = _entry(record)
        if not chain.take(entry) or entry is None or entry.claim:
            continue
        batch = {
            topic: _between(lists[topic, number], entry.start[topic], entry.upto[topic])
            for topic in entry.upto
        }
        log += [
            record.value or b""
            for _, record in merge(batch)
            if record.key == app.encode() and _belongs(record, app)
        ]
    return log


def _between(records: list[Placed], first: int, end: int) -> list[Placed]:
    """Those with ``first <= offset < end``."""
    return records[bisect_left(records, (first,)) : bisect_left(records, (end,))]


def _entry(record: Placed) -> Entry | None:
    try:
        return msgspec.json.decode(record.value or b"", type=Entry)
    except msgspec.DecodeError:
        return None


def _belongs(record: Placed, app: str) -> bool:
    """Whether a record is the app's: what is no event counts as one that must be kept."""
    try:
        return decode(record.value or b"").app == app
    except EventError:
        return True


def _learn(plan: AppPlan, log: list[bytes], path: Path) -> None:
    with SqliteStore.open(path) as store:
        for start in range(0, len(log), PAGE):
            store.append(log[start : start + PAGE])
        resume(store, plan.recipe, snapshot_every=plan.snapshot_every, make=plan.make)
