"""Logged interactions as Parquet: one row each, wide and numeric, for notebooks and large logs.

Columns: ``event_id, unit_id, app, tenant, variant, action, slice`` (text), ``learn`` (boolean),
``ts, closed_ts, propensity, quality_value_usd, score, cost_usd, latency_s`` (float64, NaN where
unknown), ``pmf.MODEL`` for every model (float64, NaN where it was not eligible), ``x.000`` and on
(float32, the dense features), and ``ngrams, columns, escalations`` (JSON text). Changes of the
catalog are no interactions and stay behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from bandit_router.adapters.vocabulary import (
    BATCH,
    FORCED,
    NO_OUTCOME,
    NOT_LEARNED,
    Vocabulary,
    action_columns,
    fold_keys,
)
from bandit_router.errors import InputError, LogFormatError
from bandit_router.events import decode_row
from bandit_router.ope.logged import Logged
from bandit_router.types import Features, Interaction

_TEXTS = ("event_id", "unit_id", "app", "tenant", "variant", "action", "slice")
_NUMBERS = (
    "ts", "closed_ts", "propensity", "quality_value_usd", "score", "cost_usd", "latency_s",
)  # fmt: skip
_NEEDED = (
    "event_id", "unit_id", "action", "slice", "learn", "propensity", "quality_value_usd", "score",
    "cost_usd",
)  # fmt: skip
_PMF, _X = "pmf.", "x."
_MAGIC = b"PAR1"


def read_parquet(
    path: Path,
    vocabulary: Vocabulary,
    left_out: Counter[str],
    *,
    contexts: bool,
    after: int,
    until: int | None,
) -> Iterator[Logged]:
    """See :func:`bandit_router.adapters.interactions.read_interactions`."""
    end, last = 0, until if until is not None else 2**63 - 1
    for batch in _batches(path):
        start, end = end, end + batch.num_rows
        if start >= last:
            return
        if end <= after:
            continue
        first, stop = max(after - start, 0), min(last - start, batch.num_rows)
        log = _logged(batch.slice(first, stop - first), start + first, vocabulary, left_out, path,
                      contexts=contexts)  # fmt: skip
        if len(log):
            yield log


def count_rows(path: Path) -> int:
    """How many rows the file has."""
    return sum(batch.num_rows for batch in _batches(path))


def _batches(path: Path) -> Iterator[Any]:
    from arro3.io import read_parquet as read

    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise LogFormatError(what, path=str(path))
    with _translated(path):
        with path.open("rb") as stream:
            head = stream.read(4)
            stream.seek(-4, 2)
            if (head, stream.read(4)) != (_MAGIC, _MAGIC):
                raise LogFormatError("not a readable Parquet file", path=str(path))
        batches = iter(read(str(path), batch_size=BATCH))
    while True:
        with _translated(path):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except LogFormatError:
        raise
    except OSError as error:
        raise LogFormatError(f"not a readable Parquet file: {error}", path=str(path)) from error
    except Exception as error:  # arro3 raises plain Exception
        raise LogFormatError(f"not a readable Parquet file: {error}", path=str(path)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of the foreign runtime, on damaged files
            raise
        raise LogFormatError(f"not a readable Parquet file: {error}", path=str(path)) from error


def _logged(
    batch: Any,
    start: int,
    vocabulary: Vocabulary,
    left_out: Counter[str],
    path: Path,
    *,
    contexts: bool,
) -> Logged:
    names = list(batch.schema.names)
    shares = [name for name in names if name.startswith(_PMF)]
    dense = sorted(name for name in names if name.startswith(_X))
    wanted = (*_NEEDED, "ngrams", "columns") if contexts else _NEEDED
    for name in wanted:
        if name not in names:
            raise LogFormatError("no such column", path=str(path), column=name)
    if not shares:
        raise LogFormatError("no column of any model's probability", path=str(path), column="pmf.*")
    columns = vocabulary.columns(tuple(name.removeprefix(_PMF) for name in shares))
    models = vocabulary.models
    n = batch.num_rows
    pmf, mask = np.zeros((n, len(models))), np.zeros((n, len(models)), dtype=bool)
    given = np.stack([_numbers(batch, name, path) for name in shares], axis=1)
    mask[:, columns] = ~np.isnan(given)
    pmf[:, columns] = np.nan_to_num(given, nan=0.0)
    score, cost = _numbers(batch, "score", path), _numbers(batch, "cost_usd", path)
    usable = _usable(batch, np.isnan(score) & np.isnan(cost), left_out)
    position = np.arange(start + 1, start + n + 1)
    features = [_numbers(batch, name, path).astype(np.float32) for name in dense]
    units, events = batch["unit_id"].to_pylist(), batch["event_id"].to_pylist()
    log = Logged(
        models=models,
        position=position,
        action=action_columns(batch["action"].to_pylist(), position, vocabulary, path),
        propensity=_numbers(batch, "propensity", path),
        pmf=pmf,
        eligible=mask,
        score=score,
        cost_usd=cost,
        quality_value_usd=_numbers(batch, "quality_value_usd", path),
        features=np.stack(features, axis=1) if features else np.zeros((n, 0), np.float32),
        fold_key=fold_keys(unit or event for unit, event in zip(units, events, strict=True)),
    )
    if contexts:
        log = _with_contexts(log, batch, path)
    return log if usable.all() else log.take(usable)


def _numbers(batch: Any, name: str, path: Path) -> np.ndarray:
    try:
        cells = batch[name].to_pylist() if batch[name].null_count else batch[name].to_numpy()
        return np.array(cells, dtype=np.float64)  # a null becomes NaN
    except (TypeError, ValueError) as error:
        raise LogFormatError(
            f"not a column of numbers: {error}", path=str(path), column=name
        ) from error


def _usable(batch: Any, unknown: np.ndarray, left_out: Counter[str]) -> np.ndarray:
    forced = np.array([part == "forced" for part in batch["slice"].to_pylist()], dtype=bool)
    unlearned = ~np.array(batch["learn"].to_pylist(), dtype=bool) & ~forced
    unknown = unknown & ~forced & ~unlearned
    for reason, rows in ((FORCED, forced), (NOT_LEARNED, unlearned), (NO_OUTCOME, unknown)):
        if rows.any():
            left_out[reason] += int(rows.sum())
    return ~(forced | unlearned | unknown)


def _with_contexts(log: Logged, batch: Any, path: Path) -> Logged:
    from dataclasses import replace

    dense = log.features.astype(np.float64)
    try:
        ngrams = [msgspec.json.decode(t, type=tuple[int, ...]) for t in batch["ngrams"].to_pylist()]
        columns = [
            msgspec.json.decode(t, type=dict[str, str]) for t in batch["columns"].to_pylist()
        ]
    except (msgspec.DecodeError, TypeError) as error:
        raise LogFormatError(f"ngrams or columns: {error}", path=str(path)) from error
    return replace(
        log,
        contexts=[
            Features(dense=dense[i], ngrams=ngrams[i], columns=columns[i]) for i in range(len(log))
        ],
    )


def write_parquet(payloads: Iterable[tuple[int, bytes]], to: Path) -> int:
    """Write the interactions among encoded rows of a training log; returns how many.

    All of them are in memory once.
    """
    vocabulary, rows = Vocabulary(), _Columns()
    for _, payload in payloads:
        row = decode_row(payload)
        if isinstance(row, Interaction):
            rows.add(row, vocabulary)
    pmf, dense = rows.arrays(len(vocabulary.models))
    numbers = {name: np.array(values) for name, values in rows.numbers.items()}
    write_columns(
        to,
        texts=rows.texts,
        learn=np.array(rows.learn, dtype=bool),
        numbers=numbers,
        pmf=dict(zip(vocabulary.models, pmf.T, strict=True)),
        dense=dense,
    )
    return len(rows.learn)


def write_columns(
    to: Path,
    *,
    texts: Mapping[str, Sequence[str]],
    learn: np.ndarray,
    numbers: Mapping[str, np.ndarray],
    pmf: Mapping[str, np.ndarray],
    dense: np.ndarray,
) -> None:
    """Write columns, all of the same length, under the names of the module's docstring.

    Args:
        pmf: by model.
        dense: (n, d).

    Raises:
        InputError: the file cannot be written.
    """
    from arro3.core import Array, DataType, Table
    from arro3.io import write_parquet as write

    data = {name: Array(list(cells), type=DataType.string()) for name, cells in texts.items()}
    data["learn"] = Array.from_numpy(learn)
    columns = {**numbers, **{_PMF + model: shares for model, shares in pmf.items()}}
    for name, values in columns.items():
        data[name] = Array.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
    for i, values in enumerate(dense.T):
        data[f"{_X}{i:03d}"] = Array.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    try:
        write(Table.from_pydict(data), str(to), compression="zstd(3)", max_row_group_size=65_536)
    except Exception as error:  # arro3 raises plain Exception
        raise InputError(f"{to} cannot be written: {error}") from error


class _Columns:
    """Rows that become columns."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {
            name: [] for name in (*_TEXTS, "ngrams", "columns", "escalations")
        }
        self.numbers: dict[str, list[float]] = {name: [] for name in _NUMBERS}
        self.learn: list[bool] = []
        self._pmf: list[tuple[np.ndarray, tuple[float, ...]]] = []
        self._dense: list[np.ndarray] = []

    def add(self, row: Interaction, vocabulary: Vocabulary) -> None:
        """Take one row."""
        for name in _TEXTS:
            self.texts[name].append(getattr(row, name))
        features = row.features
        self.texts["ngrams"].append(msgspec.json.encode(features.ngrams).decode())
        self.texts["columns"].append(msgspec.json.encode(features.columns).decode())
        self.texts["escalations"].append(msgspec.json.encode(row.escalations).decode())
        for name in _NUMBERS:
            value = getattr(row, name)
            self.numbers[name].append(np.nan if value is None else value)
        self.learn.append(row.learn)
        self._pmf.append((vocabulary.columns(row.eligible), row.pmf))
        self._dense.append(features.dense.astype(np.float32))

    def arrays(self, models: int) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (n, K), NaN where not eligible, and features (n, d)."""
        pmf = np.full((len(self._pmf), models), np.nan)
        for i, (columns, shares) in enumerate(self._pmf):
            pmf[i, columns] = shares
        lengths = {len(x) for x in self._dense}
        if len(lengths) > 1:
            raise InputError(
                f"the log has features of {len(lengths)} lengths; export it as JSON Lines"
            )
        return pmf, np.array(self._dense) if self._dense else np.zeros((0, 0), np.float32)
