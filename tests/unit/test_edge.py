"""A router over Kafka, without Kafka: what it logs, and what it does when it cannot."""

from __future__ import annotations

import ast
import contextlib
import inspect
import sqlite3
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest

from bandit_router.adapters.outbox import Outbox
from bandit_router.bootstrap import make_featurizer
from bandit_router.config import Settings, load_settings
from bandit_router.eligibility import DenyList, Eligibility
from bandit_router.errors import (
    ConfigError,
    DecisionError,
    EventError,
    InputError,
    OutboxFullError,
)
from bandit_router.events import Completion, Feedback, decode, encode
from bandit_router.live import configured_policy, open_live, recipe_of
from bandit_router.loop import MemorySink
from bandit_router.store_ops import fresh_loop
from bandit_router.streaming import edge as module
from bandit_router.streaming.accepting import Served
from bandit_router.streaming.edge import Edge, open_edge
from bandit_router.types import Context, Decision, Interaction

CONFIG = """
[app]
name = "shop"
safe_model = "dear"
[policy]
name = "linucb"
quality_value_usd = 0.02
{policy}
[events]
transport = "kafka"
shards = {shards}
outbox = "outbox.db"
outbox_max_events = {room}
[[models]]
model = "cheap"
expected_cost_usd = 0.001
[[models]]
model = "middle"
expected_cost_usd = 0.003
[[models]]
model = "dear"
expected_cost_usd = 0.01
"""


def settings(folder: Path, *, shards: int = 1, room: int = 1000, policy: str = "") -> Settings:
    file = folder / "config.toml"
    file.write_text(CONFIG.format(shards=shards, room=room, policy=policy))
    return load_settings(file)


def edge(chosen: Settings, **options) -> Edge:
    featurizer = make_featurizer(chosen.features, embed=False)
    outbox = Outbox.open(chosen.events.outbox, max_events=chosen.events.outbox_max_events)
    return Edge(chosen, featurizer, recipe_of(chosen, featurizer), outbox, **options)


def query(number: int, unit_id: str = "") -> Context:
    vector = np.random.default_rng(number).standard_normal(384)
    return Context(
        event_id=f"e{number}",
        ts=float(number),
        prompt=f"question {number}?",
        embedding=(vector / np.linalg.norm(vector)).astype(np.float32),
        unit_id=unit_id,
    )


def judged(event_id: str, app: str = "shop", value: float = 1.0, metric: str = "score") -> Feedback:
    return Feedback(event_id=event_id, ts=1.0, app=app, metric=metric, value=value, feedback_id="f")


def sent(chosen: Settings) -> list[tuple[str, str, object]]:
    """(topic, app, event) of everything in the outbox."""
    with Outbox.open(chosen.events.outbox) as outbox:
        return [
            (item.record.topic, item.record.key, decode(item.record.value))
            for item in outbox.read(0, 10_000)
        ]


def trained(chosen: Settings, rows: int, *, cost_usd: float = 0.002) -> Served:
    """A state that has learned some rows, as a follower would give it."""
    featurizer = make_featurizer(chosen.features, embed=False)
    loop = fresh_loop(recipe_of(chosen, featurizer), MemorySink(), configured_policy)
    for number in range(rows):
        row = Interaction(
            event_id=f"t{number}",
            ts=0.0,
            closed_ts=0.0,
            features=featurizer.features(query(number)),
            eligible=("cheap", "middle", "dear"),
            pmf=(1 / 3, 1 / 3, 1 / 3),
            action="middle",
            propensity=1 / 3,
            slice="policy",
            quality_value_usd=0.02,
            score=1.0,
            cost_usd=cost_usd,
        )
        loop.learner.apply(row)
    return Served(
        snapshot_id=f"snapshot-{rows}", learn_seq=rows, epoch=7, learner=loop.learner, state_bytes=1
    )


def test_a_decision_is_in_the_outbox_when_it_is_returned(tmp_path):
    chosen = settings(tmp_path)
    with edge(chosen) as router:
        decision = router.decide(query(1))
        [(topic, app, event)] = sent(chosen)
        assert (topic, app) == ("decisions", "shop")
        assert isinstance(event, Decision)
        assert encode(event) == encode(decision)
        assert router.status()["counts"]["decisions"] == 1


def test_untrained_it_decides_what_the_embedded_loop_would(tmp_path):
    chosen = settings(tmp_path)
    with (
        edge(chosen) as router,
        open_live(chosen.with_store(tmp_path / "log.db"), embed=False) as live,
    ):
        for number in range(20):
            ours, theirs = router.decide(query(number)), live.decide(query(number))
            assert (ours.action, ours.pmf, ours.app) == (theirs.action, theirs.pmf, theirs.app)


def test_a_new_state_decides_from_the_next_request_on(tmp_path):
    chosen = settings(tmp_path)
    with edge(chosen) as router:
        before = router.decide(query(1))
        served = trained(chosen, 200)
        router.swap("shop", served)
        after = router.decide(query(2))
        assert (before.snapshot_id, before.learn_seq) == ("", 0)
        assert (after.snapshot_id, after.learn_seq) == ("snapshot-200", 200)
        eligible = ("cheap", "middle", "dear")
        expected = served.learner.policy.evaluate(after.features, eligible, 0.02)
        assert after.pmf == tuple(expected.pmf.tolist())
        assert router.status()["apps"]["shop"]["epoch"] == 7
        assert router.status()["apps"]["shop"]["age_s"] >= 0.0


def test_with_a_budget_the_quality_value_is_the_one_that_the_learner_has_turned(tmp_path):
    chosen = settings(tmp_path, policy="budget_usd_per_query = 0.001")
    with edge(chosen) as router:
        assert router.decide(query(1)).quality_value_usd == 0.02
        served = trained(chosen, 300, cost_usd=0.01)
        router.swap("shop", served)
        paced = served.learner.pacer.quality_value_usd
        assert paced != 0.02
        assert router.decide(query(2)).quality_value_usd == paced
        assert router.decide(query(3), quality_value_usd=0.5).quality_value_usd == 0.5


def test_without_a_budget_the_quality_value_is_that_of_the_settings(tmp_path):
    learned = trained(settings(tmp_path), 10)
    chosen = settings(tmp_path)
    moved = chosen.policy.model_copy(update={"quality_value_usd": 0.07})
    with edge(chosen.model_copy(update={"policy": moved})) as router:
        router.swap("shop", learned)
        assert router.decide(query(1)).quality_value_usd == 0.07


def test_with_a_full_outbox_the_safe_model_serves_and_nothing_is_explored(tmp_path):
    chosen = settings(tmp_path, room=10)
    with edge(chosen) as router:
        logged = [router.decide(query(number)) for number in range(9)]
        assert all(decision.slice != "forced" for decision in logged)
        for number in range(9, 30):
            decision = router.decide(query(number))
            assert (decision.action, decision.propensity, decision.learn) == ("dear", 1.0, False)
            assert (decision.slice, decision.eligible) == ("forced", ("dear",))
            assert decision.rules == ("outbox_unavailable",)
        status = router.status()
        assert status["counts"]["unlogged_decisions"] == 21
        assert "is full" in status["alarm"]
        assert len(sent(chosen)) == 9


def test_when_there_is_room_again_it_draws_again_by_itself(tmp_path):
    chosen = settings(tmp_path, room=10)
    with edge(chosen) as router:
        for number in range(12):
            router.decide(query(number))
        with Outbox.open(chosen.events.outbox) as relay:
            relay.acknowledge(9)
        decision = router.decide(query(12))
        assert decision.rules == ()
        assert router.status()["alarm"] == ""
        assert router.decide(query(10)).event_id == "e10"  # asked again: it was not logged


def test_a_safe_model_that_is_not_eligible_does_not_serve(tmp_path):
    rules = Eligibility([DenyList(frozenset({"dear", "cheap"}))])
    with edge(settings(tmp_path, room=1), eligibility=rules) as router:
        router.decide(query(1))
        decision = router.decide(query(2))
        assert decision.action == "middle"
        assert decision.rules == ("deny_list:cheap", "deny_list:dear", "outbox_unavailable")


def test_a_safe_model_that_was_removed_from_the_catalog_does_not_serve(tmp_path):
    chosen = settings(tmp_path, room=1)
    served = trained(chosen, 1)
    served.learner.catalog = served.learner.catalog.without("dear")
    served.learner.policy.set_catalog(served.learner.catalog)
    with edge(chosen) as router:
        router.swap("shop", served)
        router.decide(query(1))
        assert router.decide(query(2)).action == "cheap"


def test_a_state_without_an_answer_lets_the_safe_model_serve_and_is_counted(tmp_path, monkeypatch):
    chosen = settings(tmp_path)
    broken, mended = trained(chosen, 1), trained(chosen, 1)

    def evaluate(*_):
        raise DecisionError("damaged")

    monkeypatch.setattr(broken.learner.policy, "evaluate", evaluate)
    with edge(chosen) as router:
        router.swap("shop", broken)
        decision = router.decide(query(1))
        assert (decision.action, decision.rules) == ("dear", ("unusable_evaluation",))
        assert router.status()["counts"]["unusable_evaluations"] == 1
        router.swap("shop", mended)
        assert router.decide(query(2)).rules == ()
        assert router.status()["counts"]["unusable_evaluations"] == 1


def test_a_pin_stays_when_it_cannot_be_logged(tmp_path):
    with edge(settings(tmp_path, room=1)) as router:
        router.decide(query(1))
        decision = router.decide(query(2), forced="middle")
        assert decision.action == "middle"
        assert decision.rules == ("pin:middle", "outbox_unavailable")


def test_outcomes_of_logged_decisions_fit_when_decisions_do_not(tmp_path):
    chosen = settings(tmp_path, room=10)
    with edge(chosen) as router:
        for number in range(11):
            router.decide(query(number))
        router.record([judged("e0")])
        with pytest.raises(OutboxFullError):
            router.record([judged("e1")])
        assert router.status()["counts"]["refused_outcomes"] == 1


def test_outcomes_of_an_unlogged_decision_take_no_room(tmp_path):
    chosen = settings(tmp_path, room=10)
    with edge(chosen) as router:
        for number in range(10):
            router.decide(query(number))
        for _ in range(5):
            router.record([judged("e9")])
        assert len(sent(chosen)) == 9
        assert router.status()["counts"]["outcomes_of_unlogged"] == 5


def test_with_a_locked_outbox_the_safe_model_serves_at_once(tmp_path):
    chosen = settings(tmp_path)
    with (
        edge(chosen) as router,
        contextlib.closing(sqlite3.connect(chosen.events.outbox, isolation_level=None)) as other,
    ):
        other.execute("BEGIN EXCLUSIVE")
        decisions = [router.decide(query(number)) for number in range(20)]
        assert {decision.action for decision in decisions} == {"dear"}
        assert "locked" in router.status()["alarm"]
        other.execute("ROLLBACK")
        assert router.decide(query(20)).rules == ()


def test_a_decision_is_made_once_for_an_event_id(tmp_path):
    with edge(settings(tmp_path)) as router:
        router.decide(query(1))
        with pytest.raises(InputError, match="'e1' already"):
            router.decide(query(1))


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (judged("e1", metric="mood"), r"metric 'mood' is not one of .*: accepted, score, thumbs"),
        (judged("e1", value=1.5), "takes 0 to 1"),
        (judged("e1", app="other"), "of app 'other'; this router decides for 'shop'"),
        (Completion(event_id="e1", ts=1.0, app="shop", model="dear", cost_usd=-1.0), "negative"),
    ],
)
def test_what_could_never_be_joined_is_refused_and_not_taken(tmp_path, outcome, words):
    chosen = settings(tmp_path)
    with edge(chosen) as router:
        router.decide(query(1))
        with pytest.raises(InputError, match=words):
            router.record([judged("e1"), outcome])
        assert len(sent(chosen)) == 1


def test_a_decision_that_cannot_be_made_leaves_nothing_behind(tmp_path):
    chosen = settings(tmp_path)
    with edge(chosen, eligibility=Eligibility([DenyList(frozenset())])) as router:
        with pytest.raises(EventError, match="event_id"):
            router.decide(msgspec.structs.replace(query(1), event_id=""))
        with pytest.raises(DecisionError):
            router.decide(query(1), quality_value_usd=-1.0)
        assert sent(chosen) == []
        assert router.decide(query(1)).event_id == "e1"


def test_a_unit_always_meets_the_same_shard_and_shards_share_the_units(tmp_path):
    with edge(settings(tmp_path, shards=4)) as router:
        assert router.apps == ("shop/0", "shop/1", "shop/2", "shop/3")
        by_unit = {}
        for number in range(200):
            unit = f"u{number % 40}"
            app = router.decide(query(number, unit)).app
            assert by_unit.setdefault(unit, app) == app
        assert set(by_unit.values()) == set(router.apps)
        # The law is the same in every process and on every machine.
        assert router.app_of(query(0, "u0")) == "shop/2"
        assert router.app_of(query(1)) == router.app_of(query(1))


def test_an_outcome_goes_to_the_shard_of_its_decision(tmp_path):
    chosen = settings(tmp_path, shards=4)
    with edge(chosen) as router:
        decisions = [router.decide(query(number)) for number in range(20)]
        for decision in decisions:
            router.record([judged(decision.event_id), judged(decision.event_id, decision.app)])
        apps = {decision.event_id: decision.app for decision in decisions}
        outcomes = [(app, event) for topic, app, event in sent(chosen) if topic == "outcomes"]
        assert len(outcomes) == 40
        assert all(event.app == app == apps[event.event_id] for app, event in outcomes)


def test_an_outcome_of_a_decision_of_another_process_says_which_shard(tmp_path):
    chosen = settings(tmp_path, shards=4)
    with edge(chosen) as router:
        router.record([judged("elsewhere", "shop/3")])
        assert [app for _, app, _ in sent(chosen)] == ["shop/3"]
        with pytest.raises(InputError, match="must carry its app, one of shop/0 to shop/3"):
            router.record([judged("elsewhere")])


def test_only_so_many_decisions_are_remembered(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "REMEMBERED", 5)
    with edge(settings(tmp_path)) as router:
        for number in range(20):
            router.decide(query(number))
        assert len(router._recent) == 5


def test_each_shard_serves_its_own_state(tmp_path):
    chosen = settings(tmp_path, shards=2)
    with edge(chosen) as router:
        router.swap("shop/1", trained(chosen, 50))
        seen = {}
        for number in range(40):
            decision = router.decide(query(number))
            seen[decision.app] = decision.learn_seq
        assert seen == {"shop/0": 0, "shop/1": 50}


def test_threads_decide_and_swap_at_once_and_each_decision_is_of_one_state(tmp_path):
    chosen = settings(tmp_path)
    states = [trained(chosen, rows) for rows in (10, 200)]
    decisions: list[Decision] = []

    def decide(router: Edge, first: int) -> None:
        decisions.extend([router.decide(query(number)) for number in range(first, first + 60)])

    with edge(chosen) as router:
        router.swap("shop", states[0])
        threads = [threading.Thread(target=decide, args=(router, 60 * i)) for i in range(4)]
        for thread in threads:
            thread.start()
        for turn in range(200):
            router.swap("shop", states[turn % 2])
        for thread in threads:
            thread.join()
    assert len(sent(chosen)) == len(decisions) == 240
    by_id = {state.snapshot_id: state for state in states}
    for decision in decisions:
        state = by_id[decision.snapshot_id]
        assert state.learn_seq == decision.learn_seq
        again = state.learner.policy.evaluate(decision.features, decision.eligible, 0.02)
        assert tuple(again.pmf.tolist()) == decision.pmf


class Companion:
    def __init__(self, log: list[str], name: str) -> None:
        self._log, self._name = log, name

    def status(self) -> dict[str, str]:
        return {"name": self._name}

    def close(self) -> None:
        self._log.append(self._name)


def test_what_runs_beside_is_shown_and_closed_before_the_outbox(tmp_path):
    closed: list[str] = []
    router = edge(settings(tmp_path))
    router.attach("relay", Companion(closed, "relay"))
    router.attach("follower", Companion(closed, "follower"))
    assert router.status()["relay"] == {"name": "relay"}
    router.close()
    assert closed == ["follower", "relay"]
    assert "problem" in router.status()["outbox"]


def test_no_request_touches_what_talks_to_kafka():
    """Deciding and recording name neither the relay nor the follower, nor what holds them."""
    tree = ast.parse(inspect.getsource(module))
    methods = {
        node.name: {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }
    in_requests = set().union(
        *(
            methods[name]
            for name in ("decide", "record", "app_of", "_unlogged", "_remember", "_app_of_outcome")
        )
    )
    assert "_outbox" in in_requests
    assert not in_requests & {"_companions", "_resources", "status", "close", "start", "attach"}


def test_over_sqlite_there_is_nothing_to_route_over(tmp_path):
    chosen = settings(tmp_path)
    events = chosen.events.model_copy(update={"transport": "sqlite"})
    with pytest.raises(ConfigError, match='set it to "kafka"'):
        open_edge(chosen.model_copy(update={"events": events}), embed=False)
