"""`models` lists the catalog that counts, with the costs that a policy starts from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bandit_router.cli.app import app

CONFIG = """
[[models]]
model = "dear [b]model[/b]"
expected_cost_usd = 0.02
[[models]]
model = "cheap"
usd_per_1m_input = 1.0
usd_per_1m_output = 2.0
context_window = 8192
price_source = "price list"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "app.toml"
    path.write_text(CONFIG)
    return path


def test_json_has_every_field_and_the_prior_cost_cheapest_first(config: Path):
    result = CliRunner().invoke(app, ["models", "--config", str(config), "--json"])
    models = json.loads(result.stdout)["models"]
    assert [model["model"] for model in models] == ["cheap", "dear [b]model[/b]"]
    assert models[0]["prior_cost_usd"] == pytest.approx((1.0 * 250 + 2.0 * 350) / 1e6)
    assert models[0]["price_source"] == "price list"
    assert models[1]["prior_cost_usd"] == 0.02


def test_the_table_shows_names_as_they_are(config: Path):
    result = CliRunner().invoke(app, ["models", "--config", str(config)])
    assert result.exit_code == 0
    assert "dear [b]model[/b]" in result.stdout
    assert "8,192" in result.stdout
