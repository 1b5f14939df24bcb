"""`route --log`, `feedback`, `explain` and `rebuild` as a person runs them on one store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bandit_router.cli.app import app, run
from bandit_router.config import load_settings
from bandit_router.live import open_live
from bandit_router.types import Context


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Runs a command line in a folder of its own; gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(arguments, lambda given: app(given, prog_name="bandit-router"))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def logged(cli):
    """A decision that is in the log."""
    code, out, err = cli("route", "Why is the sky blue?", "--log", "--json")
    assert code == 0, err
    return json.loads(out)


def told(cli, *arguments: str) -> dict:
    code, out, err = cli("feedback", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_decision_is_logged_learned_explained_and_rebuilt(cli, logged):
    event_id = logged["event_id"]
    assert logged["logged"]
    assert event_id[14] == "7", "a UUIDv7"
    learned = told(cli, event_id, "--score", "0.5", "--cost-usd", "0.002", "--latency-s", "1.5")
    assert learned["status"] == "learned"
    assert (learned["score"], learned["cost_usd"], learned["latency_s"]) == (0.5, 0.002, 1.5)
    assert (learned["learn_seq"], learned["learned_rows"]) == (1, 1)

    again = told(cli, event_id, "--score", "0.5", "--cost-usd", "0.002")
    assert (again["status"], again["refused"]) == ("refused", ["duplicate", "duplicate"])
    assert again["learned_rows"] == 1

    code, out, _ = cli("route", "Why is the sky blue?", "--log", "--json")
    assert (code, json.loads(out)["learned_rows"]) == (0, 1)
    for event in (event_id, json.loads(out)["event_id"]):
        code, out, err = cli("explain", event, "--json")
        assert (code, json.loads(out)["identical"]) == (0, True), err
    code, out, err = cli("rebuild", "--json")
    found = json.loads(out)
    assert (code, found["identical"], found["rows"]) == (0, True, 1), err


def test_the_words_say_what_happened(cli, logged):
    event_id = logged["event_id"]
    code, out, _ = cli("feedback", event_id, "--score", "1")
    assert (code, out) == (
        0,
        "logged; waiting for the answer: give --cost-usd, or --model where the cost is unknown\n",
    )
    code, out, _ = cli("feedback", event_id, "--cost-usd", "0.002")
    assert code == 0
    assert out == f"{logged['action']}, score 1, $0.002: joined as row 1 and learned\n"
    code, out, _ = cli("feedback", event_id, "--score", "0", "--source", "judge")
    assert code == 1
    assert out.startswith("refused: late, the decision is closed already")


def test_another_model_that_served_is_said_to_be_the_reason(cli, logged):
    code, out, _ = cli("feedback", logged["event_id"], "--score", "1", "--model", "somebody")
    assert code == 0
    assert "at unknown cost: joined as row 1, but not learned from: another model served" in out


def test_route_without_log_leaves_no_store(cli, tmp_path):
    code, out, _ = cli("route", "hello", "--json")
    assert (code, json.loads(out)["logged"]) == (0, False)
    assert list(tmp_path.iterdir()) == []


def test_the_store_can_be_named(cli, tmp_path):
    code, out, _ = cli("route", "hello", "--log", "--db", "other.db")
    event_id = out.splitlines()[-1].removeprefix("logged as ")
    assert (code, Path("bandit-router.db").exists()) == (0, False)
    assert told(cli, event_id, "--score", "1", "--db", "other.db")["waits_for"] == ["answer"]


@pytest.mark.parametrize(
    "arguments",
    [("--quality-value", "0"), ("--quality-value", "nan"), ("--column", "task")],
    ids=" ".join,
)
def test_a_decision_that_is_asked_for_wrongly_leaves_no_store(cli, tmp_path, arguments):
    code, out, err = cli("route", "hello", "--log", *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody", "--score", "1"), "no decision 'nobody'"),
        (("ID",), "nothing to tell: give --score"),
        (("ID", "--metric", "thumbs"), "needs a --score"),
        (("ID", "--score", "1.5"), "takes 0 to 1"),
        (("ID", "--score", "nan"), "takes 0 to 1"),
        (("ID", "--score", "1", "--metric", "mood"), "metric 'mood' is not one of"),
        (("ID", "--cost-usd", "-1"), "cost_usd: -1.0 is negative"),
        (("ID", "--latency-s", "inf"), "latency_s"),
        (("ID", "--cost-usd", "1", "--model", ""), "model"),
        (("ID", "--score", "1", "--db", "none.db"), "no such database"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(cli, arguments, words):
    with open_live(load_settings(), embed=False) as live:
        embedding = np.full(384, 384**-0.5, np.float32)
        live.decide(Context(event_id="ID", ts=0.0, embedding=embedding))
    code, out, err = cli("feedback", *arguments)
    assert (code, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
