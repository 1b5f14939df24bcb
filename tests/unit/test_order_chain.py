"""Which records of an order journal count: what a deposed learner writes never does."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from bandit_router.adapters.kafka.journal import Chain, Entry


def claim(epoch: int) -> Entry:
    return Entry(epoch=epoch, claim=f"learner {epoch}")


def batch(epoch: int, start: int, upto: int, **fields) -> Entry:
    return Entry(epoch=epoch, start={"decisions": start}, upto={"decisions": upto}, **fields)


def counting(*entries: Entry | None) -> list[bool]:
    chain = Chain()
    return [chain.take(entry) for entry in entries]


def test_a_claim_counts_above_all_before_it_and_not_otherwise():
    assert counting(claim(1), claim(1), claim(3), claim(2)) == [True, False, True, False]


def test_a_batch_of_a_deposed_learner_is_void():
    written = counting(claim(1), batch(1, 0, 5), claim(2), batch(1, 5, 9), batch(2, 5, 7))
    assert written == [True, True, True, False, True]


def test_of_two_batches_that_begin_at_the_same_place_the_first_counts():
    assert counting(claim(1), batch(1, 0, 5), batch(1, 0, 8), batch(1, 5, 8)) == [
        True, True, False, True,
    ]  # fmt: skip


def test_a_batch_may_begin_beyond_a_gap_and_below_only_when_it_says_that_a_topic_begins_again():
    assert counting(claim(1), batch(1, 0, 5), batch(1, 50, 60), batch(1, 0, 0, restart=True)) == [
        True, True, True, True,
    ]  # fmt: skip


def test_what_cannot_be_read_or_has_no_epoch_does_not_count():
    assert counting(None, batch(0, 0, 5), claim(0)) == [False, False, False]


ENTRIES = st.lists(
    st.one_of(
        st.integers(0, 4).map(claim),
        st.builds(batch, st.integers(0, 4), st.integers(0, 9), st.integers(0, 9)),
    ),
    max_size=30,
)


@given(ENTRIES)
def test_batches_that_count_never_overlap_and_their_epochs_never_fall(entries):
    chain, end, epoch = Chain(), 0, 0
    for entry in entries:
        if chain.take(entry) and not entry.claim:
            assert entry.start["decisions"] >= end
            assert entry.epoch >= epoch
            end, epoch = entry.upto["decisions"], entry.epoch
