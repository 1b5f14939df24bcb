"""What is logged in each variant: the propensity of what served, and never a draw that was not."""

from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
import pytest
from support.streams import MODELS, SALT, NoFeaturizer, catalog, features

from bandit_router.eligibility import DenyList, Eligibility
from bandit_router.errors import DecisionError
from bandit_router.events import decode, encode
from bandit_router.policy.base import sample
from bandit_router.rollout.variants import Assignment, would_be
from bandit_router.router import Router
from bandit_router.types import Context, Evaluation

INCUMBENT = MODELS[2]


class Preferring:
    """Nearly always the second model."""

    name = "preferring"
    failing = False

    def evaluate(self, given, eligible, quality_value_usd):
        if self.failing:
            raise DecisionError("damaged")
        k = len(eligible)
        best = eligible.index(MODELS[1]) if MODELS[1] in eligible else 0
        pmf = np.full(k, 0.02 / k)
        pmf[best] += 0.98
        return Evaluation(
            pmf=pmf,
            epsilon=0.02,
            score=np.linspace(0.2, 0.8, k),
            cost_usd=np.linspace(0.1, 0.2, k),
            utility=np.zeros(k),
        )


def router(policy=None, **options) -> Router:
    defaults = {"salt": SALT, "quality_value_usd": lambda: 0.5}
    return Router(policy or Preferring(), NoFeaturizer(), catalog(), **(defaults | options))


def decide(target: Router, variant: str, number: int = 0, **options):
    context = Context(event_id=f"d{number}", ts=1.0, prompt="?", unit_id="given", tenant="t")
    assignment = Assignment(unit_id="u", variant=variant, incumbent=INCUMBENT, rules=("why",))
    decision = target.decide(context, features=features(), assignment=assignment, **options)
    assert encode(decode(encode(decision))) == encode(decision)  # within wire schema 1
    return decision


@pytest.mark.parametrize("variant", ["static", "shadow", "bandit", "explore"])
def test_every_decision_is_its_own_exposure_record(variant):
    chosen = decide(router(), variant)
    assert (chosen.unit_id, chosen.variant) == ("u", variant)
    assert chosen.rules[0] == "why"


def test_in_static_the_incumbent_serves_and_nothing_is_learned():
    chosen = decide(router(), "static")
    assert (chosen.action, chosen.propensity, chosen.slice) == (INCUMBENT, 1.0, "forced")
    assert (chosen.eligible, chosen.pmf, chosen.learn) == ((INCUMBENT,), (1.0,), False)


def test_in_shadow_the_incumbent_serves_and_the_draw_stands_beside_it():
    target, policy = router(), Preferring()
    for number in range(50):
        chosen = decide(target, "shadow", number)
        drawn = decide(target, "bandit", number)
        assert (chosen.action, chosen.propensity, chosen.slice) == (INCUMBENT, 1.0, "forced")
        assert not chosen.learn
        assert (chosen.eligible, chosen.pmf, chosen.epsilon) == (
            drawn.eligible,
            drawn.pmf,
            drawn.epsilon,
        )
        assert would_be(chosen) == drawn.action
        index, _ = sample(policy.evaluate(features(), MODELS, 0.5), SALT, f"d{number}")
        assert would_be(chosen) == MODELS[index]


def test_only_a_shadow_has_a_draw_that_did_not_serve():
    target = router()
    assert {would_be(decide(target, name)) for name in ("static", "bandit", "explore")} == {None}


def test_the_bandit_draws_as_it_would_without_a_rollout():
    target = router()
    for number in range(50):
        plain = target.decide(Context(event_id=f"d{number}", ts=1.0), features=features())
        ours = decide(target, "bandit", number)
        assert (ours.action, ours.pmf, ours.slice, ours.learn) == (
            plain.action,
            plain.pmf,
            plain.slice,
            True,
        )


def test_the_holdout_is_uniform_and_says_so():
    target = router()
    chosen = [decide(target, "explore", number) for number in range(3000)]
    assert {decision.pmf for decision in chosen} == {(1 / 3, 1 / 3, 1 / 3)}
    assert {d.epsilon for d in chosen} == {1.0}
    assert {(d.slice, d.propensity, d.learn) for d in chosen} == {("explore", 1 / 3, True)}
    counts = Counter(decision.action for decision in chosen)
    # 1000 each, standard deviation 26; the draws are fixed by the salt and the ids
    assert all(abs(counts[model] - 1000) < 130 for model in MODELS)


@pytest.mark.parametrize("variant", ["static", "shadow"])
def test_an_incumbent_that_must_not_serve_does_not(variant):
    masked = Eligibility([DenyList(frozenset({INCUMBENT}))])
    chosen = decide(router(eligibility=masked, safe_model=MODELS[1]), variant)
    assert chosen.action == MODELS[1]
    assert f"incumbent_not_eligible:{INCUMBENT}" in chosen.rules


def test_a_damaged_policy_does_not_stop_the_shadow():
    policy = Preferring()
    policy.failing = True
    target = router(policy)
    chosen = decide(target, "shadow")
    assert (chosen.action, chosen.pmf) == (INCUMBENT, (1.0,))
    assert "unusable_evaluation" in chosen.rules
    assert would_be(chosen) is None
    assert target.counts["unusable_evaluations"] == 1


@pytest.mark.parametrize("variant", ["static", "shadow", "bandit", "explore"])
def test_a_pin_beats_the_variant_and_keeps_its_name(variant):
    chosen = decide(router(), variant, forced=MODELS[0])
    assert (chosen.action, chosen.slice, chosen.variant) == (MODELS[0], "forced", variant)
    assert chosen.rules == ("why", f"pin:{MODELS[0]}")


def test_a_holdouts_pmf_never_passes_as_the_bandits():
    """Were the bandit's propensity logged for a uniform draw, the log would be refused."""
    chosen = decide(router(), "explore")
    bandits = decide(router(), "bandit")
    with pytest.raises(ValueError, match="propensity"):
        encode(msgspec.structs.replace(chosen, pmf=bandits.pmf))
