"""One order for three topics: a function of the records, which keeps each topic's own order."""

from __future__ import annotations

import math
from typing import NamedTuple

import hypothesis.strategies as st
from hypothesis import given

from bandit_router.adapters.kafka.client import SOURCES
from bandit_router.streaming.merging import cut, merge


class Stub(NamedTuple):
    offset: int
    timestamp: int


TIMES = st.lists(st.integers(0, 20), max_size=12)
BATCHES = st.fixed_dictionaries(dict.fromkeys(SOURCES, TIMES)).map(
    lambda times: {t: [Stub(7 + n, ts) for n, ts in enumerate(found)] for t, found in times.items()}
)


def running(records) -> list[int]:
    """The times as they count: they never run backwards."""
    return [max(r.timestamp for r in records[: n + 1]) for n in range(len(records))]


@given(BATCHES)
def test_every_record_comes_once_and_each_topic_keeps_its_order(batch):
    merged = list(merge(batch))
    assert {t: [r for topic, r in merged if topic == t] for t in SOURCES} == batch


@given(BATCHES)
def test_the_order_is_by_time_then_by_topic(batch):
    at = {
        (t, r.offset): ts
        for t in SOURCES
        for r, ts in zip(batch[t], running(batch[t]), strict=True)
    }
    places = [(at[t, r.offset], SOURCES.index(t)) for t, r in merge(batch)]
    assert places == sorted(places)


@given(BATCHES, st.data())
def test_a_part_from_the_front_of_each_topic_has_the_same_order(batch, data):
    part = {t: found[: data.draw(st.integers(0, len(found)))] for t, found in batch.items()}
    kept = {(t, r.offset) for t, found in part.items() for r in found}
    assert list(merge(part)) == [(t, r) for t, r in merge(batch) if (t, r.offset) in kept]


@given(BATCHES, st.sets(st.sampled_from(SOURCES)), st.integers(1, 40))
def test_a_cut_is_the_beginning_of_the_order(batch, unfinished, limit):
    counts = cut(batch, unfinished, limit)
    taken = list(merge({t: batch[t][:n] for t, n in counts.items()}))
    assert len(taken) <= limit
    assert taken == list(merge(batch))[: len(taken)]


@given(BATCHES, st.sets(st.sampled_from(SOURCES)))
def test_no_topic_runs_ahead_of_what_is_known_of_one_that_has_more(batch, unfinished):
    counts = cut(batch, unfinished, 1000)
    known = min((max((r.timestamp for r in batch[t]), default=-math.inf) for t in unfinished),
                default=math.inf)  # fmt: skip
    for topic, count in counts.items():
        times = running(batch[topic])
        assert all(ts <= known for ts in times[:count])
        assert all(ts > known for ts in times[count:])


@given(BATCHES.filter(lambda batch: any(batch.values())))
def test_where_all_topics_that_have_more_have_been_read_something_is_taken(batch):
    unfinished = [t for t in SOURCES if batch[t]]
    assert sum(cut(batch, unfinished, 1).values()) == 1


def test_decisions_wait_for_the_outcomes_of_their_time_in_a_backlog():
    hours = {"decisions": [Stub(n, n * 3600) for n in range(10)], "outcomes": [Stub(0, 3600)]}
    assert cut(hours, ["decisions", "outcomes"], 1000)["decisions"] == 2
    assert cut(hours, ["decisions"], 1000)["decisions"] == 10
