"""A configuration is read whole or refused with the file, the key and the mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from bandit_router.config import find_config, load_settings
from bandit_router.errors import ConfigError

REPO = Path(__file__).resolve().parents[2]
MODEL = '[[models]]\nmodel = "a"\nexpected_cost_usd = 0.001\n'


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """No file and no variable of the machine reaches a test."""
    import os

    for name in [name for name in os.environ if name.upper().startswith("BANDIT_ROUTER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(tmp_path: Path, text: str, name: str = "app.toml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted((REPO / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_every_file_of_configs_loads(path: Path):
    assert len(load_settings(path).catalog) >= 2


def test_without_a_file_the_built_in_quick_start_counts():
    built_in = (REPO / "bandit_router" / "data" / "quickstart.toml").resolve()
    assert find_config() is None
    assert (REPO / "configs" / "quickstart.toml").resolve() == built_in
    assert load_settings().catalog == load_settings(built_in).catalog


def test_the_file_of_the_folder_then_of_the_variable_then_of_the_caller_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(tmp_path, f'[app]\nname = "folder"\n{MODEL}', "bandit-router.toml")
    assert load_settings().app.name == "folder"
    named = write(tmp_path, f'[app]\nname = "variable"\n{MODEL}', "variable.toml")
    monkeypatch.setenv("BANDIT_ROUTER_CONFIG", str(named))
    assert load_settings().app.name == "variable"
    assert load_settings(write(tmp_path, f'[app]\nname = "caller"\n{MODEL}')).app.name == "caller"


def test_the_environment_overrides_the_file_key_by_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write(tmp_path, f"[policy]\nseed = 3\nquality_value_usd = 0.5\n{MODEL}")
    monkeypatch.setenv("BANDIT_ROUTER_POLICY__QUALITY_VALUE_USD", "0.25")
    monkeypatch.setenv("BANDIT_ROUTER_JOINER__WINDOW_S", "60")
    monkeypatch.setenv("BANDIT_ROUTER_POLICY__OPTIONS", '{"epsilon": 0.1}')
    settings = load_settings(path)
    assert (settings.policy.seed, settings.policy.quality_value_usd) == (3, 0.25)
    assert settings.join_rules.window_s == 60.0
    assert settings.policy.options == {"epsilon": 0.1}


def test_the_tree_is_frozen(tmp_path: Path):
    settings = load_settings(write(tmp_path, MODEL))
    with pytest.raises(ValueError, match="frozen"):
        settings.policy.seed = 1
    with pytest.raises(ValueError, match="frozen"):
        settings.policy = settings.policy


def test_the_store_of_a_file_starts_at_its_folder(tmp_path: Path):
    settings = load_settings(write(tmp_path, f'[store]\npath = "log.db"\n{MODEL}'))
    assert settings.store.path == tmp_path / "log.db"


def test_a_secret_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BANDIT_ROUTER_SNAPSHOTS__HMAC_KEY", "correct horse battery")
    assert "correct" not in repr(load_settings(write(tmp_path, MODEL)))


WRONG = {
    "unknown section": ("[polcy]\nseed = 1\n" + MODEL, ["polcy: unknown key", "'policy'?"]),
    "unknown key": ("[policy]\nsede = 1\n" + MODEL, ["policy.sede: unknown key", "'seed'?"]),
    "unknown joiner key": ("[joiner]\nwindow = 1\n" + MODEL, ["joiner: ", "'window_s'?"]),
    "joiner range": ("[joiner]\nwindow_s = -1\n" + MODEL, ["joiner: window_s = -1.0"]),
    "joiner choice": ("[joiner]\naggregation = 'sum'\n" + MODEL, ["joiner: ", "'sum'"]),
    "wrong type": ("[policy]\nseed = 'x'\n" + MODEL, ["policy.seed: ", "not 'x'"]),
    "out of range": (
        "[policy]\nquality_value_usd = 0\n" + MODEL,
        ["policy.quality_value_usd: ", "greater than 0"],
    ),
    "not a number": ("[policy]\nquality_value_usd = nan\n" + MODEL, ["policy.quality_value_usd"]),
    "bad choice": ("[store]\nsynchronous = 'off'\n" + MODEL, ["store.synchronous", "'full'"]),
    "no models": ("[app]\nname = 'a'\n", ["models: missing"]),
    "empty models": ("models = []\n", ["models: no model: add [[models]]"]),
    "no price": ("[[models]]\nmodel = 'a'\n", ["models: model 'a' has no price"]),
    "unknown price key": (
        "[[models]]\nmodel = 'a'\nusd_per_1m_inptu = 1.0\n",
        ["models: ", "usd_per_1m_inptu"],
    ),
    "model twice": (MODEL + MODEL, ["models: model 'a' is listed twice"]),
    "unknown safe model": (
        "[app]\nsafe_model = 'z'\n" + MODEL,
        ["app.safe_model 'z' is not among the models: a"],
    ),
    "no TOML": ("[policy\n", ["not a TOML file", "line 1"]),
}


@pytest.mark.parametrize(("text", "parts"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_named_with_file_key_and_mend(tmp_path: Path, text: str, parts: list[str]):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    for part in [str(path), *parts]:
        assert part in str(caught.value)


def test_every_mistake_is_named_at_once(tmp_path: Path):
    path = write(tmp_path, "[policy]\nseed = 'x'\n[store]\nsynchronous = 'off'\n" + MODEL)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("variable", "value", "parts"),
    [
        ("BANDIT_ROUTER_POLCY__SEED", "1", ["BANDIT_ROUTER_POLCY__SEED: unknown"]),
        ("BANDIT_ROUTER_POLICY__SEDE", "1", ["BANDIT_ROUTER_POLICY__SEDE", "'seed'?"]),
        ("BANDIT_ROUTER_POLICY__SEED", "x", ["variable BANDIT_ROUTER_POLICY__SEED", "not 'x'"]),
        ("BANDIT_ROUTER_POLICY__OPTIONS", "{", ['"policy"', "written as JSON"]),
    ],
)
def test_a_wrong_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, parts: list[str]
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, MODEL))
    for part in parts:
        assert part in str(caught.value)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read"):
        load_settings(tmp_path / "none.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.toml: not a UTF-8 text"):
        load_settings(binary)


def test_a_secret_that_is_too_short_is_not_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BANDIT_ROUTER_SNAPSHOTS__HMAC_KEY", "pa55word")
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, MODEL))
    assert "HMAC_KEY" in str(caught.value)
    assert "pa55word" not in str(caught.value)
