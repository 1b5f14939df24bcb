"""The stored events of a live session, fed again through the same loop from memory, give the same
training rows, the same learner and the same joiner, bit for bit.
"""

from __future__ import annotations

import pytest
from support.session import WINDOW, Session, recipe

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.events import encode_row
from bandit_router.joiner import JoinRules
from bandit_router.loop import MemorySink
from bandit_router.store_ops import fresh_loop

TICKS = 200


@pytest.mark.parametrize("rules", [JoinRules(), WINDOW], ids=lambda rules: rules.closing)
@pytest.mark.parametrize("policy", ["bandit", "linucb", "thompson", "vw-epsilon"])
def test_live_equals_replay(policy, rules, tmp_path):
    made_from = recipe(policy, rules=rules)
    with SqliteStore.open(tmp_path / "live.db") as store:
        live = Session(store, made_from).run(TICKS)
        again = fresh_loop(made_from, MemorySink())
        assert again.run(store) == store.last_offset()
        stored = [encode_row(row) for _, row in store.rows()]
        set_aside = store.rejected_counts()
    assert [encode_row(row) for row in again.sink.rows] == stored
    assert again.learner.dump() == live.learner.dump()
    assert again.joiner.dump() == live.joiner.dump()
    assert again.learner.learn_seq == len(stored) > 100
    assert sum(set_aside.values()) == len(again.sink.rejected)
