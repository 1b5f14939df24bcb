"""`bandit-router experiment status|report|stop`: who was exposed to what, and what came of it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit_router.cli.output import ConfigOption, JsonOption, command_group, emit

if TYPE_CHECKING:
    from rich.console import Console

    from bandit_router.store_ops.exposures import Exposed

app = command_group("Look at the experiment that a rollout is, compare its variants, end it.")

DbOption = Annotated[
    Path | None, typer.Option("--db", help="The event log to read. Default: store.path.")
]


class Keep(StrEnum):
    """Who serves after an experiment."""

    STATIC = "static"
    BANDIT = "bandit"


@app.command("status")
def status(
    config: ConfigOption = None,
    db: DbOption = None,
    json_output: JsonOption = False,
) -> None:
    """Count units and decisions per variant, and test whether units were split as the flag said.

    Read from the decisions of the log, each of which records its unit and its variant. The test may
    be looked at as often as you like. A mismatch means that the variants cannot be compared.
    """
    from bandit_router.adapters.sqlite import SqliteStore
    from bandit_router.config import load_settings
    from bandit_router.store_ops.exposures import exposed

    path = load_settings(config).store.path if db is None else db
    with SqliteStore.open(path, create=False, read_only=True) as store:
        result = _result(path, exposed(store))
    emit(result, json_output, human=lambda console: _draw(console, result))


@app.command("report")
def report(
    config: ConfigOption = None,
    db: DbOption = None,
    margin: Annotated[
        float,
        typer.Option(help="Scores that differ by no more than this are equal.", min=0.0, max=1.0),
    ] = 0.02,
    json_output: JsonOption = False,
) -> None:
    """Compare bandit with static by unit, with intervals that hold whenever one looks.

    A unit counts with its first decision under the flag, once that decision's attribution window
    has closed. Units are taken in the order of first exposure, so one that is still open holds up
    those behind it.
    """
    from bandit_router.adapters.sqlite import SqliteStore
    from bandit_router.config import load_settings
    from bandit_router.store_ops.experiment import as_json, cost_limit
    from bandit_router.store_ops.experiment import report as compare

    settings = load_settings(config)
    path = settings.store.path if db is None else db
    value = settings.policy.quality_value_usd
    with SqliteStore.open(path, create=False, read_only=True) as store:
        found = compare(
            store,
            quality_value_usd=value,
            cost_limit_usd=cost_limit(settings.catalog),
            margin=margin,
        )
    about = {"schema": "bandit_router.experiment_report/1", "log": str(path), "margin": margin}
    result = about | {"quality_value_usd": value} | as_json(found)
    emit(result, json_output, human=lambda console: _draw_report(console, result))


@app.command("stop")
def stop(
    keep: Annotated[Keep, typer.Option(help="Who serves from now on.")],
    why: Annotated[str, typer.Option(help="The reason, for the log.")] = "experiment stopped",
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """End the experiment: one variant serves everybody from now on, and the log says why.

    With --keep static the flag is switched off; with --keep bandit the bandit gets everybody but
    the uniform holdout. Every router logs the change with its reason.
    """
    from bandit_router.cli.rollout import change_flag, settled_rollback
    from bandit_router.rollout.flag_document import flag_state, switched_off, with_split
    from bandit_router.rollout.split import split

    def change(document: dict[str, Any], flag: str, where: str) -> dict[str, Any]:
        if keep is Keep.STATIC:
            return switched_off(document, flag, why)
        known = flag_state(document, flag, where).split
        explore = 0.0 if known is None else known.percent["explore"]
        kept = with_split(document, flag, split(100.0 - explore, explore=explore), why)
        return settled_rollback(document, kept, flag, where, lift=False)

    change_flag(config, change, replace_broken=keep is Keep.STATIC, json_output=json_output)


def _draw_report(console: Console, result: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("by unit", no_wrap=True)
    for title in ("bandit", "static", "less static", "from", "to", "units", "left out"):
        table.add_column(title, justify="right")
    for name, row in result["measures"].items():
        numbers = (row[k] for k in ("bandit", "static", "difference", "lower", "upper"))
        shown = ["-" if number is None else f"{number:.4g}" for number in numbers]
        table.add_row(name, *shown, f"{row['units']:,}", f"{row['missing']:,}")
    console.print(table)
    console.print(Text("each interval holds with 95 % at every number of units"))
    console.print(Text(result["verdict"]["sentence"]))
    if result["assumes"]:
        console.print(Text(result["assumes"]))
    if result["capped_costs"]:
        console.print(
            Text(
                f"{result['capped_costs']:,} units cost more than "
                f"${result['cost_limit_usd']:.4g} and count with that"
            )
        )
    console.print(
        Text(
            f"reward = score - cost / ${result['quality_value_usd']:g}; {result['waiting']:,} "
            "decisions wait for feedback, their own or that of one before them"
        )
    )


def _result(path: Path, found: Exposed) -> dict[str, Any]:
    from bandit_router.ope.sample_ratio import ALPHA

    split = found.split
    return {
        "schema": "bandit_router.experiment_status/1",
        "log": str(path),
        "variants": {
            variant: {
                "units": found.units[variant],
                "decisions": found.decisions[variant],
                "first_exposures": split.observed[variant],
                "expected": split.expected[variant],
            }
            for variant in found.units
        },
        "units_moved": found.moved,
        "sample_ratio": {
            "units": split.units,
            "not_tested": found.not_tested,
            "p_value": split.p_value,
            "alpha": ALPHA,
            "mismatch": split.mismatch(),
        },
    }


def _draw(console: Console, result: dict[str, Any]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("variant")
    for title in ("units", "decisions", "tested units", "expected"):
        table.add_column(title, justify="right")
    for variant, row in result["variants"].items():
        table.add_row(
            variant,
            f"{row['units']:,}",
            f"{row['decisions']:,}",
            f"{row['first_exposures']:,}",
            f"{row['expected']:,.1f}",
        )
    console.print(table)
    ratio = result["sample_ratio"]
    if not ratio["units"]:
        verdict = "no unit to test: the log has no decision under a flag whose shares it knows"
    elif ratio["mismatch"]:
        verdict = "units are not split as the flag says: do not compare the variants"
    else:
        verdict = "nothing speaks against the split that the flag says"
    console.print(Text(f"{verdict} (anytime-valid p = {ratio['p_value']:.3g})"))
    console.print(Text(f"{result['units_moved']:,} units met a second variant later"))
