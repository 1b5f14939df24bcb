"""Outcome tables (contract C1): what every model scored and cost on every query.

One row per query and model: ``query_id, prompt, model, score, cost_usd`` are required; ``task``,
``tenant``, ``ts``, ``fold`` and any ``ctx_*`` are optional; other columns are ignored. A sibling
``NAME.emb.npy`` (one row per query, in the order of ``NAME.emb_ids.json``) supplies embeddings.

A table is checked whole before anything is done with it. Every fault is a
:class:`~bandit_router.errors.LogFormatError` that names the file, the row and the column.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from bandit_router.adapters.columns import Columns, file_sha256, read_columns
from bandit_router.errors import LogFormatError

REQUIRED = ("query_id", "prompt", "model", "score", "cost_usd")
EXAMPLE = "query_id,prompt,model,score,cost_usd"


@dataclass(frozen=True)
class OutcomeTable:
    """Full-information outcomes of n queries and K models, in file order of first appearance.

    Attributes:
        path: where the table was read.
        sha256: of the file's bytes.
        models: K model ids.
        query_ids: n distinct ids.
        prompts: n texts.
        scores: shape (n, K), float64, in 0..1.
        costs_usd: shape (n, K), float64, >= 0, finite.
        columns: context columns (``task``, ``tenant``, ``ctx_*``), each n texts.
        ts: shape (n,), seconds since the Unix epoch, or None.
        folds: shape (n,), integers, or None.
        embeddings: shape (n, e), float32, finite, or None.
    """

    path: str
    sha256: str
    models: tuple[str, ...]
    query_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    scores: np.ndarray
    costs_usd: np.ndarray
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ts: np.ndarray | None = None
    folds: np.ndarray | None = None
    embeddings: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.query_ids)

    def take(self, rows: np.ndarray | Sequence[int]) -> OutcomeTable:
        """The table of the given queries (indices), in that order."""
        index = np.asarray(rows, dtype=np.intp)
        picked = index.tolist()

        def some(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[index]

        return OutcomeTable(
            path=self.path,
            sha256=self.sha256,
            models=self.models,
            query_ids=tuple(self.query_ids[i] for i in picked),
            prompts=tuple(self.prompts[i] for i in picked),
            scores=self.scores[index],
            costs_usd=self.costs_usd[index],
            columns={name: tuple(texts[i] for i in picked) for name, texts in self.columns.items()},
            ts=some(self.ts),
            folds=some(self.folds),
            embeddings=some(self.embeddings),
        )

    def context(self, query: int, names: Sequence[str]) -> dict[str, str]:
        """The named context columns of one query. ``names`` must be in ``columns``."""
        return {name: self.columns[name][query] for name in names}


def read_table(
    path: str | Path,
    *,
    models: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    limit: int | None = None,
    context_columns: Sequence[str] = (),
) -> OutcomeTable:
    """Read and check an outcome table.

    Args:
        path: ``.parquet``, ``.csv`` or ``.jsonl``.
        models: keep these models, in this order; None keeps all. Cells of other models may be
            missing.
        folds: keep the queries whose ``fold`` is one of these.
        limit: keep the first queries only, after ``folds``.
        context_columns: columns that must be there (all context columns are read anyway).

    Raises:
        LogFormatError: see the module's docstring; also an unknown model, fold or column.
    """
    path = Path(path)
    raw = read_columns(path, _is_known)
    _require(raw, path)
    models = tuple(models) if models is not None else None
    kept = _keep_models(raw, models, path)
    table = _pivot(kept, path, models)
    for name in context_columns:
        if name not in table.columns:
            known = ", ".join(table.columns) or "none"
            raise LogFormatError(
                f"no such context column; the table has: {known} "
                "(task, tenant and ctx_* are context columns)",
                path=str(path),
                column=name,
            )
    return _some_queries(_with_embeddings(table, path), folds, limit)


def _is_known(name: str) -> bool:
    return name in REQUIRED or name in ("ts", "fold") or _is_context(name)


def _is_context(name: str) -> bool:
    return name in ("task", "tenant") or name.startswith("ctx_")


# -- checks of the raw columns ---------------------------------------------------------------------


def _require(raw: Columns, path: Path) -> None:
    for name in REQUIRED:
        if name not in raw and (raw or path.suffix.lower() != ".jsonl"):
            raise LogFormatError(
                f"missing column; an outcome table needs {EXAMPLE}", path=str(path), column=name
            )
    if not raw or not raw["score"]:
        raise LogFormatError("the table has no rows", path=str(path))


def _texts(raw: Columns, name: str, path: Path) -> list[str]:
    """A column as texts. Whole numbers become text (ids often are numbers); null is an error."""
    cells = raw[name]
    if all(type(cell) is str for cell in cells):
        texts = cells
    else:
        texts = [_text(cell, row, name, path) for row, cell in enumerate(cells, 1)]
    if name != "prompt" and "" in texts:
        raise LogFormatError("is empty", path=str(path), row=texts.index("") + 1, column=name)
    return texts


def _text(cell: Any, row: int, name: str, path: Path) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    what = "is missing" if cell is None else f"{cell!r} is not text"
    raise LogFormatError(what, path=str(path), row=row, column=name)


def _numbers(cells: list[Any], name: str, path: Path) -> np.ndarray:
    """A column as float64; what is no number is an error, null becomes NaN (checked later)."""
    try:
        return np.array(cells, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        for row, cell in enumerate(cells, 1):
            try:
                float("nan" if cell is None else cell)
            except (TypeError, ValueError, OverflowError):
                raise LogFormatError(
                    f"{cell!r} is not a number", path=str(path), row=row, column=name
                ) from None
        raise


def _check_range(values: np.ndarray, bad: np.ndarray, name: str, rule: str, path: Path) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        value = values[row]
        what = "is missing or NaN" if math.isnan(value) else f"{value:g} {rule}"
        raise LogFormatError(what, path=str(path), row=row + 1, column=name)


def _checked_numbers(raw: Columns, path: Path) -> tuple[np.ndarray, np.ndarray]:
    score = _numbers(raw["score"], "score", path)
    rule = "is outside 0..1: scale scores so that 1 is a fully good answer"
    _check_range(score, ~((score >= 0.0) & (score <= 1.0)), "score", rule, path)
    cost = _numbers(raw["cost_usd"], "cost_usd", path)
    rule = "must be finite and not negative, in USD"
    _check_range(cost, ~((cost >= 0.0) & (cost < np.inf)), "cost_usd", rule, path)
    return score, cost


def _codes(texts: list[str]) -> tuple[np.ndarray, list[str]]:
    """(index into the distinct texts for each row, distinct texts by first appearance)."""
    seen: dict[str, int] = {}
    codes = np.fromiter((seen.setdefault(t, len(seen)) for t in texts), np.int64, len(texts))
    return codes, list(seen)


# -- from rows to matrices -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """Checked rows of the wanted models; ``number`` is the 1-based row in the file."""

    raw: Columns
    number: np.ndarray
    query: list[str]
    model: list[str]
    score: np.ndarray
    cost: np.ndarray


def _keep_models(raw: Columns, models: tuple[str, ...] | None, path: Path) -> _Rows:
    score, cost = _checked_numbers(raw, path)
    query, model = _texts(raw, "query_id", path), _texts(raw, "model", path)
    raw = {**raw, "prompt": _texts(raw, "prompt", path)}
    number = np.arange(1, len(query) + 1)
    if models is None:
        return _Rows(raw, number, query, model, score, cost)
    present = dict.fromkeys(model)
    for name in models:
        if name not in present:
            raise LogFormatError(
                f"unknown model {name!r}; the table has: {', '.join(present)}", path=str(path)
            )
    if len(set(models)) != len(models):
        raise LogFormatError("a model is asked for twice", path=str(path))
    wanted = set(models)
    keep = np.fromiter((name in wanted for name in model), bool, len(model))
    rows = np.flatnonzero(keep).tolist()
    return _Rows(
        {name: [cells[i] for i in rows] for name, cells in raw.items()},
        number[keep],
        [query[i] for i in rows],
        [model[i] for i in rows],
        score[keep],
        cost[keep],
    )


def _pivot(rows: _Rows, path: Path, models: tuple[str, ...] | None) -> OutcomeTable:
    query, query_ids = _codes(rows.query)
    model, names = _codes(rows.model)
    n, k = len(query_ids), len(names)
    cell = query * k + model
    _check_cells(cell, rows, n, k, query_ids, names, path)
    scores, costs = np.empty(n * k), np.empty(n * k)
    scores[cell], costs[cell] = rows.score, rows.cost
    order = [names.index(m) for m in models] if models is not None else list(range(k))
    first = np.empty(n, dtype=np.int64)
    first[query[::-1]] = np.arange(len(query))[::-1]
    return OutcomeTable(
        path=str(path),
        sha256=file_sha256(path),
        models=tuple(names[i] for i in order),
        query_ids=tuple(query_ids),
        prompts=tuple(_per_query(rows, "prompt", query, first, path)),
        scores=np.ascontiguousarray(scores.reshape(n, k)[:, order]),
        costs_usd=np.ascontiguousarray(costs.reshape(n, k)[:, order]),
        columns={
            name: tuple(_context_text(v) for v in _per_query(rows, name, query, first, path))
            for name in rows.raw
            if _is_context(name)
        },
        ts=_times(rows, query, first, path),
        folds=_folds(rows, query, first, path),
    )


def _check_cells(
    cell: np.ndarray,
    rows: _Rows,
    n: int,
    k: int,
    query_ids: list[str],
    names: list[str],
    path: Path,
) -> None:
    counts = np.bincount(cell, minlength=n * k)
    if (counts > 1).any():
        twice = int(np.argmax(counts > 1))
        at = rows.number[np.flatnonzero(cell == twice)[1]]
        raise LogFormatError(
            f"query {query_ids[twice // k]!r} has a second row for model {names[twice % k]!r}: "
            "keep one row per query and model",
            path=str(path),
            row=int(at),
            column="model",
        )
    if (counts == 0).any():
        gone = int(np.argmax(counts == 0))
        at = rows.number[np.flatnonzero(cell // k == gone // k)[0]]
        raise LogFormatError(
            f"query {query_ids[gone // k]!r} (first seen here) has no row for model "
            f"{names[gone % k]!r}: every query needs every model; drop the query, or choose models",
            path=str(path),
            row=int(at),
            column="model",
        )


def _per_query(
    rows: _Rows, name: str, query: np.ndarray, first: np.ndarray, path: Path
) -> list[Any]:
    """The column's value of each query, which must be the same in all its rows.

    A context column that differs between models could tell what a model answered.
    """
    cells = rows.raw[name]
    values = [cells[i] for i in first.tolist()]
    for row, code in enumerate(query.tolist()):
        if cells[row] != values[code]:
            raise LogFormatError(
                f"differs from the first row of query {rows.query[row]!r}: what describes the "
                "query must be the same for every model",
                path=str(path),
                row=int(rows.number[row]),
                column=name,
            )
    return values


def _context_text(value: Any) -> str:
    return "" if value is None else str(value)


def _folds(rows: _Rows, query: np.ndarray, first: np.ndarray, path: Path) -> np.ndarray | None:
    if "fold" not in rows.raw:
        return None
    values = _numbers(_per_query(rows, "fold", query, first, path), "fold", path)
    bad = ~(np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) < 2**31))
    if bad.any():
        at = rows.number[first[int(np.argmax(bad))]]
        raise LogFormatError("must be a whole number", path=str(path), row=int(at), column="fold")
    return values.astype(np.int64)


def _times(rows: _Rows, query: np.ndarray, first: np.ndarray, path: Path) -> np.ndarray | None:
    if "ts" not in rows.raw:
        return None
    cells = _per_query(rows, "ts", query, first, path)
    if all(cell is None for cell in cells):
        return None
    times = np.empty(len(cells))
    for index, cell in enumerate(cells):
        seconds = _seconds(cell)
        if not math.isfinite(seconds):
            raise LogFormatError(
                f"{cell!r} is neither seconds since 1970 nor an ISO 8601 time",
                path=str(path),
                row=int(rows.number[first[index]]),
                column="ts",
            )
        times[index] = seconds
    return times


def _seconds(cell: Any) -> float:
    """Seconds since the Unix epoch (a time without zone is UTC), or NaN."""
    if isinstance(cell, str):
        try:
            return float(cell)
        except ValueError:
            try:
                cell = datetime.fromisoformat(cell)
            except ValueError:
                return math.nan
    if isinstance(cell, datetime):
        aware = cell if cell.tzinfo else cell.replace(tzinfo=UTC)
        return aware.timestamp()
    return float(cell) if isinstance(cell, int | float) else math.nan


# -- embeddings and selection ----------------------------------------------------------------------


def _with_embeddings(table: OutcomeTable, path: Path) -> OutcomeTable:
    matrix_path = path.with_name(f"{path.stem}.emb.npy")
    ids_path = path.with_name(f"{path.stem}.emb_ids.json")
    if not matrix_path.exists() and not ids_path.exists():
        return table
    if not (matrix_path.exists() and ids_path.exists()):
        gone = ids_path if matrix_path.exists() else matrix_path
        raise LogFormatError("no such file, but its sibling is there", path=str(gone))
    ids, matrix = _embedding_ids(ids_path), _embedding_matrix(matrix_path)
    if matrix.shape[0] != len(ids):
        raise LogFormatError(
            f"has {matrix.shape[0]} rows where {ids_path.name} lists {len(ids)} ids",
            path=str(matrix_path),
        )
    position = {query_id: row for row, query_id in enumerate(ids)}
    rows = [position.get(query_id, -1) for query_id in table.query_ids]
    if -1 in rows:
        lost = table.query_ids[rows.index(-1)]
        raise LogFormatError(f"query {lost!r} of the table is not listed", path=str(ids_path))
    return OutcomeTable(**{**table.__dict__, "embeddings": matrix[rows].astype(np.float32)})


def _embedding_ids(path: Path) -> list[str]:
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LogFormatError(f"not readable JSON: {error}", path=str(path)) from error
    if not isinstance(ids, list) or not all(isinstance(i, str | int) for i in ids):
        raise LogFormatError("must be a JSON list of query ids", path=str(path))
    texts = [str(i) for i in ids]
    if len(set(texts)) != len(texts):
        raise LogFormatError("lists a query id twice", path=str(path))
    return texts


def _embedding_matrix(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as stream:  # np.load leaves a path it cannot read open
            matrix = np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, TokenError) as error:
        raise LogFormatError(f"not a readable .npy file: {error}", path=str(path)) from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise LogFormatError("must be a matrix of floats, one row per query", path=str(path))
    finite = np.isfinite(matrix).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite)) + 1
        raise LogFormatError("has a value that is not finite", path=str(path), row=row)
    return matrix


def _some_queries(
    table: OutcomeTable, folds: Sequence[int] | None, limit: int | None
) -> OutcomeTable:
    rows = np.arange(len(table))
    if folds is not None:
        if table.folds is None:
            raise LogFormatError("no such column; --folds needs it", path=table.path, column="fold")
        rows = rows[np.isin(table.folds, list(folds))]
        if not len(rows):
            known = ", ".join(str(f) for f in np.unique(table.folds))
            wanted = ", ".join(str(f) for f in folds)
            raise LogFormatError(
                f"no query is in fold {wanted}; the table has folds {known}",
                path=table.path,
                column="fold",
            )
    return table if limit is None and folds is None else table.take(rows[:limit])
