"""The error boundary: one message, the right exit code, JSON when asked; results on stdout."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bandit_router.cli.app import run
from bandit_router.cli.learn import _print_line
from bandit_router.cli.output import emit
from bandit_router.errors import (
    BanditRouterError,
    CatalogError,
    LogFormatError,
    SnapshotError,
    StorageError,
)

INPUT = LogFormatError("score 1.2 is above 1", path="log.csv", row=3, column="score")
MESSAGE = "log.csv, row 3, column 'score': score 1.2 is above 1"


def fail_with(error: BaseException):
    def invoke(arguments):
        raise error

    return invoke


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (INPUT, 2),
        (CatalogError("unknown model 'x'"), 2),
        (StorageError("database is locked"), 1),
        (SnapshotError("sha256 differs"), 1),
        (BanditRouterError("failed"), 1),
        (SystemExit(0), 0),
        (SystemExit(None), 0),
        (SystemExit(1), 1),
        (SystemExit("text"), 1),
    ],
    ids=repr,
)
def test_exit_code(error: BaseException, code: int):
    assert run([], fail_with(error)) == code


def test_an_error_is_one_message_on_stderr(capsys: pytest.CaptureFixture[str]):
    run(["replay"], fail_with(INPUT))
    assert capsys.readouterr() == ("", f"bandit-router: error: {MESSAGE}\n")


def test_what_a_terminal_could_obey_is_shown_as_an_escape(capsys: pytest.CaptureFixture[str]):
    run(["learn"], fail_with(StorageError("the broker says \x1b[2J\rfine\nsecond line \ud800")))
    said = r"the broker says \x1b[2J\rfine" "\n" r"second line \ud800" "\n"
    assert capsys.readouterr().err == f"bandit-router: error: {said}"


def test_the_line_of_a_learner_is_one_line_whatever_an_app_is_called(
    capsys: pytest.CaptureFixture[str],
):
    nothing = {"apps": {}, "waiting": 0, "fenced": {}, "problems": {}, "missed": 0}
    _print_line({**nothing, "failed": {"shop\n\x1b[2J": "no store"}})
    said = r"no app is ours; 0 records wait; given up shop\n\x1b[2J: no store"
    assert capsys.readouterr().err == f"{said}\n"


def test_with_json_the_error_is_an_object_on_stdout(capsys: pytest.CaptureFixture[str]):
    run(["replay", "--json"], fail_with(INPUT))
    error = json.loads(capsys.readouterr().out)["error"]
    assert error == {"type": "LogFormatError", "message": MESSAGE, "retriable": False}


def test_a_retriable_error_says_so(capsys: pytest.CaptureFixture[str]):
    run(["--json"], fail_with(StorageError("database is locked")))
    assert json.loads(capsys.readouterr().out)["error"]["retriable"] is True


def test_a_message_with_a_lone_surrogate_is_printed(capfd: pytest.CaptureFixture[str]):
    run([], fail_with(CatalogError("unknown model '\ud800'")))
    assert "unknown model" in capfd.readouterr().err


def test_a_bug_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        run([], fail_with(ZeroDivisionError()))


def test_json_of_a_prompt_with_a_lone_surrogate_survives(capsys: pytest.CaptureFixture[str]):
    emit({"prompt": "a\ud800\x00é"}, True, human=lambda console: None)
    assert json.loads(capsys.readouterr().out) == {"prompt": "a\ud800\x00é"}


def test_json_never_has_nan():
    with pytest.raises(ValueError, match="JSON"):
        emit({"mean": float("nan")}, True, human=lambda console: None)


@pytest.mark.parametrize(
    "arguments", [["no-such-command"], ["version", "--no-such-option"], []], ids=" ".join
)
def test_wrong_usage_exits_with_2_and_no_traceback(arguments: list[str]):
    command = [sys.executable, "-m", "bandit_router.cli.app", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "Usage: " in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
