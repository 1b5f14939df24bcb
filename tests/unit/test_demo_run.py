"""A demo run: the drop is noticed, a run without one raises no alarm, the reports agree with it."""

from __future__ import annotations

import dataclasses
import json

import msgspec
import numpy as np
import pytest
from support.demo import HashEmbedder, Quiet, embed_ahead, small_log
from support.session import contents

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.bootstrap import make_featurizer
from bandit_router.demo.live import LiveDemo, Record, read_record
from bandit_router.demo.logged import read_observed
from bandit_router.demo.page import regret_sentences, sentences
from bandit_router.demo.run import run_demo
from bandit_router.demo.story import Story, tell
from bandit_router.demo.workspace import DATABASE
from bandit_router.demo.world import make_world
from bandit_router.errors import InputError
from bandit_router.report.document import Interval, decode
from bandit_router.store_ops import explain, rebuild
from bandit_router.types import Decision

LOG = small_log(600)
VALUE = 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo")
    embed_ahead(path, LOG.prompts)
    return path


@pytest.fixture(scope="module")
def watcher():
    return Quiet()


@pytest.fixture(scope="module")
def finished(folder, watcher):
    return run_demo(folder, LOG, watcher, quality_value_usd=VALUE)


def live(path, *, failing: bool, seed: int = 0) -> tuple[LiveDemo, SqliteStore]:
    log = small_log(600, seed)
    table = dataclasses.replace(log, embeddings=HashEmbedder().embed_many(log.prompts))
    world = make_world(table, seed=seed, quality_value_usd=VALUE, failing=failing)
    store = SqliteStore.open(path)
    demo = LiveDemo(store, world, make_featurizer(embed=False), quality_value_usd=VALUE)
    demo.run()
    return demo, store


def test_the_drop_is_noticed_and_the_share_of_the_model_falls(finished, watcher):
    story, recovery = finished.story, finished.story.recovery
    assert story.drop.model == "middle"
    assert [alarm.model for alarm in story.alarms] == ["middle"] == watcher.alarms
    assert 20 <= recovery.alarm_after_queries <= 250, "scores come some 30 queries late"
    assert recovery.share_before > 0.8
    assert recovery.share_after_alarm < 0.4
    assert recovery.halved_after_queries <= 250
    assert recovery.regret_after_alarm < recovery.regret_until_alarm
    assert recovery.reward_kept > 0.03


@pytest.mark.parametrize("seed", range(4))
def test_without_a_drop_no_alarm_is_raised(tmp_path, seed):
    demo, store = live(tmp_path / "a.db", failing=False, seed=seed)
    with store:
        assert demo.record.done == 600
        assert store.changes() == []


def test_a_rebuild_raises_the_alarm_again_and_misses_one_that_was_removed(tmp_path):
    _, store = live(tmp_path / "a.db", failing=True)
    with store:
        found = rebuild(store)
        assert (found.identical, found.changes) == (True, 1)
        store.database.execute("DELETE FROM changes")
        found = rebuild(store)
        assert (found.identical, found.changes_identical, found.rows_identical) == (
            False,
            False,
            True,
        )


def test_every_decision_can_be_explained(folder, finished):
    with SqliteStore.open(folder / DATABASE, create=False) as store:
        record, coming = read_record(store, make_world(LOG, seed=0, quality_value_usd=VALUE))
        assert record.done == 600
        assert coming.arrived(np.inf) == []
        decisions = [event for _, event in store.read(0, 2000) if hasattr(event, "action")]
        for chosen in decisions[:: len(decisions) // 5]:
            assert explain(store, chosen.event_id).identical


def test_the_reports_say_what_the_store_says(folder, finished):
    report = decode((folder / "report.json").read_bytes())
    story = msgspec.json.decode((folder / "demo.json").read_bytes(), type=Story)
    assert (report, story) == (finished.report, finished.story)
    bandit, *fixed = report.runs
    assert (bandit.policy, bandit.queries) == ("bandit", 600)
    assert [run.policy for run in fixed] == ["fixed:small", "fixed:middle", "fixed:large"]
    assert bandit.decisions_per_second > 0
    whole = story.parts[2]
    assert whole.bandit.mean_score == pytest.approx(bandit.mean_score)
    assert whole.hull.mean_score == pytest.approx(bandit.hull_score_at_cost)
    assert story.parts[0].queries + story.parts[1].queries == 600
    assert whole.oracle.mean_reward >= max(line.mean_reward for line in whole.fixed)
    costs = {line.name: line.mean_cost_usd for line in whole.fixed}
    assert story.cost_saved == pytest.approx(1 - whole.bandit.mean_cost_usd / costs["large"])
    page = (folder / "report.html").read_text()
    assert all(figure in page for figure in ("share", "estimated-regret", "score-cost"))
    assert (page.count(">drop<"), page.count(">alarm<")) == (4, 4)


def test_the_true_regret_is_in_the_band_that_the_log_tells(finished):
    curve, run = finished.regret, finished.report.runs[0]
    value, lower, upper, true = curve.last
    assert (curve.lower <= curve.true).all()
    assert (curve.true <= curve.upper).all()
    assert lower <= run.regret.best_fixed <= upper
    assert true == pytest.approx(run.regret.best_fixed, abs=0.02), "the draws' luck is small"
    assert run.estimated_regret.best_fixed == Interval(value=value, lower=lower, upper=upper)
    assert [other.estimated_regret for other in finished.report.runs[1:]] == [None] * 3
    assert f"band {lower:+.4f} to {upper:+.4f}" in regret_sentences(curve)[0]


def test_the_estimate_is_made_of_what_the_store_logged(folder, finished):
    world = make_world(LOG, seed=0, quality_value_usd=VALUE)
    with SqliteStore.open(folder / DATABASE) as store:
        logged, (record, _) = read_observed(store, world), read_record(store, world)
        decisions = [e for _, e in store.read(-1, 10_000) if isinstance(e, Decision)]
    rows = np.arange(600)
    assert logged.places.tolist() == rows.tolist()
    assert logged.choices.actions.tolist() == record.chosen.tolist()
    assert logged.choices.propensities.tolist() == record.propensities.tolist()
    assert logged.choices.pmf.tolist() == [list(decision.pmf) for decision in decisions]
    assert logged.choices.scores.tolist() == world.table.scores[rows, record.chosen].tolist()
    assert logged.choices.costs_usd.tolist() == world.table.costs_usd[rows, record.chosen].tolist()


def test_a_finished_demo_is_read_again_and_nothing_changes(folder, finished):
    before, files = contents(folder / DATABASE), (folder / "report.json").read_bytes()
    (folder / "demo.json").unlink()
    again = run_demo(folder, LOG, Quiet(), quality_value_usd=VALUE)
    assert again.resumed_at == 600
    assert (again.report, again.story) == (finished.report, finished.story)
    assert contents(folder / DATABASE) == before
    assert (folder / "report.json").read_bytes() == files
    assert json.loads((folder / "demo.json").read_text())["queries"] == 600


def test_a_store_of_another_world_is_refused(folder, finished, tmp_path):
    log = small_log(600, seed=5)
    embed_ahead(tmp_path, log.prompts)
    run_demo(tmp_path, log, Quiet(), seed=1, quality_value_usd=VALUE)
    (tmp_path / DATABASE).write_bytes((folder / DATABASE).read_bytes())
    with pytest.raises(InputError, match="not one of this demo's world"):
        run_demo(tmp_path, log, Quiet(), seed=1, quality_value_usd=VALUE)


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough" * 99, b"SQLite format 3\0"]
)
def test_a_broken_database_is_bad_input(tmp_path, content):
    run_settings = {"quality_value_usd": VALUE}
    log = LOG.take(range(30))
    embed_ahead(tmp_path, log.prompts)
    run_demo(tmp_path, log, Quiet(), **run_settings)
    for name in (f"{DATABASE}-wal", f"{DATABASE}-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / DATABASE).write_bytes(content)
    with pytest.raises(InputError, match=DATABASE):
        run_demo(tmp_path, log, Quiet(), **run_settings)
    assert (tmp_path / DATABASE).read_bytes() == content


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_quality_value_out_of_range_is_refused_before_anything_is_made(tmp_path, value):
    with pytest.raises(InputError, match="quality value"):
        run_demo(tmp_path / "out", LOG, Quiet(), quality_value_usd=value)
    assert not (tmp_path / "out").exists()


def test_the_story_of_a_run_that_never_noticed():
    world = make_world(LOG, seed=0, quality_value_usd=VALUE)
    record = Record.empty(600)
    record.chosen[:] = 1
    record.done = 600
    story = tell(world, record, [], VALUE)
    recovery = story.recovery
    assert (recovery.alarm_after_queries, recovery.halved_after_queries) == (None, None)
    assert (recovery.share_before, recovery.share_end, recovery.share_after_alarm) == (1, 1, None)
    assert recovery.reward_kept == 0.0
    reward = world.table.scores[300:] - world.table.costs_usd[300:] / VALUE
    lost = reward.mean(axis=0).max() - reward[:, 1].mean()
    assert recovery.regret_until_alarm == pytest.approx(lost)
    text = " ".join(sentences(story))
    assert "No drift alarm was raised" in text
    assert "never fell to half" in text
