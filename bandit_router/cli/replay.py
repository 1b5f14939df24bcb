"""`bandit-router replay LOG`: run policies over a log of every model's outcomes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bandit_router.cli.output import JsonOption, emit, stderr_console
from bandit_router.errors import InputError
from bandit_router.progress import progress

if TYPE_CHECKING:
    from rich.console import Console

    from bandit_router.adapters.tables import OutcomeTable
    from bandit_router.replay import Plan
    from bandit_router.report.document import ReportDocument
    from bandit_router.report.measure import Measured

PARETO = "paretobandit"


def command(
    log: Annotated[
        str,
        typer.Argument(
            help="Outcome table (.parquet, .csv, .jsonl), or paretobandit:val, "
            "paretobandit:test_holdout."
        ),
    ],
    models: Annotated[
        str | None, typer.Option(help="Comma-separated models to choose from; default all.")
    ] = None,
    folds: Annotated[
        str | None, typer.Option(help="Comma-separated folds to replay; default all.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Replay the first N queries of the log only.", min=1)
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="Policy, repeatable: bandit, vw-epsilon, vw-squarecb, linucb, thompson, uniform, "
            "cheapest, strongest, fixed:MODEL, paretobandit (needs that package). "
            "Default: bandit and the baselines."
        ),
    ] = None,
    quality_value: Annotated[
        list[float] | None,
        typer.Option(
            help="What one fully good answer is worth, USD, repeatable. Default: three values, at "
            "which the best-scoring model's mean cost is 3 %, 30 % and all of it."
        ),
    ] = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(help="Hold mean cost per query at this many USD, repeatable."),
    ] = None,
    context_columns: Annotated[
        str | None,
        typer.Option(help="Comma-separated columns the policies may see: task, tenant, ctx_*."),
    ] = None,
    catalog: Annotated[
        Path | None,
        typer.Option(
            help="Price list (JSON or TOML) the policies know. Default: each model's mean cost in "
            "the log, blurred."
        ),
    ] = None,
    warm_start: Annotated[
        str | None,
        typer.Option(
            help="Log of the same models to learn first, with every model's outcome; queries that "
            "are replayed are left out of it."
        ),
    ] = None,
    delay: Annotated[int, typer.Option(help="Outcomes arrive this many queries later.", min=0)] = 0,
    seeds: Annotated[int, typer.Option(help="How many seeds to run.", min=1)] = 1,
    seed0: Annotated[int, typer.Option(help="The first seed.", min=0)] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.json and report.html.")
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Replay a log of outcomes through policies, one pass.

    Each query is decided first and learned from afterwards, and a policy sees the score and the
    cost of the model it chose, never of another. Figures are means over seeds.
    """
    from bandit_router.adapters.pareto_log import open_log
    from bandit_router.report.measure import document

    _check_options(policy, out)
    columns = _names(context_columns, "--context-columns") or ()
    table = open_log(
        log,
        models=_names(models, "--models"),
        folds=_folds(folds),
        limit=limit,
        context_columns=columns,
    )
    plan = _plan(table, policy, quality_value, budget, seeds, seed0, delay)
    prices = None if catalog is None else _prices(catalog, table)
    labelled = None if warm_start is None else _labelled(warm_start, table, columns)
    measured = _run(table, plan, prices, labelled, columns)
    result = document(table, measured)
    files = _write(out, result, table, measured) if out is not None else ()
    emit(
        _builtins(result),
        json_output,
        human=lambda console: _show(console, result, [str(file) for file in files]),
    )


# -- options ---------------------------------------------------------------------------------------


def _check_options(policies: list[str] | None, out: Path | None) -> None:
    from bandit_router.bootstrap import check_policy_name

    for name in policies or ():
        check_policy_name(name)
        if name == PARETO:
            from bandit_router.adapters.pareto import require_paretobandit

            require_paretobandit()
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; name a folder")


def _names(text: str | None, option: str) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise InputError(f"{option} {text!r}: an empty name between commas")
    return names


def _folds(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(fold) for fold in text.split(","))
    except ValueError:
        raise InputError(f"--folds {text!r}: use whole numbers, as in 2,3,4") from None


def _plan(
    table: OutcomeTable,
    policies: list[str] | None,
    quality_values: list[float] | None,
    budgets: list[float] | None,
    seeds: int,
    seed0: int,
    delay: int,
) -> Plan:
    from bandit_router.bootstrap import FIXED, POLICIES
    from bandit_router.replay import Plan, default_quality_values

    names = tuple(policies or (name for name in POLICIES if name != PARETO))
    for name in names:
        model = name.removeprefix(FIXED)
        if name.startswith(FIXED) and model not in table.models:
            known = ", ".join(table.models)
            raise InputError(f"--policy {name}: the log has no such model; it has: {known}")
    if not quality_values and not budgets:
        quality_values = list(default_quality_values(table))
    return Plan(
        policies=names,
        quality_values_usd=tuple(quality_values or ()),
        budgets_usd=tuple(budgets or ()),
        seeds=seeds,
        seed0=seed0,
        delay=delay,
    )


def _prices(path: Path, table: OutcomeTable) -> Any:
    from bandit_router.adapters.price_list import read_price_list

    return read_price_list(path, table.models, Path(table.path).stem)


def _labelled(log: str, table: OutcomeTable, columns: tuple[str, ...]) -> OutcomeTable:
    from bandit_router.adapters.pareto_log import open_log
    from bandit_router.replay import without_queries

    other = open_log(log, models=table.models, context_columns=columns)
    return without_queries(other, table)


# -- work ------------------------------------------------------------------------------------------


def _run(
    table: OutcomeTable,
    plan: Plan,
    prices: Any,
    labelled: OutcomeTable | None,
    columns: tuple[str, ...],
) -> list[Measured]:
    from bandit_router.bootstrap import make_policy
    from bandit_router.replay import Labelled, replay, table_features
    from bandit_router.report.measure import measure, observed

    tables = _embedded([t for t in (table, labelled) if t is not None])
    featurizers = _featurizers(plan)
    made = {
        name: [table_features(t, featurizer, columns) for t in tables]
        for name, featurizer in featurizers.items()
    }

    def features_of(place: int) -> Callable[[str], Any]:
        return lambda policy: made.get(policy, made[""])[place]

    def make(name: str, catalog: Any, seed: int, budget_usd: float | None) -> Any:
        options = {"budget_usd": budget_usd} if name == PARETO else {}
        dimension = featurizers.get(name, featurizers[""]).dimension
        return make_policy(name, catalog, dimension=dimension, seed=seed, **options)

    settings = list(plan.settings())
    with progress(stderr_console(), "replay", len(settings) * len(table)) as tick:
        traces = replay(
            plan,
            table,
            features_of(0),
            make,
            prices=prices,
            warm=None if labelled is None else Labelled(labelled, features_of(1)),
            featurizer_id=featurizers[""].featurizer_id,
            tick=tick,
        )
        return [measure(table, trace, observed(table, trace)) for trace in traces]


def _embedded(tables: list[OutcomeTable]) -> list[OutcomeTable]:
    missing = sum(len(t) for t in tables if t.embeddings is None)
    if not missing:
        return tables
    from bandit_router.adapters.embedding import make_embedder
    from bandit_router.replay import embedded

    embedder = make_embedder()
    with progress(stderr_console(), "embedding prompts", missing) as tick:
        return [embedded(t, embedder, tick) for t in tables]


def _featurizers(plan: Plan) -> dict[str, Any]:
    """Featurizer by policy name; "" is everybody's, a foreign policy has its own."""
    from bandit_router.bootstrap import make_featurizer

    featurizers: dict[str, Any] = {"": make_featurizer(embed=False)}
    if PARETO in plan.policies:
        from bandit_router.adapters.pareto import ParetoFeaturizer

        featurizers[PARETO] = ParetoFeaturizer()
    return featurizers


def _write(
    out: Path, result: ReportDocument, table: OutcomeTable, measured: list[Measured]
) -> tuple[Path, Path]:
    from bandit_router.report.document import write_report
    from bandit_router.report.page import render
    from bandit_router.report.replay_page import replay_page

    return write_report(out, result, render(replay_page(table, measured)))


# -- output ----------------------------------------------------------------------------------------


def _builtins(result: ReportDocument) -> dict[str, Any]:
    import msgspec

    return msgspec.to_builtins(result)


def _show(console: Console, result: ReportDocument, files: list[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from bandit_router.report.summary import HEADERS, LEGEND, summarise, summary_cells

    seeds = len({run.seed for run in result.runs})
    console.print(
        f"{result.log.queries:,} queries, {len(result.log.models)} models, "
        f"means over {seeds} seed{'s' if seeds > 1 else ''}"
    )
    summaries = summarise(result.runs)
    for at in dict.fromkeys(summary.at for summary in summaries):
        grid = Table(
            title=at, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
        )
        for header in HEADERS:
            name = header == "policy"
            grid.add_column(
                header,
                justify="left" if name else "right",
                no_wrap=not name,
                overflow="fold",
            )
        for row in summary_cells([s for s in summaries if s.at == at]):
            grid.add_row(*map(Text, row))  # Text: a model's name is never markup
        console.print(grid)
    console.print(LEGEND)
    for file in files:
        console.print(file, markup=False, soft_wrap=True)
