"""The example logs that the package ``paretobandit`` ships, as outcome tables.

``paretobandit:val`` (1,785 prompts) and ``paretobandit:test_holdout`` (1,824 prompts), three models
each, with a judged reward and the recorded cost. The files are found without importing the package.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bandit_router.adapters.columns import file_sha256, read_json_lines
from bandit_router.adapters.tables import OutcomeTable, read_table
from bandit_router.errors import DependencyError, InputError, LogFormatError

PREFIX = "paretobandit:"
LOGS = ("val", "test_holdout")


def open_log(
    log: str | Path,
    *,
    models: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    limit: int | None = None,
    context_columns: Sequence[str] = (),
) -> OutcomeTable:
    """An outcome table by file name, or by the name of a packaged log.

    Args:
        log: a path for :func:`~bandit_router.adapters.tables.read_table`, or
            ``paretobandit:val`` / ``paretobandit:test_holdout``.
        models, folds, limit, context_columns: see ``read_table``.

    Raises:
        LogFormatError: the table is wrong, or the selection does not fit it.
        InputError: no packaged log has that name.
        DependencyError: the package is not installed.
    """
    if not str(log).startswith(PREFIX):
        return read_table(
            log, models=models, folds=folds, limit=limit, context_columns=context_columns
        )
    return read_pareto_log(
        str(log)[len(PREFIX) :],
        models=models,
        folds=folds,
        limit=limit,
        context_columns=context_columns,
    )


def read_pareto_log(
    name: str,
    *,
    models: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    limit: int | None = None,
    context_columns: Sequence[str] = (),
) -> OutcomeTable:
    """One of the packaged logs as an :class:`OutcomeTable`, its prompts' benchmark as ``task``.

    Raises:
        InputError, DependencyError, LogFormatError: see :func:`open_log`.
    """
    path = pareto_log_path(name)
    rows = list(read_json_lines(path))
    try:
        arms = tuple(rows[0]["arms"])
        scores = np.array([[float(r["arms"][a]["reward"]) for a in arms] for r in rows])
        costs = np.array([[float(r["arms"][a]["cost"]) for a in arms] for r in rows])
        prompts = tuple(str(r["prompt"]) for r in rows)
        tasks = tuple(str(r["source"]) for r in rows)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        what = f"not in the form of paretobandit 0.1: {error!r}"
        raise LogFormatError(what, path=str(path)) from error
    chosen = _positions(arms, models, path)
    if folds is not None:
        raise LogFormatError("no such column; --folds needs it", path=str(path), column="fold")
    if unknown := [c for c in context_columns if c != "task"]:
        raise LogFormatError("only 'task' is there", path=str(path), column=unknown[0])
    if not (np.all((scores >= 0) & (scores <= 1)) and np.all((costs >= 0) & (costs < np.inf))):
        raise LogFormatError("a reward is outside 0..1, or a cost negative", path=str(path))
    table = OutcomeTable(
        path=PREFIX + name,
        sha256=file_sha256(path),
        models=tuple(arms[i] for i in chosen),
        query_ids=tuple(f"{name}-{row:04d}" for row in range(len(rows))),
        prompts=prompts,
        scores=np.ascontiguousarray(scores[:, chosen]),
        costs_usd=np.ascontiguousarray(costs[:, chosen]),
        columns={"task": tasks},
    )
    return table if limit is None else table.take(range(min(limit, len(rows))))


def pareto_log_path(name: str) -> Path:
    """Where the packaged log lies. Raises InputError or DependencyError; see :func:`open_log`."""
    if name not in LOGS:
        choice = " or ".join(PREFIX + log for log in LOGS)
        raise InputError(f"no packaged log {PREFIX + name!r}: use {choice}")
    spec = importlib.util.find_spec("pareto_bandit")
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    for place in places:
        path = Path(place, "data", "examples", f"{name}.jsonl")
        if path.is_file():
            return path
    raise DependencyError(
        f"{PREFIX}{name} comes with the package 'paretobandit', which is not installed: "
        "pip install 'bandit-router[demo]'"
    )


def _positions(arms: tuple[str, ...], models: Sequence[str] | None, path: Path) -> list[int]:
    wanted = list(arms) if models is None else list(models)
    for model in wanted:
        if model not in arms:
            raise LogFormatError(
                f"unknown model {model!r}; the log has: {', '.join(arms)}", path=str(path)
            )
    if len(set(wanted)) != len(wanted):
        raise LogFormatError("a model is asked for twice", path=str(path))
    return [arms.index(model) for model in wanted]
