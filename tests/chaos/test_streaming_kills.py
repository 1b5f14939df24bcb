"""``kill -9`` under 100 decisions a second: nothing acknowledged is lost, nothing applied twice.

A short set. ``CHAOS_KILLS`` sets how often each process is killed; ``bandit-router bench chaos``
is the long set.
"""

from __future__ import annotations

import os

import pytest
from support.chaos import assert_survived, rig_on

from bandit_router.bench.chaos.cluster import leader_killed
from bandit_router.bench.chaos.kills import forgetful_restart, killed, killed_before_delivery


def kills(default: int) -> int:
    return int(os.environ.get("CHAOS_KILLS", default))


def test_router_relay_and_learner_killed_again_and_again_lose_and_double_nothing(
    own_broker, tmp_path
):
    finding = killed(
        rig_on(own_broker, tmp_path),
        victims=("router", "relay", "learner"),
        kills=kills(2),
    )
    assert_survived(finding)
    assert finding.bits_equal


def test_what_was_acknowledged_and_not_delivered_when_the_router_died_is_delivered_by_the_next(
    own_broker, tmp_path
):
    finding = killed_before_delivery(rig_on(own_broker, tmp_path), kills=kills(1))
    assert_survived(finding)
    assert finding.bits_equal


def test_a_broker_that_comes_back_empty_gets_what_it_had_not_acknowledged(own_broker, tmp_path):
    assert_survived(forgetful_restart(rig_on(own_broker, tmp_path), restarts=1))


@pytest.mark.kafka
def test_every_process_and_the_broker_killed_again_and_again_lose_and_double_nothing(
    kafka, tmp_path
):
    finding = killed(
        rig_on(kafka, tmp_path),
        victims=("router", "relay", "learner", "broker"),
        kills=kills(20),
    )
    assert_survived(finding)
    assert finding.bits_equal


@pytest.mark.kafka
def test_a_killed_leader_of_three_brokers_loses_and_doubles_nothing(kafka3, tmp_path):
    finding = leader_killed(rig_on(kafka3, tmp_path), times=1)
    assert_survived(finding)
    assert finding.bits_equal
