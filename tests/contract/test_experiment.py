"""`bandit-router experiment report|stop`: numbers by unit, a verdict, and an end."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from support.experiments import (
    answered,
    call,
    good,
    judged,
    opened,
    query,
    retried,
    traffic,
    written,
)
from typer.testing import CliRunner

from bandit_router.cli import app as cli
from bandit_router.events import Change
from bandit_router.ope.sequences import Bounds
from bandit_router.rollout.verdict import verdict
from bandit_router.store_ops.exposures import exposed


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = written(tmp_path)
    call(file, "rollout", "set", "50")
    return file


def report(config: Path, *words: str) -> dict:
    return call(config, "experiment", "report", *words)


def test_a_better_bandit_is_found_better_and_what_was_true_is_within_the_intervals(config):
    with opened(config) as router:
        decisions = traffic(router, range(500), good({"new": 0.9, "old": 0.5}))
    found = report(config)
    score, reward = found["measures"]["score"], found["measures"]["reward"]
    assert score["lower"] < 0.4 < score["upper"]
    assert reward["lower"] < 0.4 < reward["upper"]
    assert score["units"] == 500
    assert found["units"] == {
        variant: sum(d.variant == variant for d in decisions) for variant in ("bandit", "static")
    }
    assert found["verdict"]["kind"] == "better"
    assert found["assumes"] == ""


def test_equal_variants_are_not_decided(config):
    with opened(config) as router:
        traffic(router, range(300), good({"new": 0.7, "old": 0.7}))
    assert report(config)["verdict"]["kind"] == "undecided"


def test_before_any_unit_there_is_no_number(config):
    with opened(config) as router:
        router.decide(query(1))
    found = report(config)
    assert found["measures"]["score"]["lower"] is None
    assert (found["verdict"]["kind"], found["waiting"]) == ("undecided", 1)


def test_the_first_open_unit_holds_up_those_behind_it(config):
    answer = good({"new": 1.0, "old": 1.0})
    with opened(config) as router:
        traffic(router, range(10), answer)
        router.decide(query(10))  # never judged
        traffic(router, range(11, 40), answer)
    held = report(config)
    assert (sum(held["units"].values()), held["waiting"]) == (10, 30)
    with opened(config) as router:
        traffic(router, range(70, 71), answer)  # its window is over
    found = report(config)
    assert (sum(found["units"].values()), found["waiting"]) == (41, 0)
    assert (found["measures"]["score"]["units"], found["measures"]["score"]["missing"]) == (40, 1)
    assert "1 of 41 units got no feedback" in found["assumes"]


def test_the_default_score_takes_the_place_of_missing_feedback(tmp_path):
    config = written(tmp_path)
    config.write_text(config.read_text().replace("slack_s", "default_score = 0.25\nslack_s"))
    call(config, "rollout", "set", "50")
    with opened(config) as router:
        traffic(router, range(20), lambda decision, _: [answered(decision)])
        traffic(router, range(100, 101), good({"new": 1.0, "old": 1.0}))
    found = report(config)
    assert found["measures"]["score"]["units"] == 21
    assert found["measures"]["score"]["missing"] == 0


def test_cost_and_escalations_count_without_feedback(config):
    with opened(config) as router:
        traffic(
            router,
            range(60),
            lambda decision, _: (
                retried(decision) if decision.variant == "bandit" else [answered(decision, 0.003)]
            ),
        )
        traffic(router, range(200, 201), good({"new": 1.0, "old": 1.0}))
    measures = report(config)["measures"]
    assert measures["score"]["units"] == 1
    assert measures["cost_usd"]["units"] == measures["escalation_rate"]["units"] == 61
    assert measures["escalation_rate"]["bandit"] == pytest.approx(1.0, abs=0.05)
    assert measures["escalation_rate"]["static"] == pytest.approx(0.0, abs=0.05)
    assert measures["cost_usd"]["static"] == pytest.approx(0.003, abs=0.0002)


def test_a_unit_counts_once_with_its_first_decision(config):
    with opened(config) as router:
        for number in range(60):
            decision = router.decide(query(number, f"user-{number % 20}"))
            router.record([answered(decision), judged(decision, float(number < 20))])
    score = report(config)["measures"]["score"]
    assert (score["units"], score["bandit"], score["static"]) == (20, 1.0, 1.0)


def test_a_pinned_request_is_no_exposure_and_its_unit_counts_with_the_next_one(config):
    with opened(config) as router:
        for number in range(40):
            pinned = router.decide(query(1000 + number, f"user-{number}"), forced="old")
            router.record([answered(pinned, 0.009), judged(pinned, 0.0)])
        traffic(router, range(40), good({"new": 1.0, "old": 1.0}))
    found = report(config)
    assert sum(found["units"].values()) == 40
    assert (found["measures"]["score"]["bandit"], found["measures"]["score"]["static"]) == (
        1.0,
        1.0,
    )
    assert found["capped_costs"] == 0


def test_a_decision_of_an_unknown_variant_does_not_stop_the_report(config):
    with opened(config) as router:
        known = traffic(router, range(20), good({"new": 1.0, "old": 1.0}))[-1]
        odd = msgspec.structs.replace(known, event_id="odd", unit_id="odd", variant="other")
        router.store.append([odd])
        found = exposed(router.store)
    assert (found.split.units, found.not_tested) == (20, 1)


def test_units_of_an_undivided_flag_are_in_no_comparison(tmp_path):
    config = written(tmp_path)
    answer = good({"new": 1.0, "old": 1.0})
    call(config, "rollout", "set", "100")
    with opened(config) as router:
        traffic(router, range(20), answer)
    call(config, "rollout", "off")
    with opened(config) as router:
        traffic(router, range(20, 40), answer)
    assert report(config)["units"] == {"bandit": 0, "static": 0}


def test_a_split_that_is_off_blocks_the_verdict(config):
    with opened(config) as router:
        assigner = router._assigner
        lost = 0
        for number in range(1000):
            if number % 2 and assigner.assign(query(number)).variant == "bandit":
                lost += 1
                continue
            traffic(router, range(number, number + 1), good({"new": 1.0, "old": 0.0}))
    assert lost > 200
    found = report(config)
    assert found["verdict"]["kind"] == "blocked"
    assert "not split as the flag says" in found["verdict"]["sentence"]
    assert found["split_p_value"] < 1e-3


@pytest.mark.parametrize(
    ("score", "cost", "reward", "kind"),
    [
        ((-0.01, 0.03), (-0.002, -0.001), (0.01, 0.05), "cheaper"),
        ((0.01, 0.03), (-0.002, -0.001), (0.01, 0.05), "better"),
        ((-0.09, 0.03), (-0.002, -0.001), (0.01, 0.05), "better"),
        ((-0.09, 0.03), (-0.002, -0.001), (-0.01, 0.05), "undecided"),
        ((-0.01, 0.03), (-0.002, 0.001), (-0.01, 0.05), "undecided"),
        ((-0.09, -0.03), (0.001, 0.002), (-0.10, -0.05), "worse"),
    ],
)
def test_the_verdict_is_what_the_intervals_show(score, cost, reward, kind):
    bounds = [Bounds((a + b) / 2, a, b, 100) for a, b in (score, cost, reward)]
    assert verdict(*bounds, margin=0.02, mismatch=False).kind == kind
    assert verdict(*bounds, margin=0.02, mismatch=True).kind == "blocked"


def test_the_report_is_drawn_for_people(config):
    with opened(config) as router:
        traffic(router, range(300), good({"new": 0.1, "old": 0.9}))
    shown = CliRunner().invoke(cli.app, ["experiment", "report", "--config", str(config)])
    words = " ".join(shown.output.split())
    assert "Worse: the bandit's reward is below that of static by at least" in words
    assert "escalation_rate" in words


@pytest.mark.parametrize(("keep", "variant"), [("static", "static"), ("bandit", "bandit")])
def test_a_stopped_experiment_serves_one_variant_and_the_log_says_why(config, keep, variant):
    call(config, "experiment", "stop", "--keep", keep, "--why", "it is settled")
    with opened(config) as router:
        decisions = traffic(router, range(50), good({"new": 1.0, "old": 1.0}))
        changes = [e for _, e in router.store.read(0, 1000) if isinstance(e, Change)]
    assert {decision.variant for decision in decisions} == {variant}
    assert [change.data["why"] for change in changes] == ["it is settled"]
    call(config, "rollout", "set", "30")
    with opened(config) as router:
        traffic(router, range(50, 51), good({"new": 1.0, "old": 1.0}))
        changes = [e for _, e in router.store.read(0, 1000) if isinstance(e, Change)]
    assert changes[-1].data["why"] == ""


def test_stopping_for_the_bandit_keeps_the_uniform_holdout(config):
    call(config, "rollout", "set", "50", "--explore", "5")
    stopped = call(config, "experiment", "stop", "--keep", "bandit")
    assert stopped["percent"] == {"bandit": 95.0, "shadow": 0.0, "static": 0.0, "explore": 5.0}
