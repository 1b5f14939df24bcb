"""What a learner's loop does while there is nothing that it could do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.learners import Owner
from support.streaming import plan

from bandit_router.adapters.kafka.client import Connection
from bandit_router.errors import StorageError
from bandit_router.streaming.learning import Learning


class Member(Owner):
    """Owns what it is told to."""

    def own(self, *numbers):
        self._owned = dict.fromkeys(numbers, 0)


@pytest.fixture
def member():
    return Member([0])


@pytest.fixture
def learning(tmp_path, member):
    nowhere = Connection(bootstrap_servers=("127.0.0.1:1",), partitions=1)
    with Learning([plan("x", tmp_path)], nowhere, group="", membership=member) as made:
        yield made


def test_while_the_records_of_a_batch_are_still_to_come_a_learner_does_not_spin(learning):
    waiting = SimpleNamespace(step=lambda: False, caught_up=False, apps={})
    learning._partitions[0], learning._tokens[0] = waiting, 0
    assert not learning.turn()
    waiting.step = lambda: True
    assert learning.turn()


def test_a_partition_that_could_not_be_opened_is_no_problem_any_more_once_it_is_others(
    learning, member, monkeypatch
):
    def fails(*_):
        raise StorageError("the disk is full")

    monkeypatch.setattr(learning, "_open", fails)
    learning._follow_group()
    assert learning.status()["problems"] == {"open 0": "the disk is full"}
    member.own(1)
    learning._follow_group()
    assert learning.status()["problems"] == {}
    assert learning._settled()
