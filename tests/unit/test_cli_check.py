"""`check` says of each part whether it is in place, and fails when one is not."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bandit_router.cli.app import app

CHECKS = ["configuration", "catalog", "encoder", "policy", "vowpal", "store", "snapshots"]


def config(tmp_path: Path, *, store: str = "log.db", value: float = 0.01, extra: str = "") -> Path:
    path = tmp_path / "app.toml"
    path.write_text(
        f'[store]\npath = "{store}"\n'
        f'[policy]\nname = "thompson"\nquality_value_usd = {value}\n{extra}\n'
        '[[models]]\nmodel = "cheap"\nexpected_cost_usd = 0.0001\n'
        '[[models]]\nmodel = "dear"\nexpected_cost_usd = 0.005\n'
    )
    return path


def check(path: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and the worst finding of each part."""
    result = CliRunner().invoke(app, ["check", "--config", str(path), "--json"])
    report = json.loads(result.stdout)
    assert report["ok"] == (result.exit_code == 0)
    rank = ["ok", "warn", "failed"].index
    findings = sorted(report["checks"], key=lambda finding: rank(finding["status"]))
    return result.exit_code, {finding["check"]: finding for finding in findings}


def test_everything_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BANDIT_ROUTER_SNAPSHOTS__HMAC_KEY", "correct horse battery")
    code, findings = check(config(tmp_path))
    assert code == 0
    assert sorted(findings) == sorted(CHECKS)
    assert {finding["status"] for finding in findings.values()} == {"ok"}
    assert not (tmp_path / "log.db").exists(), "a check changes nothing"


def test_unsigned_snapshots_are_a_warning_with_a_mend(tmp_path: Path):
    code, findings = check(config(tmp_path))
    assert code == 0
    assert findings["snapshots"]["status"] == "warn"
    assert "BANDIT_ROUTER_SNAPSHOTS__HMAC_KEY" in findings["snapshots"]["mend"]


def test_a_model_that_costs_more_than_a_good_answer_is_a_warning(tmp_path: Path):
    code, findings = check(config(tmp_path, value=0.001))
    assert code == 0
    assert findings["catalog"]["status"] == "warn"
    assert findings["catalog"]["detail"].endswith(": dear")


@pytest.mark.parametrize("store", ["missing/log.db", "folder"])
def test_a_store_that_cannot_be_written_fails(tmp_path: Path, store: str):
    (tmp_path / "folder").mkdir()
    code, findings = check(config(tmp_path, store=store))
    assert (code, findings["store"]["status"]) == (1, "failed")
    assert str(tmp_path / store) in findings["store"]["detail"]


def test_a_store_that_is_no_database_fails(tmp_path: Path):
    (tmp_path / "log.db").write_text("not a database, but long enough to be read as a header" * 9)
    code, findings = check(config(tmp_path))
    assert (code, findings["store"]["status"]) == (1, "failed")
    assert "not a database" in findings["store"]["detail"]


def test_a_store_that_is_there_is_left_as_it_was(tmp_path: Path):
    connection = sqlite3.connect(tmp_path / "log.db")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    before = (tmp_path / "log.db").read_bytes()
    assert check(config(tmp_path))[0] == 0
    assert (tmp_path / "log.db").read_bytes() == before


@pytest.mark.parametrize(
    ("extra", "message"),
    [("options = { draws = 0 }", "at least 1 draw"), ("options = { no_such = 1 }", "no_such")],
)
def test_a_policy_that_refuses_its_options_fails(tmp_path: Path, extra: str, message: str):
    code, findings = check(config(tmp_path, extra=extra))
    assert (code, findings["policy"]["status"]) == (1, "failed")
    assert message in findings["policy"]["detail"]


def test_an_unknown_encoder_fails(tmp_path: Path):
    code, findings = check(config(tmp_path, extra='[features]\nembedder = "no/such"'))
    assert (code, findings["encoder"]["status"]) == (1, "failed")
    assert "no/such" in findings["encoder"]["detail"]


def test_a_broken_configuration_is_wrong_usage(tmp_path: Path):
    from bandit_router.cli.app import run

    code = run([], lambda _: app(["check", "--config", str(tmp_path / "none.toml")]))
    assert code == 2


def test_for_a_reader_each_part_is_a_line(tmp_path: Path):
    result = CliRunner().invoke(app, ["check", "--config", str(config(tmp_path))])
    for name in CHECKS:
        assert any(name in line for line in result.stdout.splitlines())
    assert "mend: set BANDIT_ROUTER_SNAPSHOTS__HMAC_KEY" in result.stdout
