"""The live loop over a store: every setting is honoured, nothing is lost or learned twice."""

from __future__ import annotations

import hashlib
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.config import Settings, load_settings
from bandit_router.errors import ConfigError, EventError, InputError, SnapshotError, StorageError
from bandit_router.events import Change, Completion, Feedback
from bandit_router.live import Live, Receipt, open_live
from bandit_router.router import Router
from bandit_router.store_ops import explain, rebuild
from bandit_router.types import Context

MODELS = """
[[models]]
model = "cheap"
expected_cost_usd = 0.001
[[models]]
model = "dear"
expected_cost_usd = 0.01
"""

EXTRA = """
[[models]]
model = "extra"
expected_cost_usd = 0.003
"""


def settings(folder: Path, text: str = "", models: str = MODELS) -> Settings:
    """Settings with a fast policy, over a store in ``folder``."""
    if "[policy]" not in text:
        text += '\n[policy]\nname = "linucb"\n'
    file = folder / "config.toml"
    file.write_text(text + models)
    return load_settings(file).with_store(folder / "bandit-router.db")


def live(folder: Path, text: str = "", **options) -> Live:
    return open_live(settings(folder, text), embed=False, wait_s=0.0, **options)


def query(number: int) -> Context:
    vector = np.random.default_rng(number).standard_normal(384)
    return Context(
        event_id=f"e{number}",
        ts=float(number),
        prompt=f"question {number}?",
        embedding=(vector / np.linalg.norm(vector)).astype(np.float32),
    )


def answer(event_id: str, model: str, cost_usd: float = 0.002, ts: float = 1.0) -> Completion:
    return Completion(event_id=event_id, ts=ts, model=model, cost_usd=cost_usd, attempt=1)


def judged(event_id: str, value: float = 1.0, metric: str = "score", ts: float = 1.0) -> Feedback:
    return Feedback(event_id=event_id, ts=ts, metric=metric, value=value, feedback_id="f")


def step(running: Live, number: int, *, cost_usd: float = 0.002) -> Receipt:
    """One query, decided, answered, judged."""
    decision = running.decide(query(number))
    ts = float(number)
    completion = answer(decision.event_id, decision.action, cost_usd, ts)
    return running.report(decision.event_id, [completion, judged(decision.event_id, ts=ts)])


def test_what_is_answered_and_judged_is_learned(tmp_path):
    with live(tmp_path) as running:
        receipts = [step(running, number) for number in range(5)]
        assert [receipt.learn_seq for receipt in receipts] == [1, 2, 3, 4, 5]
        assert {receipt.status for receipt in receipts} == {"learned"}
        assert running.decide(query(5)).learn_seq == 5


def test_a_decision_waits_for_what_is_missing(tmp_path):
    with live(tmp_path) as running:
        decision = running.decide(query(1))
        first = running.report("e1", [judged("e1")])
        assert (first.status, first.waits_for) == ("waiting", ("answer",))
        second = running.report("e1", [answer("e1", decision.action)])
        assert (second.status, second.learn_seq) == ("learned", 1)
        third = running.report("e1", [judged("e1")])
        assert (third.status, third.refused) == ("refused", ("duplicate",))


def test_with_window_closing_a_decision_waits_for_the_window(tmp_path):
    with live(tmp_path, '[joiner]\nclosing = "window"\n') as running:
        receipt = step(running, 1)
        assert (receipt.status, receipt.waits_for) == ("waiting", ("window",))


def test_another_model_than_the_drawn_one_is_joined_and_not_learned(tmp_path):
    with live(tmp_path) as running:
        decision = running.decide(query(1))
        other = {"cheap": "dear", "dear": "cheap"}[decision.action]
        receipt = running.report("e1", [answer("e1", other), judged("e1")])
        assert receipt.status == "joined"
        assert receipt.interaction is not None
        assert not receipt.interaction.learn


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (judged("nobody"), "no decision 'nobody'"),
        (judged("e1", metric="mood"), r"metric 'mood' is not one of .*: accepted, score, thumbs"),
        (judged("e1", 1.5), "takes 0 to 1"),
        (judged("e1", 0.5, "thumbs"), "takes -1, 0 or 1"),
        (judged("e1", 0.5, "accepted"), "takes 0 or 1"),
        (judged("e1", float("nan")), "takes 0 to 1"),
        (answer("e1", "cheap", -1.0), "cost_usd: -1.0 is negative"),
        (answer("e1", "cheap", float("inf")), "is not a finite float"),
    ],
)
def test_what_could_never_be_joined_is_refused_and_not_logged(tmp_path, outcome, words):
    with live(tmp_path) as running:
        running.decide(query(1))
        with pytest.raises(InputError, match=words):
            running.record([answer("e1", "cheap"), outcome])
        assert running.store.last_offset() == 1


def test_an_event_id_is_decided_once(tmp_path):
    with live(tmp_path) as running:
        running.decide(query(1))
        with pytest.raises(InputError, match="has a decision 'e1' already"):
            running.decide(query(1))
        with pytest.raises(EventError):
            running.decide(Context(event_id="", ts=0.0, embedding=query(1).embedding))
        assert running.store.last_offset() == 1


def test_a_store_goes_on_where_it_stopped_with_or_without_a_commit(tmp_path):
    """The same bytes whether one process ran, several did, or each one died before its commit."""
    stores = {}
    for way in ("whole", "closed", "killed"):
        folder = tmp_path / way
        folder.mkdir()
        text = "[snapshots]\nevery = 4\n"
        running = live(folder, text)
        for number in range(10):
            step(running, number)
            if way == "closed":
                running.close()
                running = live(folder, text)
            elif way == "killed":
                running._resources.close()  # the store, without what was not committed
                running = live(folder, text)
        running.close()
        with SqliteStore.open(folder / "bandit-router.db", create=False) as store:
            found = rebuild(store)
            assert found.identical
            assert (found.learn_seq, found.rows) == (8, 10)
            assert all(explain(store, f"e{number}").identical for number in range(10))
            stores[way] = store.snapshot_ids(), list(store.row_payloads(0, None))
    assert stores["whole"] == stores["closed"] == stores["killed"]


def test_events_that_somebody_else_appended_come_first(tmp_path):
    with live(tmp_path) as running, SqliteStore.open(tmp_path / "bandit-router.db") as other:
        first = running.decide(query(1))
        other.append([answer("e1", first.action), judged("e1")])
        assert step(running, 2).learn_seq == 2
        running.commit()
        assert rebuild(other).identical


def test_a_full_disk_at_a_commit_loses_nothing(tmp_path, monkeypatch):
    with live(tmp_path) as running:
        commits = running.store.commit_steps
        monkeypatch.setattr(running.loop.sink._sink, "_max_steps", 1)

        def full(*_, **__):
            raise StorageError("disk full")

        monkeypatch.setattr(running.store, "commit_steps", full)
        assert step(running, 1).status == "learned"
        with pytest.raises(StorageError, match="disk full"):
            running.commit()
        monkeypatch.setattr(running.store, "commit_steps", commits)
        assert step(running, 2).learn_seq == 2
        assert running.store.last_learn_seq() == 2
        assert rebuild(running.store).identical


def test_prompts_are_logged_only_when_asked_for(tmp_path):
    for flag, expected in (("false", None), ("true", "question 1?")):
        folder = tmp_path / flag
        folder.mkdir()
        with live(folder, f"[app]\nlog_prompts = {flag}\n") as running:
            running.decide(query(1))
            stored = running.store.decision("e1")
            assert stored is not None
            assert stored.prompt == expected
            assert stored.prompt_digest == hashlib.sha256(b"question 1?").hexdigest()


def test_the_safe_model_serves_when_the_policy_has_no_usable_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(Router, "_evaluate", lambda *_: None)
    with live(tmp_path, '[app]\nsafe_model = "dear"\n') as running:
        decision = running.decide(query(1))
        assert (decision.action, decision.slice) == ("dear", "forced")
        receipt = running.report("e1", [answer("e1", "dear"), judged("e1")])
        assert receipt.status == "joined"


def test_a_budget_moves_the_quality_value_and_its_state_is_kept(tmp_path):
    text = '[policy]\nname = "linucb"\nbudget_usd_per_query = 0.001\n'
    with live(tmp_path, text) as running:
        start = running.quality_value_usd
        assert start == pytest.approx(0.01)
        for number in range(5):
            step(running, number, cost_usd=0.01)
        moved = running.quality_value_usd
        assert moved < 0.9 * start
    with live(tmp_path, text) as again:
        assert again.quality_value_usd == moved
        assert again.decide(query(9)).quality_value_usd == moved


def test_without_a_budget_the_quality_value_is_the_configured_one_each_time(tmp_path):
    policy = '[policy]\nname = "linucb"\nquality_value_usd = {}\n'
    for number, value in enumerate((0.5, 0.02)):
        with live(tmp_path, policy.format(value)) as running:
            step(running, number, cost_usd=0.01)
            stored = running.store.decision(f"e{number}")
            assert stored is not None
            assert stored.quality_value_usd == value
    with SqliteStore.open(tmp_path / "bandit-router.db") as store:
        assert rebuild(store).identical
        assert all(explain(store, event_id).identical for event_id in ("e0", "e1"))


def test_snapshots_come_as_often_and_stay_as_many_as_configured(tmp_path):
    with live(tmp_path, "[snapshots]\nevery = 2\nkeep = 2\n") as running:
        for number in range(9):
            step(running, number)
        running.commit()
        found = [int(name.split("-")[0]) for name in running.store.snapshot_ids()]
    assert found == [8, 6, 0], "the newest two and the first"


KEY = "k" * 16


def test_the_key_signs_snapshots(tmp_path, monkeypatch):
    monkeypatch.setenv("BANDIT_ROUTER_SNAPSHOTS__HMAC_KEY", KEY)
    with live(tmp_path) as running:
        step(running, 1)
    with SqliteStore.open(tmp_path / "bandit-router.db") as store:
        (name,) = store.snapshot_ids()
        assert store.snapshot(name, key=KEY.encode()).id == name
        with pytest.raises(SnapshotError, match="HMAC is wrong"):
            store.snapshot(name, key=b"another key, 16+")
    monkeypatch.setenv("BANDIT_ROUTER_SNAPSHOTS__HMAC_KEY", "another key, 16+")
    with pytest.raises(ConfigError, match=r"none of its 1 snapshots verifies .*hmac_key; give"):
        live(tmp_path)
    monkeypatch.delenv("BANDIT_ROUTER_SNAPSHOTS__HMAC_KEY")
    with pytest.raises(ConfigError, match="its snapshots are signed; give their key"):
        live(tmp_path)


def test_a_key_is_not_begun_with_on_an_unsigned_store(tmp_path, monkeypatch):
    with live(tmp_path) as running:
        step(running, 1)
    monkeypatch.setenv("BANDIT_ROUTER_SNAPSHOTS__HMAC_KEY", KEY)
    with pytest.raises(ConfigError, match=r"none of its 1 snapshots verifies .*hmac_key; give"):
        live(tmp_path)


def test_full_synchronous_reaches_the_database(tmp_path):
    for name, level in (("normal", 1), ("full", 2)):
        with live(tmp_path, f'[store]\nsynchronous = "{name}"\n') as running:
            assert list(running.store.database.query("PRAGMA synchronous")) == [
                {"synchronous": level}
            ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[app]\nsalt = "other"\n', r"app.salt is 'other', .* made with 'bandit-router'"),
        ('[app]\nname = "other"\n', r"app.name \('default' stored, 'other' configured\)"),
        ('[policy]\nname = "uniform"\n', r"policy.name \('linucb' stored, 'uniform' configured\)"),
        ('[policy]\nname = "linucb"\nseed = 3\n', r"policy.seed \(0 stored, 3 configured\)"),
        (
            '[policy]\nname = "linucb"\nbudget_usd_per_query = 0.1\n',
            r"policy.budget_usd_per_query \(None stored, 0.1 configured\)",
        ),
        ("[joiner]\nwindow_s = 5\n", r"\[joiner\] window_s"),
        ("[features]\ncomponents = 8\n", r"features.components \(\d+ stored, \d+ configured\)"),
    ],
)
def test_a_store_that_was_made_with_other_settings_is_refused(tmp_path, text, words):
    with live(tmp_path) as running:
        step(running, 1)
    with pytest.raises(ConfigError, match=words) as refused:
        live(tmp_path, text)
    assert "set store.path to a new file" in str(refused.value)
    with live(tmp_path) as running:
        assert step(running, 2).learn_seq == 2


CHEAPER = MODELS.replace("0.01\n", "0.005\n")
REPLACED = MODELS.replace("dear", "new")


@pytest.mark.parametrize("models", [CHEAPER, REPLACED, MODELS + EXTRA])
def test_a_changed_catalog_is_logged_and_learned_and_rebuilt(tmp_path, models):
    with live(tmp_path) as running:
        step(running, 1)
    changed = settings(tmp_path, models=models)
    for number in (2, 3):  # the second time there is nothing left to change
        with open_live(changed, embed=False) as running:
            decision = running.decide(query(number))
            assert decision.eligible == changed.catalog.names
            assert running.loop.learner.catalog == changed.catalog
    with SqliteStore.open(tmp_path / "bandit-router.db") as store:
        kinds = [row.kind for _, row in store.rows() if isinstance(row, Change)]
        wanted = {CHEAPER: ["model_repriced"], REPLACED: ["model_added", "model_removed"]}
        assert kinds == wanted.get(models, ["model_added"])
        assert rebuild(store).identical
        assert explain(store, "e3").identical


def test_a_new_model_may_be_the_safe_one(tmp_path):
    with live(tmp_path) as running:
        step(running, 1)
    text = '[app]\nsafe_model = "extra"\n'
    with open_live(settings(tmp_path, text, MODELS + EXTRA), embed=False) as running:
        assert "extra" in running.decide(query(2)).eligible


def test_an_option_that_is_no_scalar_is_refused_before_a_store_is_made(tmp_path):
    text = '[policy]\nname = "linucb"\noptions = { alpha = [1, 2] }\n'
    with pytest.raises(ConfigError, match=r"policy\.options\.alpha"):
        live(tmp_path, text)
    assert not (tmp_path / "bandit-router.db").exists()


def test_a_missing_store_is_not_made_unless_wanted(tmp_path):
    with pytest.raises(InputError, match="no such database"):
        live(tmp_path, create=False)
    assert not list(tmp_path.glob("*.db*"))


def test_a_second_loop_on_the_store_fails_cleanly(tmp_path):
    with live(tmp_path) as running:
        step(running, 1)
        with pytest.raises(StorageError, match="another process is learning on it") as refused:
            live(tmp_path)
        assert refused.value.retriable
        assert step(running, 2).learn_seq == 2
    with live(tmp_path) as running:
        assert step(running, 3).learn_seq == 3


def _work(folder: str, numbers: range) -> None:
    for number in numbers:
        with open_live(settings(Path(folder)), embed=False, wait_s=60.0) as running:
            step(running, number)


def test_processes_that_share_a_store_take_turns(tmp_path):
    settings(tmp_path)
    spawn = multiprocessing.get_context("spawn")
    jobs = [
        spawn.Process(target=_work, args=(str(tmp_path), range(start, start + 4)))
        for start in (0, 10)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    assert [job.exitcode for job in jobs] == [0, 0]
    with SqliteStore.open(tmp_path / "bandit-router.db") as store:
        assert store.last_learn_seq() == 8
        assert rebuild(store).identical
