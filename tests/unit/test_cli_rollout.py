"""`bandit-router rollout`: what it prints, what it writes, and when it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bandit_router.cli.app import app, run
from bandit_router.config import load_settings
from bandit_router.errors import ConfigError

MODELS = """
[[models]]
model = "old"
expected_cost_usd = 0.001
[[models]]
model = "new"
expected_cost_usd = 0.01
"""
ROLLOUT = '[rollout]\nflags = "flags.json"\nincumbent = "old"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(ROLLOUT + MODELS)
    return file


def call(config: Path, *words: str) -> str:
    result = CliRunner().invoke(app, ["rollout", *words, "--config", str(config)])
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def refused(config: Path, capsys, *words: str) -> str:
    code = run(
        ["rollout", *words, "--config", str(config)],
        lambda arguments: app(list(arguments), standalone_mode=False),
    )
    assert code == 2
    return capsys.readouterr().err


def test_set_makes_the_file_and_show_tells_what_it_says(config):
    assert "bandit 5 %, shadow 0 %, static 94 %, explore 1 %" in call(
        config, "set", "5", "--explore", "1"
    )
    assert "20 % of the units go from static to bandit" in call(config, "set", "25")
    assert "bandit 25 %, shadow 0 %, static 74 %, explore 1 %" in call(config, "show")


def test_shadow_units_serve_the_incumbent_until_the_bandit_takes_them(config):
    call(config, "set", "0", "--shadow", "10")
    assert "10 % of the units go from shadow to bandit" in call(
        config, "set", "10", "--shadow", "0"
    )


def test_off_says_who_is_served_otherwise_and_on_again_needs_a_share(config):
    call(config, "set", "40")
    assert "40 % of the units go from bandit to static" in call(config, "off")
    assert "off: the incumbent serves everybody" in call(config, "show")
    assert "40 % of the units go from static to bandit" in call(config, "set", "40")


def test_show_says_where_a_unit_is(config):
    call(config, "set", "100")
    shown = json.loads(call(config, "show", "--unit", "u1", "--json"))
    assert shown["unit"] == {"unit_id": "u1", "variant": "bandit"}


def test_a_targeting_of_its_own_is_shown_as_such_and_replaced_by_set(config):
    call(config, "set", "1")
    file = config.parent / "flags.json"
    document = json.loads(file.read_text())
    document["flags"]["bandit-router"]["targeting"] = {"if": [True, "bandit", "static"]}
    file.write_text(json.dumps(document))
    assert "by a targeting of its own" in call(config, "show")
    assert "bandit 2 %" in call(config, "set", "2")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["show"], "no such flag file"),
        (["set", "101"], "multiple of 0.01 from 0 to 100"),
        (["set", "1.005"], "multiple of 0.01 from 0 to 100"),
        (["set", "99", "--explore", "2"], "exceed 100 %"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(config, capsys, words, complaint):
    assert complaint in refused(config, capsys, *words)
    assert not (config.parent / "flags.json").exists()


def test_a_broken_file_is_not_overwritten_by_set(config, capsys):
    file = config.parent / "flags.json"
    file.write_text("{")
    assert "not a JSON file" in refused(config, capsys, "set", "5")
    assert file.read_text() == "{"
    assert "the broken file is now" in call(config, "off")
    assert (config.parent / "flags.json.broken").read_text() == "{"


def test_without_a_rollout_there_is_nothing_to_set(config, capsys):
    config.write_text(MODELS)
    assert "set rollout.flags and rollout.incumbent" in refused(config, capsys, "off")


def test_the_flag_of_a_provider_is_changed_where_that_has_it(config, capsys):
    config.write_text('[rollout]\nprovider = "a.b:c"\nincumbent = "old"\n' + MODELS)
    assert "asked of a.b:c, not of a file" in refused(config, capsys, "off")


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ('flags = "f.json"', "rollout.incumbent is missing"),
        ('incumbent = "old"', "needs rollout.flags or rollout.provider"),
        ('flags = "f"\nprovider = "a:b"\nincumbent = "old"', "give one of them"),
        ('flags = "f"\nincumbent = "none"', "'none' is not among the models: old, new"),
        ('provider = "no factory"\nincumbent = "old"', "rollout.provider"),
        (
            'flags = "f"\nincumbent = "old"\nrules = [{ column = "t", equals = "x", model = "q" }]',
            "'q' is not among the models",
        ),
        (
            'flags = "f"\nincumbent = "old"\nrules = [{ colum = "t" }]',
            "did you mean 'column'",
        ),
        ('flags = "f"\nincumbent = "old"\nrules = [{ column = "t" }]', "equals"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(config, section, complaint):
    config.write_text(f"[rollout]\n{section}\n{MODELS}")
    with pytest.raises(ConfigError) as refusal:
        load_settings(config)
    assert complaint in str(refusal.value)
