"""A rollout from end to end: routers under traffic, while somebody edits the flag file."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bandit_router.adapters.interactions import read_interactions
from bandit_router.adapters.outbox import Outbox
from bandit_router.adapters.vocabulary import Vocabulary
from bandit_router.assigning import FLAG_OFF, open_assigner
from bandit_router.bootstrap import make_featurizer
from bandit_router.cli import app as cli
from bandit_router.config import Settings, load_settings
from bandit_router.errors import ConfigError, InputError
from bandit_router.events import Change, Completion, Feedback, decode
from bandit_router.live import Live, open_live, recipe_of
from bandit_router.store_ops import explain, rebuild
from bandit_router.streaming.edge import OUTBOX_UNAVAILABLE, Edge
from bandit_router.types import Context, Decision

CONFIG = """
[app]
name = "shop"
safe_model = "dear"
[policy]
name = "linucb"
quality_value_usd = 0.02
[rollout]
flags = "flags.json"
incumbent = "middle"
[store]
path = "log.db"
[events]
outbox = "outbox.db"
shards = 2
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
UNITS = 400


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(CONFIG)
    return file


def rollout(config: Path, *words: str) -> dict:
    """`bandit-router rollout ...` as a person would call it."""
    result = CliRunner().invoke(cli.app, ["rollout", *words, "--config", str(config), "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def query(number: int, unit_id: str = "") -> Context:
    vector = np.random.default_rng(number % 50).standard_normal(384)
    return Context(
        event_id=f"e{number}",
        ts=float(number),
        prompt="?",
        embedding=(vector / np.linalg.norm(vector)).astype(np.float32),
        unit_id=unit_id,
    )


def edge(settings: Settings, **options) -> Edge:
    featurizer = make_featurizer(settings.features, embed=False)
    outbox = Outbox.open(settings.events.outbox, max_events=100_000)
    recipe = recipe_of(settings, featurizer)
    return Edge(settings, featurizer, recipe, outbox, assigner=open_assigner(settings), **options)


def live(config: Path) -> Live:
    return open_live(load_settings(config), embed=False)


def one_round(router: Live | Edge, numbers: itertools.count) -> dict[str, str]:
    """One request of every unit, and the variant it was served in."""
    return {
        unit: router.decide(query(next(numbers), unit)).variant
        for unit in (f"user-{n}" for n in range(UNITS))
    }


def wait_for(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def follows(router: Live | Edge, version: str) -> bool:
    return router.status()["rollout"]["version"] == version


def logged(settings: Settings) -> list[tuple[str, str, object]]:
    with Outbox.open(settings.events.outbox) as outbox:
        return [
            (item.record.topic, item.record.key, decode(item.record.value))
            for item in outbox.read(0, 100_000)
        ]


def test_from_5_to_50_percent_by_editing_the_file_under_traffic(config):
    rollout(config, "set", "5", "--explore", "2")
    settings, numbers = load_settings(config), itertools.count()
    with edge(settings) as router:
        before = one_round(router, numbers)
        now = rollout(config, "set", "50")
        assert now["moved"] == {"static>bandit": pytest.approx(45.0)}
        wait_for(lambda: follows(router, now["version"]))
        after = one_round(router, numbers)
        assert one_round(router, numbers) == after
    assert list(before.values()).count("bandit") < UNITS * 0.1
    assert UNITS * 0.4 < list(after.values()).count("bandit") < UNITS * 0.6
    moved = {(before[unit], after[unit]) for unit in before if before[unit] != after[unit]}
    assert moved == {("static", "bandit")}


def test_the_kill_switch_acts_within_2_s_in_every_router_under_traffic(config):
    """Four threads of two routers decide without a pause while the flag is switched off."""
    rollout(config, "set", "100")
    settings, numbers = load_settings(config), itertools.count()
    other_folder = config.parent / "other"
    other_folder.mkdir()
    others = settings.model_copy(
        update={"events": settings.events.model_copy(update={"outbox": other_folder / "outbox.db"})}
    )
    decided: list[tuple[float, str, tuple[str, ...]]] = []
    stop = threading.Event()

    def traffic(router: Edge) -> None:
        while not stop.is_set():
            number = next(numbers)
            started = time.monotonic()
            decision = router.decide(query(number, f"user-{number % UNITS}"))
            decided.append((started, decision.variant, decision.rules))

    with edge(settings) as one, edge(others) as two:
        threads = [threading.Thread(target=traffic, args=(r,)) for r in (one, one, two, two)]
        for thread in threads:
            thread.start()
        try:
            wait_for(lambda: len(decided) > 100)
            rollout(config, "off")
            switched = time.monotonic()
            wait_for(lambda: decided[-1][0] > switched + 2.5)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    late = [entry for entry in decided if entry[0] > switched + 2.0]
    assert {variant for started, variant, _ in decided if started < switched - 1.0} <= {"bandit"}
    assert {(variant, rules[0]) for _, variant, rules in late} == {("static", FLAG_OFF)}
    for chosen in (settings, others):
        log = [event for topic, key, event in logged(chosen) if key == "shop/0"]
        off = next(
            place
            for place, event in enumerate(log)
            if isinstance(event, Change) and event.data["enabled"] is False
        )
        under_it = [isinstance(event, Decision) and FLAG_OFF in event.rules for event in log]
        assert not any(under_it[:off]), "a decision was logged before the change it was made under"
        assert any(under_it[off:])


def test_each_change_of_the_flag_is_logged_once_for_every_shard(config):
    rollout(config, "set", "5")
    settings = load_settings(config)
    with edge(settings) as router:
        router.decide(query(1, "u"))
        version = rollout(config, "set", "10")["version"]
        wait_for(lambda: follows(router, version))
        router.decide(query(2, "u"))
        router.decide(query(3, "u"))
    changes = [(key, event.data) for topic, key, event in logged(settings) if topic == "changes"]
    assert [key for key, _ in changes] == ["shop/0", "shop/1"] * 2
    assert changes[0][1]["previous"] is None
    assert changes[2][1]["moved"] == {"static>bandit": pytest.approx(5.0)}


@pytest.mark.parametrize("how", ["broken", "lacking", "vanished"])
def test_a_file_that_goes_bad_under_traffic_changes_nothing_and_is_said(config, how):
    rollout(config, "set", "30")
    file, numbers = config.parent / "flags.json", itertools.count()
    with live(config) as router:
        before = one_round(router, numbers)
        if how == "vanished":
            file.unlink()
        else:
            good = file.read_text()
            file.write_text(good[:40] if how == "broken" else good.replace('"static": ', '"x": '))
        wait_for(lambda: router.status()["rollout"]["problem"] != "")
        assert one_round(router, numbers) == before
        assert router.status()["rollout"]["refused_files"] == 1
        rollout(config, "off")  # the kill switch works on such a file too
        wait_for(lambda: router.status()["rollout"]["problem"] == "")
        assert set(one_round(router, numbers).values()) == {"static"}


def test_a_bad_file_at_the_start_is_a_clear_error_and_feedback_still_works(config):
    rollout(config, "set", "30")
    with live(config) as router:
        router.decide(query(1, "u"))
    (config.parent / "flags.json").write_text("{")
    with pytest.raises(ConfigError, match=r"flags\.json: not a JSON file"):
        live(config)
    with open_live(load_settings(config), embed=False, deciding=False) as router:
        router.record([judged("e1")])
        with pytest.raises(InputError, match="without its rollout"):
            router.decide(query(2, "u"))


def test_a_restart_keeps_the_variants_and_logs_no_change(config):
    rollout(config, "set", "30")
    numbers = itertools.count()
    with live(config) as router:
        before = one_round(router, numbers)
    with live(config) as router:
        assert one_round(router, numbers) == before
        assert len(flag_changes(router)) == 1
    rollout(config, "set", "40")  # while nothing runs
    with live(config) as router:
        one_round(router, numbers)
        assert [change.data["percent"]["bandit"] for change in flag_changes(router)] == [30, 40]


def test_without_an_outbox_nobody_explores_and_the_variant_stays(config):
    rollout(config, "set", "0", "--explore", "100")
    settings = load_settings(config)
    settings = settings.model_copy(
        update={"events": settings.events.model_copy(update={"outbox_max_events": 1})}
    )
    featurizer = make_featurizer(settings.features, embed=False)
    outbox = Outbox.open(settings.events.outbox, max_events=1)
    recipe = recipe_of(settings, featurizer)
    with Edge(settings, featurizer, recipe, outbox, assigner=open_assigner(settings)) as router:
        decision = router.decide(query(1, "u"))
    assert (decision.action, decision.variant, decision.slice) == ("dear", "explore", "forced")
    assert OUTBOX_UNAVAILABLE in decision.rules


def judged(event_id: str, value: float = 1.0, ts: float = 1.0) -> Feedback:
    return Feedback(
        event_id=event_id, ts=ts, app="shop", metric="score", value=value, feedback_id="f"
    )


def answered(decision: Decision) -> Completion:
    return Completion(
        event_id=decision.event_id,
        ts=decision.ts,
        app="shop",
        model=decision.action,
        cost_usd=0.002,
        attempt=1,
    )


def flag_changes(router: Live) -> list[Change]:
    return [
        event
        for _, event in router.store.read(0, 100_000)
        if isinstance(event, Change) and event.kind == "flag_changed"
    ]


def run_everything(config: Path) -> list[Decision]:
    """60 requests, answered and judged, over all four variants."""
    rollout(config, "set", "25", "--shadow", "25", "--explore", "25")
    decisions = []
    with live(config) as router:
        for number in range(60):
            decision = router.decide(query(number, f"user-{number}"))
            router.record([answered(decision), judged(decision.event_id, number % 2, number)])
            decisions.append(decision)
    assert {d.variant for d in decisions} == {"bandit", "shadow", "static", "explore"}
    return decisions


def test_only_what_was_drawn_is_learned_and_evaluated(config):
    decisions = run_everything(config)
    drawn = {d.event_id for d in decisions if d.variant in {"bandit", "explore"}}
    with live(config) as router:
        rows = {row.event_id: row for _, row in router.store.rows()}
        store = router.store.path
        assert {event_id for event_id, row in rows.items() if row.learn} == drawn
    left_out: Counter[str] = Counter()
    batches = list(read_interactions(store, Vocabulary(), left_out))
    assert sum(batch.propensity.size for batch in batches) == len(drawn)
    assert left_out == {"forced": 60 - len(drawn)}


def test_every_variant_is_explained_and_rebuilt_to_the_bit(config):
    decisions = run_everything(config)
    with live(config) as router:
        for decision in decisions:
            explained = explain(router.store, decision.event_id)
            assert explained.identical, (decision.variant, explained)
            assert ("would have drawn" in explained.drawn_by) == (decision.variant == "shadow")
        assert rebuild(router.store).identical


def experiment(config: Path) -> dict:
    result = CliRunner().invoke(
        cli.app, ["experiment", "status", "--config", str(config), "--json"]
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_the_decisions_say_who_was_exposed_to_what(config):
    rollout(config, "set", "5", "--explore", "2")
    numbers = itertools.count()
    with live(config) as router:
        before = one_round(router, numbers)
    rollout(config, "set", "50")
    with live(config) as router:
        after = one_round(router, numbers)
        later = [f"late-{n}" for n in range(100)]
        for unit in later:
            router.decide(query(next(numbers), unit))
    found = experiment(config)
    variants = found["variants"]
    moved = [unit for unit in before if before[unit] != after[unit]]
    assert found["units_moved"] == len(moved) > 0
    for variant in ("bandit", "static", "explore"):
        were = {unit for unit in before if variant in (before[unit], after[unit])}
        assert len(were) <= variants[variant]["units"] <= len(were) + len(later)
    assert sum(row["first_exposures"] for row in variants.values()) == UNITS + len(later)
    assert sum(row["decisions"] for row in variants.values()) == 2 * UNITS + len(later)
    assert variants["bandit"]["expected"] == pytest.approx(0.05 * UNITS + 0.5 * len(later))
    assert not found["sample_ratio"]["mismatch"]


def test_requests_that_get_lost_in_one_variant_are_noticed(config):
    """A client that gives up on half of the bandit's units before they are decided."""
    rollout(config, "set", "50")
    assigner = open_assigner(load_settings(config))
    variants = {f"u{n}": assigner.assign(query(n, f"u{n}")).variant for n in range(1000)}
    assigner.close()
    lost = {unit for n, unit in enumerate(variants) if variants[unit] == "bandit" and n % 2}
    with live(config) as router:
        for number, unit in enumerate(variants):
            if unit not in lost:
                router.decide(query(number, unit))
    found = experiment(config)["sample_ratio"]
    assert found["mismatch"]
    assert found["p_value"] < 1e-3
    shown = CliRunner().invoke(cli.app, ["experiment", "status", "--config", str(config)])
    assert "do not compare the variants" in " ".join(shown.output.split())


def test_units_served_by_a_switched_off_flag_are_not_tested(config):
    rollout(config, "set", "50")
    rollout(config, "off")
    with live(config) as router:
        for number in range(50):
            router.decide(query(number, f"u{number}"))
    found = experiment(config)
    assert found["variants"]["static"]["units"] == 50
    assert (found["sample_ratio"]["units"], found["sample_ratio"]["not_tested"]) == (0, 50)
