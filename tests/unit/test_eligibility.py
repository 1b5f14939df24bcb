"""Masks: which models are left, and which rules are named for it."""

from __future__ import annotations

import pytest

from bandit_router.eligibility import (
    AllowList,
    Capabilities,
    ContextWindow,
    DenyList,
    Eligibility,
    OpenBreakers,
)
from bandit_router.errors import ConfigError, DecisionError
from bandit_router.models import Catalog, ModelSpec
from bandit_router.types import Context

CATALOG = Catalog(
    [
        ModelSpec(model="small", expected_cost_usd=0.001, context_window=2_000),
        ModelSpec(model="tools", expected_cost_usd=0.01, capabilities=("tools", "json")),
        ModelSpec(model="large", expected_cost_usd=0.1, context_window=100_000),
    ]
)


def context(**fields) -> Context:
    return Context(event_id="d", ts=0.0, **fields)


def test_without_rules_every_model_is_eligible_in_catalog_order():
    assert Eligibility().of(context(), CATALOG) == (("small", "tools", "large"), ())


@pytest.mark.parametrize(
    ("rule", "asked", "left", "fired"),
    [
        (AllowList(frozenset({"large"})), {}, ("large",), ("allow_list:small", "allow_list:tools")),
        (AllowList(frozenset({"large"}), tenant="acme"), {}, CATALOG.names, ()),
        (
            AllowList(frozenset({"small"}), tenant="acme"),
            {"tenant": "acme"},
            ("small",),
            ("allow_list:tools", "allow_list:large"),
        ),
        (DenyList(frozenset({"tools"})), {}, ("small", "large"), ("deny_list:tools",)),
        (DenyList(frozenset({"tools"}), tenant="acme"), {"tenant": "x"}, CATALOG.names, ()),
        (
            Capabilities(),
            {"columns": {"requires": "json, tools"}},
            ("tools",),
            ("capability:small", "capability:large"),
        ),
        (Capabilities(), {"columns": {"requires": ""}}, CATALOG.names, ()),
        (ContextWindow(), {"prompt": "x" * 2_900}, CATALOG.names, ()),
        (
            ContextWindow(),
            {"prompt": "x" * 3_000},
            ("tools", "large"),
            ("context_window:small",),
        ),
        (
            ContextWindow(),
            {"prompt": "漢" * 1_000},
            ("tools", "large"),
            ("context_window:small",),
        ),
        (
            ContextWindow(),
            {"max_output_tokens": 2_001},
            ("tools", "large"),
            ("context_window:small",),
        ),
        (ContextWindow(), {"prompt": "x" * 3_000, "max_output_tokens": 0}, CATALOG.names, ()),
        (OpenBreakers(lambda: {"small"}), {}, ("tools", "large"), ("breaker:small",)),
    ],
)
def test_a_rule_leaves_out_what_it_should_and_says_so(rule, asked, left, fired):
    assert Eligibility([rule]).of(context(**asked), CATALOG) == (left, fired)


def test_every_rule_that_fired_is_named():
    rules = [DenyList(frozenset({"small"})), OpenBreakers(lambda: ["small"])]
    _, fired = Eligibility(rules).of(context(), CATALOG)
    assert fired == ("deny_list:small", "breaker:small")


def test_a_breaker_is_asked_at_every_decision():
    still_open = {"small"}
    eligibility = Eligibility([OpenBreakers(lambda: still_open)])
    assert eligibility.of(context(), CATALOG)[0] == ("tools", "large")
    still_open.clear()
    assert eligibility.of(context(), CATALOG)[0] == CATALOG.names


def test_when_nothing_is_left_the_error_names_the_rules():
    with pytest.raises(DecisionError, match="allow_list:large"):
        Eligibility([AllowList(frozenset())]).of(context(), CATALOG)


def test_an_empty_catalog_has_nothing_eligible():
    with pytest.raises(DecisionError, match="catalog is empty"):
        Eligibility().of(context(), Catalog([]))


def test_lone_surrogates_count_as_bytes_and_break_nothing():
    assert ContextWindow().tokens(context(prompt="\ud800" * 3, max_output_tokens=0)) == 3.0


def test_a_tokenizer_rate_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="bytes_per_token"):
        ContextWindow(bytes_per_token=0.0)
