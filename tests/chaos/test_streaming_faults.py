"""Bad networks, bad clocks, full and locked files, and feedback as the world sends it.

A short set; ``bandit-router bench chaos`` is the long one.
"""

from __future__ import annotations

import pytest
from support.chaos import SESSION_S, assert_survived, rig_on

from bandit_router.bench.chaos.cluster import delivery_timed_out, out_of_range, too_large
from bandit_router.bench.chaos.feedback import repeated_feedback
from bandit_router.bench.chaos.network import FAULTS, bad_network, halted_learner, wrong_clock
from bandit_router.bench.chaos.rig import NotHere
from bandit_router.bench.chaos.storage import backlog, full_disk, locked_files


def test_a_network_that_resets_drops_swallows_and_delays_loses_and_doubles_nothing(
    proxied_broker, tmp_path
):
    broker, proxy = proxied_broker
    finding = bad_network(
        rig_on(broker, tmp_path, proxy),
        FAULTS,
        times=1,
        lasting_s=1.0,
    )
    assert finding.injected == len(FAULTS) == 4
    assert_survived(finding)
    assert finding.bits_equal


def test_feedback_repeated_shuffled_early_and_late_is_applied_once_or_counted(broker, tmp_path):
    finding = repeated_feedback(rig_on(broker, tmp_path), decisions=200)
    assert_survived(finding)
    assert finding.bits_equal


def test_a_router_whose_clock_is_an_hour_off_loses_and_doubles_nothing(broker, tmp_path):
    finding = wrong_clock(rig_on(broker, tmp_path), decisions=200)
    assert_survived(finding)
    assert finding.bits_equal


def test_locked_files_stop_no_request_and_lose_nothing(broker, tmp_path):
    finding = locked_files(rig_on(broker, tmp_path), times=1, lasting_s=0.5)
    assert_survived(finding)
    assert finding.bits_equal


def test_a_full_disk_stops_no_request_and_loses_nothing(broker, tmp_path):
    try:
        finding = full_disk(rig_on(broker, tmp_path), where="outbox")
    except NotHere as reason:
        pytest.skip(str(reason))
    assert_survived(finding)
    assert finding.bits_equal


def test_records_that_are_too_large_go_to_the_dead_letters_and_hold_up_nothing(
    any_broker, tmp_path
):
    assert_survived(too_large(rig_on(any_broker, tmp_path), times=2))


@pytest.mark.kafka
def test_what_was_under_way_when_the_producer_lost_patience_goes_again(kafka, tmp_path):
    assert_survived(delivery_timed_out(rig_on(kafka, tmp_path), times=1))


@pytest.mark.kafka
def test_a_halted_learner_is_replaced_and_what_it_writes_afterwards_is_void(kafka, tmp_path):
    finding = halted_learner(rig_on(kafka, tmp_path), times=1, session_timeout_s=SESSION_S)
    assert_survived(finding)
    assert finding.bits_equal


@pytest.mark.kafka
def test_records_removed_before_they_were_read_do_not_stop_the_learner(kafka, tmp_path):
    assert_survived(out_of_range(rig_on(kafka, tmp_path), decisions=40))


@pytest.mark.kafka
def test_a_backlog_is_sent_and_learned_whole(kafka, tmp_path):
    finding = backlog(rig_on(kafka, tmp_path), events=6000)
    assert_survived(finding)
    assert finding.bits_equal
