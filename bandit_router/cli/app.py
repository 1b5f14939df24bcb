"""The console script `bandit-router`: finds commands, runs one, turns errors into exit codes.

A command is a module ``bandit_router/cli/<name>.py`` that is listed in :data:`COMMANDS` and exposes
either ``command``, a typer function whose docstring is the help, or ``app``, a group made with
:func:`bandit_router.cli.output.command_group`. At module level a command imports nothing heavier
than typer; numpy and the package's own core are imported inside the function, so that ``--help`` of
everything stays quick. Running a command imports that command's module only.

Exit codes: 0 good, 1 failed, 2 wrong usage or bad input. The error is one message on stderr; with
``--json`` it is also an object on stdout.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import typer
import typer.core
import typer.main

from bandit_router.cli.output import report_error
from bandit_router.errors import BanditRouterError, InputError

_HELP_LINES = {
    "demo": "Route real prompts live, let one model fail half-way, and report.",
    "check": "Check the configuration, the catalog, the encoder and the store.",
    "route": "Decide which model should answer a text, and say why.",
    "feedback": "Tell what came of a logged decision, and learn from it.",
    "learn": "Learn from Kafka and publish snapshots, until it is stopped.",
    "explain": "Recompute a stored decision from its snapshot and compare.",
    "replay": "Replay a log of outcomes through policies, one pass.",
    "evaluate": "Estimate what another policy would have got on the logged queries.",
    "rebuild": "Relearn from the stored log and compare with the snapshot.",
    "models": "List the models of the catalog, what they cost and why.",
    "rollout": "Show or set the bandit's share of the traffic, or switch it off.",
    "experiment": "Look at the experiment that a rollout is, compare its variants, end it.",
    "events": "Make the topics, look at records, and send dead letters again.",
    "bench": "Measure speed, quality, calibration, streaming and faults, as in the README.",
    "version": "Print the versions of bandit-router and of what decides.",
}

COMMANDS: dict[str, str] = {
    name: line
    for name, line in _HELP_LINES.items()
    if Path(__file__).with_name(f"{name}.py").exists()
}
"""Every command with its line on the help page, in the order of that page. The line is the first
sentence of the command's docstring (a test compares them); it stands here so that the help page
imports no command."""


def load_command(name: str) -> Any:
    """The click command of ``bandit_router/cli/<name>.py``, imported now."""
    module = importlib.import_module(f"bandit_router.cli.{name}")
    if hasattr(module, "app"):
        command = typer.main.get_command(module.app)
    else:
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        single.command(name)(module.command)
        command = typer.main.get_command(single)
    command.name = name
    return command


class LazyGroup(typer.core.TyperGroup):
    """A group that imports a command's module when that command is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, or None for an unknown name, which is reported as wrong usage."""
        return load_command(cmd_name) if cmd_name in COMMANDS else None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands' part of the help page from :data:`COMMANDS`."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


app = typer.Typer(
    name="bandit-router",
    cls=LazyGroup,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich costs .1 s, which is too much for a help page
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root() -> None:
    """Route each query to the model that is worth its price, and learn from the outcome."""


def run(arguments: Sequence[str], invoke: Callable[[Sequence[str]], Any]) -> int:
    """Run ``invoke`` inside the error boundary and return the exit code."""
    as_json = "--json" in arguments
    try:
        invoke(arguments)
    except BanditRouterError as error:
        report_error(error, as_json=as_json)
        return 2 if isinstance(error, InputError) else 1
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the console script. Always exits."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run(given, lambda args: app(args, prog_name="bandit-router")))


if __name__ == "__main__":
    main()
