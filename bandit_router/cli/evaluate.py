"""`bandit-router evaluate INTERACTIONS`: what would another policy have got on these queries?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit_router.cli.output import ConfigOption, JsonOption, emit
from bandit_router.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from bandit_router.models import Catalog
    from bandit_router.store_ops.evaluating import Report, Request, TargetReport


def command(
    interactions: Annotated[
        Path,
        typer.Argument(help="Event log (.db), or an export of it (.jsonl, .parquet). Only read."),
    ],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Target, repeatable: logging, fixed (each model), fixed:MODEL, hull, strongest, "
            "cheapest, uniform; bandit, vw-epsilon, vw-squarecb, linucb, thompson (trained on the "
            "first part of the log, then frozen); a snapshot's file, its id, or newest. Default: "
            "logging, strongest, fixed, hull."
        ),
    ] = None,
    estimator: Annotated[
        str, typer.Option(help="Comma-separated: ips, snips, dr (doubly robust).")
    ] = "ips,snips,dr",
    quality_value: Annotated[
        float | None,
        typer.Option(
            help="What one fully good answer is worth, USD, in rewards and for policies. Default: "
            "the value logged with each interaction."
        ),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="USD per query for the hull. Default: what was spent."),
    ] = None,
    catalog: Annotated[
        Path | None,
        typer.Option(
            help="Price list (JSON or TOML). Default: that of the event log, else mean costs."
        ),
    ] = None,
    train_share: Annotated[
        float, typer.Option(help="Part of the log that policies are trained on first.")
    ] = 0.5,
    folding: Annotated[
        str,
        typer.Option(
            help="What predicts a row for dr: crossed (the other four of five folds) or past "
            "(the rows before it)."
        ),
    ] = "crossed",
    alpha: Annotated[float, typer.Option(help="1 - coverage of the intervals.")] = 0.05,
    jobs: Annotated[int, typer.Option(help="Processes to use.", min=1)] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Work on --jobs parts of the log on this Dask cluster, as in tcp://host:8786, "
            "whose workers must find the log under the same path (extra: cluster)."
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the interactions to this .jsonl or .parquet, and do no more."),
    ] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Estimate what another policy would have got on the logged queries.

    From the logged choices and their propensities: score, cost and reward per query, with
    intervals for a log of this length. A target whose choices had no chance in the log is refused.
    """
    if export is not None:
        _export(interactions, export, json_output)
        return
    from bandit_router.config import load_settings
    from bandit_router.store_ops.evaluating import DEFAULT_TARGETS, Request

    if folding not in ("crossed", "past"):
        raise InputError(f"--folding {folding!r}: use crossed or past")
    request = Request(
        log=interactions,
        policies=tuple(policy or DEFAULT_TARGETS),
        estimators=_names(estimator),
        quality_value_usd=quality_value,
        budget_usd=budget,
        folding=folding,
        alpha=alpha,
        train_share=train_share,
        catalog=None if catalog is None else _catalog(catalog),
        key=load_settings(config).snapshot_key,
        parts=jobs,
    )
    report = _evaluated(request, jobs, scheduler)
    emit(_builtins(report), json_output, human=lambda console: _show(console, report))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise InputError(f"--estimator {text!r}: an empty name between commas")
    return tuple(dict.fromkeys(names))


def _catalog(path: Path) -> Catalog:
    from bandit_router.adapters.price_list import read_whole_price_list

    return read_whole_price_list(path)


def _evaluated(request: Request, jobs: int, scheduler: str | None) -> Report:
    from bandit_router.store_ops.evaluating import evaluate
    from bandit_router.store_ops.part_workers import PartWorkers

    if scheduler is not None:
        from bandit_router.adapters.joblib_parts import DaskParts

        with DaskParts(scheduler) as run:
            return evaluate(request, run)
    if jobs == 1:
        return evaluate(request)
    with PartWorkers(jobs) as run:
        return evaluate(request, run)


def _export(source: Path, to: Path, json_output: bool) -> None:
    from bandit_router.adapters.interactions import export

    rows = export(source, to)
    emit(
        {"schema": "bandit_router.export/1", "log": str(source), "file": str(to), "rows": rows},
        json_output,
        human=lambda console: console.print(f"{rows:,} rows written to {to}", markup=False),
    )


def _builtins(report: Report) -> dict[str, Any]:
    import msgspec

    return msgspec.to_builtins(report)


def _show(console: Console, report: Report) -> None:
    left = ", ".join(f"{n:,} {reason}" for reason, n in report.left_out.items())
    lines = [
        f"{report.rows:,} interactions, {len(report.models)} models"
        + (f"; left out: {left}" if left else ""),
        "",
        _line("", "score", "cost USD", "reward"),
    ]
    for target in report.targets:
        lines += _about(target)
    interval = f"{1 - report.alpha:.0%} interval"
    lines += [
        "",
        *report.notes,
        f"Means per query with a {interval} each, for one look at a log of this length:",
        f"{report.interval}.",
    ]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _about(target: TargetReport) -> list[str]:
    """Everything about one target, as lines."""
    if target.refused:
        return [f"{target.name}  refused: {target.refused}"]
    worth = f"worth {target.effective_n:,.0f} rows, largest weight {target.largest_weight:,.4g}"
    lines = [f"{target.name}  ({worth})"]
    if target.about:
        lines.append(f"  {target.about}")
    for name in next(iter(target.estimates.values())):
        cells = [
            _cell(target.estimates[outcome][name], form)
            for outcome, form in (("score", ".3f"), ("cost_usd", ".3g"), ("reward", ".3f"))
        ]
        lines.append(_line(name, *cells))
    return lines


def _line(name: str, score: str, cost: str, reward: str) -> str:
    return f"  {name:<6}{score:>20}{cost:>30}{reward:>24}"


def _cell(figure: Any, form: str) -> str:
    if figure is None:
        return "unknown"
    return f"{figure.value:{form}} [{figure.low:{form}}, {figure.high:{form}}]"
