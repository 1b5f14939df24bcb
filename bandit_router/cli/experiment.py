"""`bandit-router experiment status`: who was exposed to which variant, and as it should be?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit_router.cli.output import ConfigOption, JsonOption, command_group, emit

if TYPE_CHECKING:
    from rich.console import Console

    from bandit_router.store_ops.exposures import Exposed

app = command_group("Look at the experiment that a rollout is: who was exposed to what.")


@app.callback()
def group() -> None:
    """Keep `status` a word of its own although it is the only one."""


@app.command("status")
def status(
    config: ConfigOption = None,
    db: Annotated[
        Path | None, typer.Option(help="The event log to read. Default: store.path.")
    ] = None,
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
