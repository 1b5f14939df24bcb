"""Price lists: the forms that are read, and what a wrong one is told."""

from __future__ import annotations

import json

import pytest

from bandit_router.adapters.price_list import read_price_list
from bandit_router.errors import CatalogError

PRICES = {
    "prices": {
        "big": {"usd_per_1m_input": 4.0, "usd_per_1m_output": 8.0, "price_source": "list"},
        "mid": {"usd_per_1m_input": 2.0, "usd_per_1m_output": 2.0},
    },
    "arms": {
        "mine": [{"model": "big-2024", "price_key": "big", "usd_per_1m_input": 5.0,
                  "usd_per_1m_output": 9.0, "default_arm": True}],
        "other": [{"model": "mid", "usd_per_1m_input": 3.0, "usd_per_1m_output": 3.0}],
    },
}  # fmt: skip


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_an_arm_of_the_log_comes_before_other_arms_and_those_before_prices(tmp_path):
    path = write(tmp_path / "models.json", PRICES)
    catalog = read_price_list(path, ["mid", "big-2024", "big"], "mine")
    assert catalog.names == ("mid", "big-2024", "big")
    assert [spec.usd_per_1m_input for spec in catalog] == [3.0, 5.0, 4.0]


def test_the_tables_of_a_configuration_file_are_a_price_list(tmp_path):
    text = '[[models]]\nmodel = "a"\nexpected_cost_usd = 0.002\n'
    catalog = read_price_list(write(tmp_path / "c.toml", text), ["a"], "")
    assert catalog["a"].prior_cost_usd() == 0.002


BAD = [
    (PRICES, ["huge"], "no price for model 'huge'; it lists: big, mid, big-2024"),
    ({"prices": {"a": {"usd_per_1m_input": 1.0}}}, ["a"], "has no price"),
    ({"prices": {"a": {"expected_cost_usd": -1.0}}}, ["a"], "above 0"),
    ({"prices": {"a": {"expected_cost_usd": "1"}}}, ["a"], "float"),
    ({"prices": {"a": 3}}, ["a"], "no object"),
    ({"prices": 3}, ["a"], "not a price list"),
    ({"arms": {"x": [{}]}}, ["a"], "not a price list"),
    ([1], ["a"], "not a price list"),
    ("{", ["a"], "not a readable price list"),
]


@pytest.mark.parametrize(("content", "models", "words"), BAD)
def test_a_bad_price_list_is_an_error_that_names_the_file(tmp_path, content, models, words):
    path = write(tmp_path / "models.json", content)
    with pytest.raises(CatalogError, match=r"models\.json") as caught:
        read_price_list(path, models, "mine")
    assert words in str(caught.value)


def test_a_missing_price_list_is_an_error(tmp_path):
    with pytest.raises(CatalogError, match="cannot be read"):
        read_price_list(tmp_path / "none.json", ["a"], "")


@pytest.mark.shared
@pytest.mark.parametrize("source", ["zeroeval", "routellm_gsm8k", "alpaca_eval1"])
def test_every_arm_of_the_shared_price_list_has_a_price(shared_data, source):
    arms = json.loads((shared_data / "models.json").read_text())["arms"][source]
    models = [arm["model"] for arm in arms]
    assert read_price_list(shared_data / "models.json", models, source).names == tuple(models)
