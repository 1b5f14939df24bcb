"""`bandit-router learn`: the learner process over Kafka."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit_router.cli.output import JsonOption

if TYPE_CHECKING:
    from collections.abc import Mapping

_STATUS_S = 5.0


def command(
    config: Annotated[
        list[Path] | None,
        typer.Option(
            "--config",
            help='Configuration file (TOML) with [events] transport = "kafka"; give it once per '
            "app to learn several.",
        ),
    ] = None,
    until_idle: Annotated[
        float | None,
        typer.Option(help="Stop once there has been nothing to learn for so many seconds."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Learn from Kafka and publish snapshots, until it is stopped.

    Any number of learners share the apps and take over from one that dies. SIGTERM and SIGINT end
    it cleanly: what is new is stored and published, and its apps go to others at once. A line on
    stderr says every few seconds what it does; with --json one JSON object per line on stdout.
    """
    import signal

    from bandit_router.config import load_settings
    from bandit_router.streaming.learning import run_learner

    settings = [load_settings(path) for path in (config or [None])]
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: stopping.append(received))
    run_learner(
        settings,
        stop=lambda: bool(stopping),
        report=_print_json if json_output else _print_line,
        report_every_s=_STATUS_S,
        until_idle_s=until_idle,
    )


def _print_json(status: Mapping[str, Any]) -> None:
    import json

    typer.echo(json.dumps({"schema": "bandit_router.learn/1", **status}, allow_nan=False))


def _print_line(status: Mapping[str, Any]) -> None:
    from bandit_router.cli.event_lines import printable

    apps = ", ".join(
        f"{name} row {app['learn_seq']} (published {max(app['published_seq'], 0)})"
        for name, app in sorted(status["apps"].items())
    )
    parts = [apps or "no app is ours", f"{status['waiting']} records wait"]
    parts += [f"fenced from {number}: {why}" for number, why in status["fenced"].items()]
    parts += [f"given up {app}: {why}" for app, why in status["failed"].items()]
    parts += [f"{what}: {why}" for what, why in status["problems"].items()]
    if status["missed"]:
        parts.append(f"{status['missed']} records were gone before they were learned")
    parts += [f"{name}: {app['trouble']}" for name, app in status["apps"].items() if app["trouble"]]
    typer.echo(printable("; ".join(parts)), err=True)  # names of apps and reasons are of anybody
