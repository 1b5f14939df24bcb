"""A rollout that takes itself back: rails, rollback, restart, and who may switch it on again."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from support.experiments import (
    answered,
    call,
    failed,
    good,
    judged,
    opened,
    query,
    retried,
    traffic,
    written,
)

from bandit_router.adapters.kafka.client import SOURCES
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.adapters.sqlite_stream import Arrival
from bandit_router.cli.app import app as cli
from bandit_router.cli.app import run
from bandit_router.config import load_settings
from bandit_router.errors import ConfigError, SnapshotError
from bandit_router.events import Change, decode, encode
from bandit_router.live import Live
from bandit_router.streaming.applearner import AppLearner
from bandit_router.streaming.learning import plans_of
from bandit_router.streaming.partition import Item
from bandit_router.types import Decision

QUALITY = "[guardrails]\nquality_margin = 0.02\n"
WORSE = good({"new": 0.6, "old": 0.8})
EQUAL = good({"new": 0.7, "old": 0.7})


def config_with(folder: Path, rails: str) -> Path:
    file = written(folder, rails)
    call(file, "rollout", "set", "50")
    return file


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return config_with(tmp_path, QUALITY)


def rollbacks(router: Live) -> list[Change]:
    events = [event for _, event in router.store.read(0, 1_000_000)]
    return [e for e in events if isinstance(e, Change) and e.kind == "rollback"]


def drawn(router: Live) -> list[Decision]:
    events = [event for _, event in router.store.read(0, 1_000_000)]
    return [e for e in events if isinstance(e, Decision) and e.slice != "forced"]


def shown(config: Path) -> dict:
    return call(config, "rollout", "show")


def rolled_back(config: Path, answer=WORSE, seed: int = 0, most: int = 4000) -> int:
    """Traffic until the rollback; how many decisions that took."""
    with opened(config) as router:
        for start in range(0, most, 50):
            traffic(router, range(start, start + 50), answer, seed=seed + start)
            router.commit()
            if rollbacks(router):
                return start + 50
    raise AssertionError("no rollback")


def refused(config: Path, capsys, *words: str) -> str:
    code = run(
        ["rollout", *words, "--config", str(config)],
        lambda arguments: cli(list(arguments), standalone_mode=False),
    )
    assert code == 2
    return " ".join(capsys.readouterr().err.split())


def test_a_bandit_20_points_worse_is_rolled_back_by_itself_under_traffic(config):
    assert rolled_back(config) <= 1500
    assert shown(config)["enabled"] is False
    with opened(config) as router:
        (change,) = rollbacks(router)
        decisions = traffic(router, range(5000, 5050), WORSE)
    assert {decision.variant for decision in decisions} == {"static"}
    assert change.data["rail"] == "quality"
    assert change.data["log_evidence"] >= 5.29  # log(1 / .005)
    assert change.data["row"] > 0
    assert change.data["offset"] > 0
    assert "below that of static by more than 0.02" in change.data["why"]
    document = json.loads((config.parent / "flags.json").read_text())
    assert document["flags"]["bandit-router"]["metadata"]["rollback"].startswith("shop:")


def test_a_rollback_survives_restarts_and_a_flag_that_is_switched_on_behind_its_back(config):
    flags = config.parent / "flags.json"
    before = flags.read_bytes()
    rolled_back(config)
    for _ in range(2):
        flags.write_bytes(before)  # as a deployment tool would do it
        with opened(config) as router:
            router.commit()
            assert shown(config)["enabled"] is False
            assert len(rollbacks(router)) == 1
            assert router.status()["guardrails"]["rolled_back"]["rail"] == "quality"


def test_only_a_person_who_says_so_raises_the_share_again(config, capsys):
    rolled_back(config)
    for words in (["set", "5"], ["set", "0", "--explore", "1"]):
        assert "--after-rollback" in refused(config, capsys, *words)
        assert "below that of static" in refused(config, capsys, *words)
    assert shown(config)["enabled"] is False
    call(config, "rollout", "set", "0")
    assert "--after-rollback" in refused(config, capsys, "set", "1")
    call(config, "rollout", "set", "50", "--after-rollback")
    with opened(config) as router:
        router.commit()
        assert router.status()["guardrails"]["rolled_back"] is None
        decisions = traffic(router, range(5000, 5050), EQUAL)
        assert {d.variant for d in decisions} == {"static", "bandit"}
    assert shown(config)["percent"]["bandit"] == 50.0


def test_after_a_lifted_rollback_the_rails_watch_anew(config):
    once = rolled_back(config)
    call(config, "rollout", "set", "50", "--after-rollback")
    with opened(config) as router:
        router.commit()
        assert router.status()["guardrails"]["rails"]["quality"]["rows"] == 0
        for start in range(10_000, 10_000 + 3 * once, 50):
            traffic(router, range(start, start + 50), WORSE, seed=start)
        router.commit()
        assert len(rollbacks(router)) == 2
    assert shown(config)["enabled"] is False


def test_stopping_for_the_bandit_is_no_way_round_a_rollback(config):
    rolled_back(config)
    error = call(config, "experiment", "stop", "--keep", "static")
    assert error["enabled"] is False
    code = run(
        ["experiment", "stop", "--keep", "bandit", "--config", str(config)],
        lambda arguments: cli(list(arguments), standalone_mode=False),
    )
    assert code == 2
    assert shown(config)["enabled"] is False


def test_once_the_cool_down_is_over_the_share_may_be_raised(tmp_path):
    config = config_with(tmp_path, QUALITY + "cool_down_s = 0.001\n")
    rolled_back(config)
    call(config, "rollout", "set", "20")
    with opened(config) as router:
        router.commit()
        assert router.status()["guardrails"]["rolled_back"] is None
    assert shown(config)["percent"]["bandit"] == 20.0


@pytest.mark.parametrize("seed", range(4))
def test_equal_variants_are_not_rolled_back(config, seed):
    with opened(config) as router:
        traffic(router, range(600), EQUAL, seed=seed)
        router.commit()
        assert rollbacks(router) == []
        assert router.status()["guardrails"]["rails"]["quality"]["rows"] == 600
    assert shown(config)["enabled"] is True


@pytest.mark.parametrize(
    ("rails", "harm", "rail"),
    [
        ("cost_cap_usd = 0.002", lambda d, _: [answered(d, 0.004), judged(d, 1.0)], "cost"),
        ("escalation_limit = 0.1", lambda d, _: [*retried(d), judged(d, 1.0)], "escalations"),
        ("error_limit = 0.1", lambda d, _: [failed(d)], "errors"),
    ],
)
def test_each_rail_gives_way_to_its_own_harm_of_the_bandit_alone(tmp_path, rails, harm, rail):
    config = config_with(tmp_path, f"[guardrails]\n{rails}\n")
    healthy = good({"new": 1.0, "old": 1.0}, {"new": 0.001, "old": 0.001})
    with opened(config) as router:  # the incumbent may do as it likes
        traffic(
            router,
            range(300),
            lambda d, rng: (healthy if d.variant == "bandit" else harm)(d, rng),
        )
        router.commit()
        assert rollbacks(router) == []
        traffic(router, range(300, 1200), harm)
        router.commit()
        (change,) = rollbacks(router)
    assert change.data["rail"] == rail
    assert shown(config)["enabled"] is False


def test_what_callers_pin_is_no_harm_of_the_bandit(tmp_path):
    config = config_with(tmp_path, "[guardrails]\ncost_cap_usd = 0.002\n")
    with opened(config) as router:
        for number in range(60):
            pinned = router.decide(query(number), forced="old")
            router.record([answered(pinned, 0.02), judged(pinned, 1.0)])
        traffic(router, range(60, 120), EQUAL)
        router.commit()
        served = sum(d.variant == "bandit" for d in drawn(router))
        assert router.status()["guardrails"]["rails"]["cost"]["rows"] == served > 0
        assert rollbacks(router) == []


def test_a_flag_file_that_is_broken_is_put_aside(config):
    flags = config.parent / "flags.json"
    with opened(config) as router:
        traffic(router, range(20), WORSE)
        flags.write_text("{")  # routers keep what it said before
        for start in range(20, 3000, 50):
            traffic(router, range(start, start + 50), WORSE, seed=start)
        router.commit()
        assert len(rollbacks(router)) == 1
    assert shown(config)["enabled"] is False
    assert flags.with_name("flags.json.broken").read_text() == "{"


def test_a_flag_file_that_cannot_be_written_is_tried_again_and_said_so(config):
    flags = config.parent / "flags.json"
    with opened(config) as router:
        traffic(router, range(20), WORSE)
        flags.unlink()
        flags.mkdir()  # nothing can be read from it, and nothing renamed onto it
        (flags / "something").touch()
        for start in range(20, 3000, 50):
            traffic(router, range(start, start + 50), WORSE, seed=start)
        router.commit()
        (change,) = rollbacks(router)
        assert "could not be switched off" in change.data["problem"]
        assert "tried again" in router.status()["guardrails"]["problem"]
        (flags / "something").unlink()
        flags.rmdir()
        router.commit()
        assert router.status()["guardrails"]["problem"] == ""
        assert len(rollbacks(router)) == 1
    assert shown(config)["enabled"] is False


def test_what_is_kept_is_what_the_log_gives(config, monkeypatch):
    """A guard that goes on from its kept state has the evidence of one that never stopped."""
    monkeypatch.setattr("bandit_router.store_ops.guarding.KEEP_EVERY", 50)
    with opened(config) as router:
        traffic(router, range(150), EQUAL)
    with opened(config) as router:
        traffic(router, range(150, 300), EQUAL, seed=1)
        router.commit()
        stopped = router.status()["guardrails"]["rails"]
        with router.store.transaction("forget") as connection:
            connection.execute("DELETE FROM guardrails")
            connection.execute("DELETE FROM exposed_units")
    with opened(config) as router:
        router.commit()
        anew = router.status()["guardrails"]["rails"]
    assert stopped["quality"]["rows"] == 300
    assert msgspec.json.encode(stopped) == msgspec.json.encode(anew)


def test_a_damaged_state_is_no_reason_to_forget_a_rollback(config):
    rolled_back(config)
    path = load_settings(config).store.path
    with SqliteStore.open(path) as store, store.transaction("damage") as connection:
        connection.execute("UPDATE guardrails SET value = x'c1'")
    with pytest.raises(SnapshotError, match="the state of the guardrails is damaged"):
        opened(config)


def test_a_unit_that_comes_back_is_not_counted_again(config):
    with opened(config) as router:
        for number in range(90):
            decision = router.decide(query(number, f"user-{number % 30}"))
            router.record([answered(decision), judged(decision, 1.0)])
        router.commit()
        assert router.status()["guardrails"]["rails"]["quality"]["rows"] == 30


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ("quality_margin = 1.5", "less than or equal to 1"),
        ("cost_cap_usd = 0", "greater than 0"),
        ("quality_limit = 0.1", "unknown key"),
    ],
)
def test_guardrails_that_cannot_be_are_refused(tmp_path, section, complaint):
    file = written(tmp_path, f"[guardrails]\n{section}\n")
    with pytest.raises(ConfigError) as refusal:
        load_settings(file)
    assert complaint in str(refusal.value)


def test_guardrails_without_a_flag_file_are_refused(tmp_path):
    file = written(tmp_path, QUALITY)
    text = file.read_text().replace('flags = "flags.json"', 'provider = "a.b:c"')
    file.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load_settings(file)
    assert "need rollout.flags" in str(refusal.value)


def streamed(config: Path, learner: AppLearner, *, order: int) -> None:
    """Everything in the log of the configuration's store, as one batch of the stream."""
    with SqliteStore.open(load_settings(config).store.path, read_only=True) as store:
        events = [event for _, event in store.read(0, 1_000_000)]
    names = {Decision: "decisions", Change: "changes"}
    at, items = dict.fromkeys(SOURCES, 0), []
    for event in events:
        topic = names.get(type(event), "outcomes")
        offset = at[topic]
        at[topic] += 1
        arrival = Arrival(encode(event), event, (at["changes"], at["decisions"], at["outcomes"], 0))
        items.append(Item(topic=topic, offset=offset, arrival=arrival, letter=None))
    learner.take(items, order=order, start=dict.fromkeys(SOURCES, 0), upto=at)


def test_a_learner_on_a_stream_rolls_back_too_and_sends_the_change(tmp_path):
    config = config_with(tmp_path, "")
    with opened(config) as router:
        traffic(router, range(1500), WORSE)
    config = written(tmp_path, QUALITY + f'[events]\nfolder = "{tmp_path}/streaming"\n')
    (plan,) = plans_of(load_settings(config))
    learner = AppLearner.open(plan)
    streamed(config, learner, order=0)
    assert shown(config)["enabled"] is False
    sent = [decode(record.value) for _, record in learner.store.outgoing()]
    assert [(change.kind, change.data["rail"]) for change in sent] == [("rollback", "quality")]
    learner.close()
    call(config, "rollout", "off")
    flags = tmp_path / "flags.json"
    document = json.loads(flags.read_text())
    document["flags"]["bandit-router"]["state"] = "ENABLED"
    flags.write_text(json.dumps(document))
    again = AppLearner.open(plan)
    assert again.guard.alarm is not None
    again.send(Broker())
    assert shown(config)["enabled"] is False
    again.close()


class Broker:
    """Takes what is sent."""

    def send(self, records) -> list[int]:
        return list(range(len(records)))
