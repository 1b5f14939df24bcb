"""What the topics of an installation hold, read past everything that is under test."""

from __future__ import annotations

from collections.abc import Iterator

from bandit_router.adapters.kafka.inspect import Inspector
from bandit_router.adapters.records import Record
from bandit_router.bench.chaos.site import Site
from bandit_router.bootstrap import make_connection
from bandit_router.errors import EventError
from bandit_router.events import Change, decode


def records(site: Site, *topics: str) -> Iterator[Record]:
    """Every record of those topics (short names), ordered within each partition."""
    with Inspector(make_connection(site.settings.events)) as inspector:
        yield from inspector.read(inspector.spans(topics))


def event_ids(site: Site, topic: str) -> set[str]:
    """The ids of the events in a topic; what is no event has none."""
    found = set()
    for record in records(site, topic):
        try:
            event = decode(record.value or b"")
        except EventError:
            continue
        if not isinstance(event, Change):
            found.add(event.event_id)
    return found
