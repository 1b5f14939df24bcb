"""A network that fails while a learner works: it says so, tries again, and the bits are the same.

Where responses are dropped a record of the order journal may have been written though its writer
was never told, and is written again.
"""

from __future__ import annotations

import random

import pytest
from support.learners import Owner, assert_equal_bits, event_ids, followed, ordered
from support.streaming import interactions, plan, send

from bandit_router.bench.brokers.processes import wait_until
from bandit_router.streaming.learning import Learning

ROUNDS = 3
PER_ROUND = 20


@pytest.mark.parametrize("mode", ["reset", "drop_responses", "black_hole"])
def test_a_failing_network_costs_time_and_nothing_else(proxied_broker, tmp_path, mode):
    broker, proxy = proxied_broker
    connection = broker.with_topics(partitions=1, timeout_s=0.5)
    rng, sent = random.Random(mode), 0
    with Learning(
        [plan("x", tmp_path / "a", publish_every_s=0.1)],
        connection,
        group="",
        batch=16,
        membership=Owner([0]),
    ) as learning:

        def app():
            learning.turn()
            found = learning._partitions.get(0)
            return None if found is None else found.apps["x"]

        def decisions():
            found = app()
            return 0 if found is None else len(event_ids(found, "decision"))

        for _ in range(ROUNDS):
            send(connection, interactions("x", PER_ROUND, first=sent))
            sent += PER_ROUND
            begin = sent - PER_ROUND + rng.randint(1, PER_ROUND // 2)
            wait_until(lambda n=begin: decisions() >= n, 30, "it has begun to learn them")
            proxy.mode = mode
            wait_until(
                lambda: app() is not None and learning.status()["problems"], 30, "it says so"
            )
            proxy.mode = "pass"
        wait_until(lambda: decisions() >= sent, 60, "it has learned everything")
        wait_until(lambda: learning.turn() or not learning.status()["problems"], 30, "it is well")
    reference = followed(connection, ["x"], tmp_path / "b")["x"]
    assert event_ids(reference, "decision") == [f"x:{n}" for n in range(sent)]
    found = followed(connection, ["x"], tmp_path / "a")["x"]
    assert_equal_bits(found, reference)
    assert ordered(connection)[0]["decisions"] == sent
