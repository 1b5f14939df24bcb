"""The router: what is drawn is what is logged, and nothing a policy does brings it down."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from support.streams import MODELS, SALT, NoFeaturizer, catalog, features

from bandit_router.eligibility import DenyList, Eligibility
from bandit_router.errors import CatalogError, DecisionError, EventError
from bandit_router.events import decode, encode
from bandit_router.policy.base import sample
from bandit_router.router import FixedState, Router
from bandit_router.types import Context, Evaluation


class StubPolicy:
    """Gives one evaluation, cut to the eligible models."""

    name = "stub"

    def __init__(self, pmf=(0.01, 0.98, 0.01), score=(0.1, 0.9, 0.2), cost=(0.1, 0.2, 0.3)):
        self.vectors = [np.array(v, dtype=float) for v in (pmf, score, cost)]
        self.failure: Exception | None = None

    def evaluate(self, given, eligible, quality_value_usd):
        if self.failure is not None:
            raise self.failure
        keep = [MODELS.index(model) for model in eligible]
        pmf, score, cost = (vector[keep] for vector in self.vectors)
        total = pmf.sum()
        return Evaluation(
            pmf=pmf / total if total else pmf,
            epsilon=0.02,
            score=score,
            cost_usd=cost,
            utility=score - cost / quality_value_usd,
        )


def router(policy=None, **options) -> Router:
    defaults = {"salt": SALT, "quality_value_usd": lambda: 0.5}
    return Router(policy or StubPolicy(), NoFeaturizer(), catalog(), **(defaults | options))


def decide(target: Router, event_id: str = "d", **options):
    context = Context(event_id=event_id, ts=7, prompt="hello", unit_id="u", tenant="t")
    return target.decide(context, features=features(), **options)


def test_the_logged_pmf_is_the_one_that_was_sampled():
    policy = StubPolicy(pmf=(0.2, 0.3, 0.5))
    target = router(policy)
    for i in range(200):
        chosen = decide(target, f"d{i}")
        evaluation = policy.evaluate(chosen.features, chosen.eligible, 0.5)
        index, part = sample(evaluation, SALT, f"d{i}")
        assert chosen.pmf == tuple(evaluation.pmf.tolist())
        assert (chosen.action, chosen.slice) == (MODELS[index], part)
        assert chosen.propensity == chosen.pmf[index]


def test_the_decision_carries_its_context_and_state():
    state = FixedState(catalog(), learn_seq=12, snapshot_id="s-12")
    chosen = decide(router(state=state, app="shop", variant="v2"))
    assert (chosen.learn_seq, chosen.snapshot_id) == (12, "s-12")
    assert (chosen.app, chosen.variant, chosen.unit_id, chosen.tenant) == ("shop", "v2", "u", "t")
    assert (chosen.ts, type(chosen.ts)) == (7.0, float)
    assert (chosen.quality_value_usd, chosen.epsilon, chosen.learn) == (0.5, 0.02, True)
    assert decode(encode(chosen)).action == chosen.action


def test_the_prompt_is_logged_as_a_digest_and_as_text_only_when_asked():
    digest = hashlib.sha256(b"hello").hexdigest()
    assert (decide(router()).prompt, decide(router()).prompt_digest) == (None, digest)
    assert decide(router(log_prompts=True)).prompt == "hello"


def test_a_logged_prompt_is_cut_so_that_the_event_can_be_stored():
    context = Context(event_id="d", ts=0.0, prompt="漢" * 1_000_000)
    chosen = router(log_prompts=True).decide(context, features=features())
    assert len(chosen.prompt) == 32_768
    assert len(encode(chosen)) < 200_000


def test_masked_models_are_not_in_the_pmf_and_the_rule_is_logged():
    chosen = decide(router(eligibility=Eligibility([DenyList(frozenset("b"))])))
    assert chosen.eligible == ("a", "c")
    assert len(chosen.pmf) == 2
    assert chosen.rules == ("deny_list:b",)


def test_when_no_model_is_eligible_there_is_no_decision():
    with pytest.raises(DecisionError, match="deny_list"):
        decide(router(eligibility=Eligibility([DenyList(frozenset(MODELS))])))


def test_a_pin_is_served_with_propensity_one_and_not_learned_from():
    chosen = decide(router(), forced="c")
    assert (chosen.action, chosen.propensity, chosen.slice) == ("c", 1.0, "forced")
    assert (chosen.eligible, chosen.pmf, chosen.learn) == (("c",), (1.0,), False)
    assert chosen.rules == ("pin:c",)
    assert chosen.predicted_score == (0.2,)
    assert decode(encode(chosen)).slice == "forced"


def test_a_pin_passes_the_masks():
    target = router(eligibility=Eligibility([DenyList(frozenset("c"))]))
    assert decide(target, forced="c").action == "c"


def test_a_pin_to_an_unknown_model_is_refused():
    with pytest.raises(CatalogError, match="z"):
        decide(router(), forced="z")


@pytest.mark.parametrize(
    "vectors",
    [
        {"pmf": (np.nan, 0.5, 0.5)},
        {"pmf": (np.inf, 0.0, 0.0)},
        {"pmf": (0.0, 0.0, 0.0)},
        {"pmf": (-0.5, 1.0, 0.5)},
        {"score": (np.nan, 0.5, 0.5)},
        {"score": (0.5, np.inf, 0.5)},
        {"cost": (0.1, np.nan, 0.1)},
        {"cost": (0.1, np.inf, 0.1)},
        {"cost": (-0.1, 0.1, 0.1)},
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_an_evaluation_that_is_not_usable_serves_the_safe_model(vectors):
    target = router(StubPolicy(**vectors), safe_model="b")
    chosen = decide(target)
    assert (chosen.action, chosen.slice, chosen.learn) == ("b", "forced", False)
    assert chosen.rules == ("unusable_evaluation",)
    assert target.counts == {"decisions": 1, "forced": 1, "unusable_evaluations": 1}
    assert decode(encode(chosen)).action == "b"


@pytest.mark.parametrize(
    "failure", [DecisionError("no"), FloatingPointError("x"), np.linalg.LinAlgError("singular")]
)
def test_a_policy_that_fails_serves_the_safe_model(failure):
    policy = StubPolicy()
    policy.failure = failure
    chosen = decide(router(policy, safe_model="c"))
    assert (chosen.action, chosen.propensity) == ("c", 1.0)
    assert (chosen.predicted_score, chosen.predicted_cost_usd) == ((), ())


def test_without_a_usable_safe_model_the_first_eligible_one_serves():
    policy = StubPolicy(pmf=(np.nan, np.nan, np.nan))
    masked = Eligibility([DenyList(frozenset("a"))])
    assert decide(router(policy, safe_model="a", eligibility=masked)).action == "b"
    assert decide(router(policy)).action == "a"


def test_a_safe_model_that_is_not_in_the_catalog_is_refused_at_the_start():
    with pytest.raises(CatalogError, match="z"):
        router(safe_model="z")


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_a_quality_value_that_makes_no_sense_is_refused(value):
    with pytest.raises(DecisionError, match="quality_value_usd"):
        decide(router(), quality_value_usd=value)


def test_a_request_may_bring_its_own_quality_value():
    assert decide(router(), quality_value_usd=np.float64(0.125)).quality_value_usd == 0.125


@pytest.mark.parametrize("event_id", ["", "x" * 257])
def test_an_event_id_that_cannot_be_logged_is_refused(event_id):
    with pytest.raises(EventError, match="event_id"):
        decide(router(), event_id)


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "x\udfff\0", "ünïcode 漢字 🙂"])
def test_any_text_in_ids_is_drawn_and_logged_alike(text):
    policy = StubPolicy(pmf=(0.3, 0.4, 0.3))
    target = router(policy, log_prompts=True)
    for i in range(20):
        context = Context(
            event_id=f"{text}{i}", ts=0.0, prompt=text, unit_id=text, tenant=text * 300
        )
        chosen = target.decide(context, features=features())
        again = decode(encode(chosen))
        assert repr(again) == repr(chosen)
        evaluation = policy.evaluate(again.features, again.eligible, 0.5)
        index, part = sample(evaluation, SALT, again.event_id)
        assert (again.eligible[index], part) == (again.action, again.slice)


def test_the_catalog_may_change_between_decisions():
    state = FixedState(catalog())
    target = router(state=state)
    assert decide(target).eligible == ("a", "b", "c")
    state.catalog = catalog().without("b")
    assert decide(target).eligible == ("a", "c")
