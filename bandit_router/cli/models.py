"""`bandit-router models`: the catalog that decisions are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bandit_router.cli.output import ConfigOption, JsonOption, emit

if TYPE_CHECKING:
    from rich.console import Console


def command(config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """List the models of the catalog, what they cost and why."""
    from bandit_router.config import load_settings
    from bandit_router.models import Catalog

    catalog = load_settings(config).catalog
    cheapest_first = Catalog(sorted(catalog, key=lambda spec: spec.prior_cost_usd()))
    rows = [
        {**row, "prior_cost_usd": spec.prior_cost_usd()}
        for spec, row in zip(cheapest_first, cheapest_first.to_builtins(), strict=True)
    ]
    emit({"digest": catalog.digest, "models": rows}, json_output, human=lambda c: _draw(c, rows))


def _draw(console: Console, rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("model", no_wrap=True)
    for title in ("USD/query", "in /1M", "out /1M", "window"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("price from", no_wrap=True, overflow="ellipsis")
    for row in rows:
        cells = [
            row["model"],
            f"{row['prior_cost_usd']:.3g}",
            _number(row["usd_per_1m_input"]),
            _number(row["usd_per_1m_output"]),
            _number(row["context_window"]),
            row["price_source"] or "-",
        ]
        table.add_row(*(Text(cell) for cell in cells))  # Text: names are no markup
    console.print(table)
    console.print("USD/query: what a typical query is taken to cost before anything was learned.")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,g}"
