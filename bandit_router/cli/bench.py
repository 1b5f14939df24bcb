"""`bandit-router bench speed|quality|calibration|streaming|chaos`: the tables of the README."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit_router.cli.output import JsonOption, command_group, emit, stderr_console
from bandit_router.errors import InputError, StorageError

if TYPE_CHECKING:
    from rich.console import Console

    from bandit_router.bench.grid import Grid

app = command_group("Measure speed, quality, calibration, streaming and faults, as in the README.")

MarkdownOption = Annotated[
    bool, typer.Option("--markdown", help="Print the tables as Markdown, to paste elsewhere.")
]


BootstrapOption = Annotated[
    str | None,
    typer.Option(help="host:port of a Kafka that is there; otherwise one is started here."),
]
BrokerOption = Annotated[
    str | None, typer.Option(help="Which broker to start here: tansu or kafka.")
]


@app.command("speed")
def speed(
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer repeats; memory over 20,000 learns.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for speed.json and speed.md.")] = None,
    markdown: MarkdownOption = False,
    json_output: JsonOption = False,
) -> None:
    """Time of deciding, replaying, routing and starting, and memory, each beside its target."""
    from bandit_router.bench.grid import figure_grid
    from bandit_router.bench.speed import LEGEND, QUICK, SpeedPlan, machine, run_speed, to_builtins

    _check_folder(out)
    start, where = time.perf_counter(), machine()
    figures = run_speed(QUICK if quick else SpeedPlan(), stderr_console())
    seconds = time.perf_counter() - start
    about = (
        f"Python {where['python']}, {where['system']}, {where['cores']} cores, load average "
        f"{where['load']} at the start; took {seconds:,.0f} s"
    )
    grids = [figure_grid("Speed", figures)]
    result = to_builtins(figures, where, seconds)
    _finish("speed", result, grids, [about, LEGEND], out, markdown, json_output)


@app.command("quality")
def quality(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the routing logs; default ../shared/data, where it exists."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds; default 20, with --quick 3.", min=1)
    ] = None,
    seed0: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    folds: Annotated[str, typer.Option(help="Comma-separated folds to replay.")] = "2,3,4",
    warm_folds: Annotated[
        str, typer.Option(help="Comma-separated folds that a warm start learns first.")
    ] = "0,1",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer seeds and policies.")] = False,
    limit: Annotated[
        int | None, typer.Option(help="The first N queries of each log only.", min=1)
    ] = None,
    holdout: Annotated[
        bool,
        typer.Option(
            "--holdout/--no-holdout",
            help="Judge the paretobandit protocol on test_holdout, or on half of val.",
        ),
    ] = True,
    jobs: Annotated[int, typer.Option(help="Processes to use.", min=1)] = 2,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for quality.json and quality.md; the embeddings of the packaged "
            "prompts are kept there for the next run."
        ),
    ] = None,
    markdown: MarkdownOption = False,
    json_output: JsonOption = False,
) -> None:
    """Lifts, regrets and rewards beside every baseline, on routing logs and on budgets.

    Policies start cold and see the score and cost of the model they chose only. Then the protocol
    of the package paretobandit: learn on its val log, go on and be judged on its test_holdout log,
    at six budgets, beside paretobandit itself.
    """
    from bandit_router.bench.quality import QualityPlan, run_quality
    from bandit_router.bench.quality_report import grids, legend, to_builtins

    _check_folder(out)
    plan = QualityPlan(
        data=data,
        seeds=seeds or (3 if quick else 20),
        seed0=seed0,
        folds=_folds(folds, "--folds"),
        warm_folds=_folds(warm_folds, "--warm-folds"),
        quick=quick,
        processes=jobs,
        limit=limit,
        holdout=holdout,
        cache=out,
    )
    start = time.perf_counter()
    result = run_quality(plan, stderr_console())
    seconds = time.perf_counter() - start
    parts = ", ".join(f"{part} {taken:,.0f} s" for part, taken in result.seconds.items())
    about = f"{plan.seeds} seeds, folds {folds}, took {seconds:,.0f} s ({parts})"
    lines = [about, *legend(result)]
    _finish(
        "quality", to_builtins(result, seconds), grids(result), lines, out, markdown, json_output
    )


@app.command("streaming")
def streaming(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer events and repeats.")] = False,
    bootstrap: BootstrapOption = None,
    broker: BrokerOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for streaming.json and streaming.md.")
    ] = None,
    markdown: MarkdownOption = False,
    json_output: JsonOption = False,
) -> None:
    """Time of events on their way through Kafka, and of snapshots on their way back.

    Relay and learner stand beside kafka-python alone, with the same records on the same broker.
    Without --bootstrap a broker is started here: Tansu, or Apache Kafka with --broker kafka.
    """
    from bandit_router.bench.chaos.rig import rig
    from bandit_router.bench.grid import figure_grid
    from bandit_router.bench.speed import machine
    from bandit_router.bench.streaming import (
        LEGEND,
        QUICK,
        StreamingPlan,
        run_streaming,
        to_builtins,
    )

    _check_folder(out)
    start, where = time.perf_counter(), machine()
    with rig(broker or "tansu", bootstrap) as installed:
        plan = QUICK if quick else StreamingPlan()
        figures, name = run_streaming(plan, installed, stderr_console())
    seconds = time.perf_counter() - start
    about = (
        f"{name}, Python {where['python']}, {where['system']}, {where['cores']} cores, load "
        f"average {where['load']} at the start; took {seconds:,.0f} s"
    )
    result = to_builtins(figures, name, where, seconds)
    grids = [figure_grid(f"Streaming on {name}", figures)]
    _finish("streaming", result, grids, [about, LEGEND], out, markdown, json_output)


@app.command("chaos")
def chaos(
    quick: Annotated[
        bool, typer.Option("--quick", help="Each fault a few times, and for seconds only.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Only the fault of that name; may be repeated.")
    ] = None,
    bootstrap: BootstrapOption = None,
    broker: BrokerOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for chaos.json and chaos.md.")] = None,
    markdown: MarkdownOption = False,
    json_output: JsonOption = False,
) -> None:
    """Kill, halt, cut off and fill up everything under traffic, and count what that cost.

    Runs on Tansu, and on Apache Kafka where Java and its jars are (KAFKA_JARS); --broker chooses
    one of them. With --bootstrap it runs what needs no broker of its own. Exit code 1 when
    something was lost, doubled or different.
    """
    from contextlib import ExitStack

    from bandit_router.bench.chaos.finding import LEGEND, finding_grid, to_builtins
    from bandit_router.bench.chaos.plan import QUICK, Size, chosen, run_chaos
    from bandit_router.bench.chaos.rig import available, rig

    _check_folder(out)
    chosen(only or ())
    start = time.perf_counter()
    with ExitStack() as rigs:
        kinds = [broker] if broker or bootstrap else available()
        findings = run_chaos(
            [rigs.enter_context(rig(kind or "tansu", bootstrap)) for kind in kinds],
            QUICK if quick else Size(),
            stderr_console(),
            only or (),
        )
    seconds = time.perf_counter() - start
    result = to_builtins(findings, seconds)
    lines = [f"took {seconds:,.0f} s", LEGEND]
    _finish("chaos", result, [finding_grid(findings)], lines, out, markdown, json_output)
    if any(finding.survived is False for finding in findings):
        raise typer.Exit(1)


@app.command("calibration")
def calibration(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of the routing logs; default ../shared/data, where it exists."),
    ] = None,
    runs: Annotated[
        int | None, typer.Option(help="Runs of each kind; default 1000, with --quick 100.", min=2)
    ] = None,
    seed0: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer runs.")] = False,
    jobs: Annotated[int, typer.Option(help="Processes to use.", min=1)] = 2,
    out: Annotated[
        Path | None, typer.Option(help="Folder for calibration.json and calibration.md.")
    ] = None,
    markdown: MarkdownOption = False,
    json_output: JsonOption = False,
) -> None:
    """Confidence sequences, experiments and rollbacks beside the truth, looking at every row."""
    from bandit_router.bench.calibration import CalibrationPlan, run_calibration
    from bandit_router.bench.calibration_report import LEGEND, grids, to_builtins

    _check_folder(out)
    plan = CalibrationPlan(
        data=data, runs=runs or (100 if quick else 1000), seed0=seed0, processes=jobs
    )
    start = time.perf_counter()
    result = run_calibration(plan, stderr_console())
    seconds = time.perf_counter() - start
    lines = [f"{plan.runs:,} runs of each kind, took {seconds:,.0f} s", *result.notes, *LEGEND]
    _finish(
        "calibration",
        to_builtins(result, seconds),
        grids(result),
        lines,
        out,
        markdown,
        json_output,
    )


def _check_folder(out: Path | None) -> None:
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; name a folder")


def _folds(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(fold) for fold in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text!r}: use whole numbers, as in 2,3,4") from None


def _finish(
    name: str,
    result: dict[str, Any],
    grids: Sequence[Grid],
    lines: Sequence[str],
    out: Path | None,
    markdown: bool,
    json_output: bool,
) -> None:
    """Write the files that are asked for, then print the result."""
    from bandit_router.bench.grid import markdown as as_markdown
    from bandit_router.bench.grid import print_grid

    text = "\n".join([*map(as_markdown, grids), *(f"{line}\n" for line in lines)])
    if out is not None:
        _write(out, name, result, text)

    def human(console: Console) -> None:
        if markdown:
            console.print(text, markup=False, soft_wrap=True)
            return
        for grid in grids:
            print_grid(console, grid)
        for line in lines:
            console.print(line, markup=False)

    emit(result, json_output, human=human)


def _write(out: Path, name: str, result: dict[str, Any], text: str) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{name}.json").write_text(json.dumps(result, allow_nan=False), encoding="utf-8")
        (out / f"{name}.md").write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"cannot write to {out}: {error}") from error
