"""The joiner case by case: attribution, escalation, and every reason for setting an event aside."""

from __future__ import annotations

import pytest
from support.streams import completion, decision, escalation, feedback

from bandit_router.errors import ConfigError, SnapshotError
from bandit_router.events import ErrorOutcome, Event
from bandit_router.joiner import Joiner, JoinRules
from bandit_router.reward import Metric
from bandit_router.types import Decision, Interaction

RULES = {"window_s": 100.0, "slack_s": 10.0, "max_jump_s": 50.0}


def joiner(**others) -> Joiner:
    return Joiner(JoinRules(**(RULES | others)))


def join(target: Joiner, *events: Event) -> list[Interaction]:
    rows: list[Interaction] = []
    for event in events:
        rows += target.decision(event) if isinstance(event, Decision) else target.outcome(event)
    return rows


def ticks(target: Joiner, until: float) -> list[Interaction]:
    """Let stream time pass by decisions that do not matter; returns what closes."""
    rows: list[Interaction] = []
    ts = max(target.now, 0.0)
    while ts < until:
        ts = min(ts + 25.0, until)
        rows += target.decision(decision(f"tick-{ts}", ts))
    return [row for row in rows if not row.event_id.startswith("tick")]


def reasons(target: Joiner) -> list[str]:
    return [item.reason for item in target.discarded]


def test_first_closing_closes_when_answer_and_score_are_there():
    target = joiner()
    assert join(target, decision(ts=5.0), completion(ts=6.0)) == []
    (row,) = join(target, feedback(ts=9.0, value=0.75))
    assert (row.event_id, row.score, row.cost_usd, row.latency_s) == ("d", 0.75, 0.004, 0.8)
    assert (row.ts, row.closed_ts, row.learn) == (5.0, 9.0, True)
    assert (row.action, row.propensity, row.pmf) == ("b", 0.5, (0.25, 0.5, 0.25))
    assert target.counts["joined"] == 1


def test_feedback_before_its_decision_waits_for_it():
    target = joiner()
    assert join(target, feedback(), completion()) == []
    (row,) = join(target, decision())
    assert row.score == 1.0
    assert target.counts["early"] == 2


def test_window_closing_waits_and_aggregates():
    target = joiner(closing="window", aggregation="mean")
    votes = [feedback(ts=2.0 + i, value=v, feedback_id=str(i)) for i, v in enumerate((1, 0, 1))]
    assert join(target, decision(), completion(), *votes) == []
    assert ticks(target, 110.0) == []
    (row,) = ticks(target, 110.1)
    assert row.score == pytest.approx(2 / 3)
    assert row.closed_ts == 100.0


def test_a_window_without_feedback_keeps_the_cost_and_has_no_score():
    target = joiner()
    join(target, decision(), completion())
    (row,) = ticks(target, 111.0)
    assert (row.score, row.cost_usd, row.learn) == (None, 0.004, True)
    assert target.counts["expired"] == 1


def test_a_default_score_stands_in_for_missing_feedback():
    target = joiner(default_score=0.5)
    join(target, decision(), completion())
    (row,) = ticks(target, 111.0)
    assert row.score == 0.5


@pytest.mark.parametrize(("required", "learn"), [(True, False), (False, True)])
def test_without_a_completion_nobody_knows_which_model_served(required, learn):
    target = joiner(require_completion=required)
    join(target, decision(), feedback(value=1.0))
    (row,) = ticks(target, 111.0)
    assert (row.score, row.cost_usd, row.learn) == (1.0, None, learn)


def test_a_rescue_is_charged_to_the_model_that_needed_it():
    target = joiner()
    events = [
        decision(),
        escalation(ts=1.0, cost_usd=0.25),
        completion(ts=2.0, model="c", cost_usd=0.5, attempt=2),
        feedback(ts=3.0, value=1.0),
    ]
    (row,) = join(target, *events)
    assert (row.action, row.score, row.cost_usd, row.learn) == ("b", 1.0, 0.75, True)
    assert row.escalations == ("invalid_json",)


def test_a_chain_of_two_rescues_is_followed():
    target = joiner()
    events = [
        decision(action="a", propensity=0.25),
        completion(ts=3.0, model="c", cost_usd=1.0, attempt=3),
        feedback(ts=4.0),
        escalation(ts=2.0, attempt=2, reason="timeout", cost_usd=0.25),
        escalation(ts=1.0, from_model="a", to_model="b", attempt=1, cost_usd=0.125),
    ]
    (row,) = join(target, *events)
    assert (row.cost_usd, row.learn) == (1.375, True)
    assert row.escalations == ("invalid_json", "timeout")


def test_an_answer_waits_for_the_escalations_it_announces():
    target = joiner()
    assert join(target, decision(), completion(model="c", attempt=2), feedback()) == []
    (row,) = join(target, escalation(ts=3.0))
    assert (row.learn, row.closed_ts) == (True, 3.0)


def test_an_unknown_cost_of_one_attempt_makes_the_whole_unknown():
    target = joiner()
    events = [decision(), escalation(cost_usd=None), completion(model="c", attempt=2), feedback()]
    (row,) = join(target, *events)
    assert (row.cost_usd, row.learn) == (None, True)


def test_an_answer_that_the_user_asked_again_for_is_paid_once():
    target = joiner(closing="window")
    join(
        target,
        decision(),
        completion(ts=1.0, cost_usd=0.25, attempt=1),
        escalation(ts=5.0, reason="user_reask", cost_usd=0.25, attempt=1),
        completion(ts=6.0, model="c", cost_usd=0.5, attempt=2),
        feedback(ts=9.0, value=1.0),
    )
    (row,) = ticks(target, 111.0)
    assert (row.cost_usd, row.score, row.escalations) == (0.75, 1.0, ("user_reask",))


def test_the_same_without_attempt_numbers():
    target = joiner(closing="window")
    join(
        target,
        decision(),
        completion(ts=1.0, cost_usd=0.25),
        escalation(ts=5.0, reason="user_reask", cost_usd=0.25),
        completion(ts=6.0, model="c", cost_usd=0.5),
    )
    (row,) = ticks(target, 111.0)
    assert (row.cost_usd, row.learn) == (0.75, True)


@pytest.mark.parametrize("attempt", [1, None])
def test_a_fallback_without_escalation_is_not_learned_from(attempt):
    target = joiner()
    rows = join(target, decision(), completion(model="c", attempt=attempt), feedback())
    rows += ticks(target, 111.0)
    assert [(row.learn, row.score) for row in rows] == [(False, 1.0)]
    assert target.counts["off_action"] == 1


def test_an_escalation_that_does_not_start_at_the_drawn_model_is_not_learned_from():
    target = joiner()
    events = [
        decision(action="a", propensity=0.25),
        escalation(from_model="b"),
        completion(model="c", attempt=2),
        feedback(),
    ]
    (row,) = join(target, *events)
    assert row.learn is False


def test_a_chain_that_does_not_lead_to_the_model_that_served_is_not_learned_from():
    target = joiner()
    events = [decision(), escalation(to_model="c"), completion(model="a", attempt=2), feedback()]
    (row,) = join(target, *events)
    assert row.learn is False


def test_feedback_at_the_very_end_of_the_window_counts():
    target = joiner()
    (row,) = join(target, decision(ts=5.0), completion(ts=6.0), feedback(ts=105.0))
    assert (row.score, row.closed_ts) == (1.0, 105.0)


def test_a_request_without_any_answer_scores_the_error_score():
    target = joiner()
    failed = ErrorOutcome(event_id="d", ts=2.0, model="b", reason="timeout", cost_usd=0.25)
    (row,) = join(target, decision(), failed)
    assert (row.score, row.cost_usd, row.learn) == (0.0, 0.25, True)


def test_the_error_score_can_be_left_unknown():
    target = joiner(error_score=None)
    (row,) = join(target, decision(), ErrorOutcome(event_id="d", ts=2.0, model="b"))
    assert row.score is None


def test_a_forced_choice_is_joined_but_not_learned_from():
    target = joiner()
    forced = decision(eligible=("b",), pmf=(1.0,), propensity=1.0, slice="forced", learn=False)
    (row,) = join(target, forced, completion(), feedback())
    assert (row.learn, row.score) == (False, 1.0)
    assert target.counts["off_action"] == 0


def test_a_withdrawn_feedback_does_not_count():
    target = joiner(closing="window")
    join(
        target,
        decision(),
        completion(),
        feedback(ts=2.0, value=0.0, feedback_id="wrong"),
        feedback(ts=3.0, value=1.0, feedback_id="right"),
        feedback(ts=4.0, feedback_id="oops", retracts="right"),
    )
    (row,) = ticks(target, 111.0)
    assert row.score == 0.0


@pytest.mark.parametrize(
    ("late", "reason"),
    [
        (feedback(ts=100.1, feedback_id="g"), "late"),
        (completion(ts=101.0, attempt=2), "late"),
        (feedback(app="other", feedback_id="g"), "forged_app"),
        (completion(app="other"), "forged_app"),
        (feedback(value=1.5, feedback_id="g"), "forged_value"),
        (feedback(metric="stars", feedback_id="g"), "unknown_metric"),
        (completion(ts=1.5), "duplicate"),
        (decision(ts=0.5), "duplicate"),
    ],
)
def test_what_must_not_be_joined_is_set_aside_with_its_reason(late, reason):
    target = joiner(closing="window")
    join(target, decision(), completion(), feedback(), late)
    assert reasons(target) == [reason]
    assert target.discarded[0].event is late
    assert target.counts[reason] == 1
    (row,) = ticks(target, 111.0)
    assert (row.score, row.cost_usd) == (1.0, 0.004)


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (feedback(), "duplicate"),
        (completion(), "duplicate"),
        (decision(), "duplicate"),
        (feedback(feedback_id="g"), "late"),
        (feedback(feedback_id="g", retracts="f"), "late_retraction"),
        (escalation(), "late"),
    ],
)
def test_what_comes_after_the_closing_is_set_aside_with_its_reason(after, reason):
    target = joiner()
    join(target, decision(), completion(), feedback())
    assert join(target, after) == []
    assert reasons(target) == [reason]


def test_feedback_on_another_model_than_the_one_that_served_is_forged():
    target = joiner()
    rows = join(target, decision(), completion(), feedback(model="a", feedback_id="g"))
    assert rows == []
    (row,) = join(target, feedback(model="b", value=0.25))
    assert row.score == 0.25
    assert reasons(target) == ["forged_model"]


def test_outcomes_whose_decision_never_comes_are_orphans():
    target = joiner()
    join(target, feedback("ghost", ts=0.0), completion("ghost", ts=0.0))
    ticks(target, 110.0)
    assert reasons(target) == []
    ticks(target, 110.1)
    assert reasons(target) == ["orphan", "orphan"]
    assert target.counts["orphan"] == 2


def test_a_metric_that_is_not_the_score_is_accepted_and_not_the_score():
    target = joiner(closing="window")
    join(target, decision(), completion(), feedback(metric="thumbs", value=-1.0))
    (row,) = ticks(target, 111.0)
    assert row.score is None
    assert reasons(target) == []


def test_thumbs_can_be_the_score():
    target = joiner(score_metric="thumbs")
    (row,) = join(target, decision(), completion(), feedback(metric="thumbs", value=-1.0))
    assert row.score == 0.0


def test_too_many_outcomes_of_one_decision_are_set_aside():
    target = joiner(closing="window", max_outcomes=3)
    votes = [feedback(feedback_id=str(i), value=0.5) for i in range(5)]
    join(target, decision(), completion(), *votes)
    assert reasons(target) == ["too_many"] * 3


def test_too_many_open_decisions_close_the_oldest_with_what_it_has():
    target = joiner(max_open=2)
    join(target, decision("1", 0.0), completion("1", 0.5), decision("2", 1.0))
    (row,) = join(target, decision("3", 2.0))
    assert (row.event_id, row.score, row.cost_usd) == ("1", None, 0.004)
    assert target.counts["evicted"] == 1


def test_one_event_far_in_the_future_ends_no_window():
    target = joiner()
    join(target, decision(), completion(), decision("wild", 1e12), feedback("wild", 1e12))
    (row,) = join(target, feedback(ts=50.0))
    assert (row.event_id, row.score) == ("d", 1.0)
    assert target.now == 50.0


def test_a_state_of_other_rules_is_refused():
    with pytest.raises(SnapshotError, match="rules"):
        joiner().load(joiner(closing="window").dump())


@pytest.mark.parametrize("state", [b"", b"\xc0", b"\x81\xa1x\x01", b"garbage" * 100])
def test_a_damaged_state_is_refused(state):
    with pytest.raises(SnapshotError):
        joiner().load(state)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window_s": 0.0}, "window_s"),
        ({"window_s": float("nan")}, "window_s"),
        ({"slack_s": -1.0}, "slack_s"),
        ({"max_jump_s": 5.0}, "max_jump_s"),
        ({"max_open": 0}, "max_open"),
        ({"score_metric": "stars"}, "stars"),
        ({"default_score": 1.5}, "default_score"),
        ({"error_score": -0.1}, "error_score"),
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        JoinRules(**(RULES | wrong))


def test_rules_written_with_integers_or_in_another_order_are_the_same_rules():
    metrics = {"score": Metric(), "accepted": Metric(kind="bool")}
    one = JoinRules(window_s=100, metrics=metrics)
    two = JoinRules(window_s=100.0, metrics=dict(reversed(metrics.items())))
    assert Joiner(one).dump() == Joiner(two).dump()
