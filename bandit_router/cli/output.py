"""What the commands share: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", help="Configuration file (TOML); see configs/ for commented examples."
    ),
]


def command_group(text: str) -> typer.Typer:
    """A command with subcommands, for a module's ``app``; ``text`` is its help."""
    return typer.Typer(help=text, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


def emit(result: Mapping[str, Any], json_output: bool, *, human: Callable[[Console], None]) -> None:
    """Print a command's result on stdout: as JSON, or by ``human`` on a rich console.

    Args:
        result: plain JSON-able values; a NaN in it is a bug and raises ValueError.
        json_output: the command's ``--json``.
        human: draws the same result for a reader.
    """
    if json_output:
        # ASCII escapes survive any terminal encoding and lone surrogates in prompts.
        typer.echo(json.dumps(result, indent=2, allow_nan=False))
        return
    from rich.console import Console

    human(Console(highlight=False))


def stderr_console() -> Console:
    """The console for progress and notes, which never mix with the result."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def report_error(error: Exception, *, as_json: bool) -> None:
    """Print one message on stderr and, when asked, the error as JSON on stdout.

    What a broker or an event said may stand in it: on stderr it is shown by :func:`printable`.
    """
    if as_json:
        fields = {
            "type": type(error).__name__,
            "message": str(error),
            "retriable": bool(getattr(error, "retriable", False)),
        }
        typer.echo(json.dumps({"error": fields}, indent=2))
    from bandit_router.cli.event_lines import printable

    message = "\n".join(map(printable, str(error).split("\n")))
    sys.stderr.write(f"bandit-router: error: {message}\n")
