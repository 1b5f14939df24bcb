"""README.md says what is there: its commands exist, its options exist, its files exist."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from bandit_router.adapters.outbox import Outbox
from bandit_router.cli import app as cli
from bandit_router.config import load_settings
from bandit_router.events import Completion, Feedback
from bandit_router.types import Context

REPO = Path(__file__).resolve().parents[2]
README = (REPO / "README.md").read_text(encoding="utf-8")


def readme_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme", REPO / ".ci" / "readme_commands.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MARKED = readme_tool().readme_commands(README)


def quoted_calls() -> list[str]:
    """Every `bandit-router ...` in the README, from code blocks and from inline code."""
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    inline = re.findall(r"`(bandit-router [^`]+)`", README)
    pieces = [piece for line in [*lines, *inline] for piece in re.split(r"&&|\||;", line)]
    found = (re.search(r"(?:^|[\s/$])(bandit-router .+)$", piece) for piece in pieces)
    return sorted({match[1].strip() for match in found if match})


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The click command that ``words`` name, and the words that are left for it."""
    name, *rest = words
    assert name in cli.COMMANDS, f"README names a command that does not exist: {name}"
    command = cli.load_command(name)
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


PYTHON = re.findall(r"^```python\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL)


def test_the_two_commands_are_marked():
    assert set(MARKED) == {"demo", "test"}
    assert MARKED["demo"].endswith("bandit-router demo")
    assert "pytest" in MARKED["test"]


@pytest.mark.parametrize("call", quoted_calls())
def test_every_quoted_call_names_a_command_and_options_that_exist(call: str):
    words = shlex.split(call, comments=True)[1:]
    if words[0] in {"--help", "-h"}:
        return
    command, rest = resolve(words)
    known = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    used = {word.split("=")[0] for word in rest if word.startswith("-") and word != "-"}
    assert used <= known


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_in_the_readme(name: str):
    assert re.search(rf"`bandit-router {name}\b", README)


def test_every_linked_file_exists():
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert [target for target in targets if not (REPO / target).exists()] == []


def test_the_log_that_the_readme_writes_is_replayed(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON[0], "README.md", "exec"), {})
    (call,) = [call for call in quoted_calls() if call.startswith("bandit-router replay my_log")]
    result = CliRunner().invoke(cli.app, shlex.split(call)[1:])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "replay-out" / "report.json").read_text())
    assert report["log"]["models"] == ["small", "large"]
    assert (tmp_path / "replay-out" / "report.html").is_file()


def test_the_router_that_the_readme_shows_logs_what_happens(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "kafka.toml"
    config.write_text(
        '[events]\ntransport = "kafka"\nbootstrap_servers = ["127.0.0.1:1"]\n'
        '[[models]]\nmodel = "small"\nexpected_cost_usd = 0.001\n'
    )
    called = []
    given = {
        "settings": load_settings(config),
        "context": Context(event_id="q1", ts=1.0, prompt="Why is the sky blue?"),
        "call": called.append,
        "completion": Completion(event_id="q1", ts=2.0, model="small", cost_usd=0.002),
        "feedback": Feedback(event_id="q1", ts=3.0, metric="score", value=1.0, feedback_id="f"),
    }
    exec(compile(PYTHON[1], "README.md", "exec"), given)
    assert called == ["small"]
    with Outbox.open(tmp_path / "bandit-router.outbox.db") as outbox:
        assert outbox.backlog().events == 3
