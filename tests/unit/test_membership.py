"""The thread that takes part in the group of learners does not end before it is told to."""

from __future__ import annotations

from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.membership import Membership
from bandit_router.bench.brokers.processes import wait_until


def test_whatever_a_client_raises_the_group_is_joined_again(monkeypatch):
    attempts = []

    def take_part(membership):
        attempts.append(membership.trouble)
        if len(attempts) == 1:
            membership.owned = {0: 0}
            raise KeyError("a fault of the client")

    monkeypatch.setattr(Membership, "_take_part", take_part)
    connection = Connection(bootstrap_servers=("127.0.0.1:1",))
    with Membership(connection, "group", session_timeout_s=3.0) as membership:
        wait_until(lambda: len(attempts) > 1, 10, "it has tried again")
        assert "KeyError" in attempts[1]
        assert membership.ask() == {}
