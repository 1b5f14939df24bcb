"""The command line's help: every command is documented, quick to ask, and says what it does."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from bandit_router.cli import app as cli

HEAVY = {
    "arro3", "crc32c", "fastembed", "kafka", "numba", "numpy", "onnxruntime", "openfeature",
    "pareto_bandit", "pydantic_settings", "scipy", "sklearn", "sqlite_utils", "vowpalwabbit",
}  # fmt: skip


def help_of(*arguments: str) -> str:
    result = CliRunner().invoke(cli.app, [*arguments, "--help"], prog_name="bandit-router")
    assert result.exit_code == 0, result.output
    return result.output


def leaves() -> list[tuple[str, ...]]:
    """Every command that can be run, subcommands of groups included."""
    found: list[tuple[str, ...]] = []
    for name in cli.COMMANDS:
        subcommands = getattr(cli.load_command(name), "commands", None)
        found.extend([(name, sub) for sub in subcommands] if subcommands else [(name,)])
    return found


def modules_after(statement: str) -> set[str]:
    """Top-level modules that are loaded once ``statement`` ran in a fresh interpreter."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(run.stdout.splitlines()[-1])}


def test_the_help_page_lists_every_command_with_its_line():
    page = " ".join(help_of().split())
    for name, line in cli.COMMANDS.items():
        assert f"{name} {line}" in page


def test_the_help_page_imports_nothing_heavy():
    loaded = modules_after(
        "from bandit_router.cli.app import run, app\nrun(['--help'], lambda a: app(a))"
    )
    assert loaded & (HEAVY | {"rich", "pydantic"}) == set()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_module_imports_nothing_heavy(name: str):
    assert modules_after(f"import bandit_router.cli.{name}") & HEAVY == set()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_line_on_the_help_page_is_the_first_of_the_command(name: str):
    module = importlib.import_module(f"bandit_router.cli.{name}")
    text = module.app.info.help if hasattr(module, "app") else module.command.__doc__
    assert text.splitlines()[0] == cli.COMMANDS[name]


@pytest.mark.parametrize("command", leaves(), ids=" ".join)
def test_every_command_has_help_and_json(command: tuple[str, ...]):
    page = help_of(*command)
    assert f"Usage: bandit-router {' '.join(command)}" in page
    assert "--json" in page


@pytest.mark.parametrize("command", leaves(), ids=" ".join)
def test_every_option_says_what_it_does(command: tuple[str, ...]):
    parsed = cli.load_command(command[0])
    for name in command[1:]:
        parsed = parsed.commands[name]
    undescribed = [parameter.name for parameter in parsed.params if not parameter.help]
    assert undescribed == []
