"""Logged interactions as arrays, from a store or an export, in batches of bounded size.

A store (``.db``) is read only. An export is JSON Lines, one row of the training log each
(:mod:`bandit_router.events.rows`), or Parquet (:mod:`bandit_router.adapters.interactions_parquet`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice
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
from bandit_router.ope.logged import Logged
from bandit_router.types import Features, Slice

STORE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
LINE_SUFFIXES = (".jsonl", ".ndjson")


class _FeaturesRead(msgspec.Struct):
    dense: list[float]


class _AllFeaturesRead(msgspec.Struct):
    dense: list[float]
    ngrams: tuple[int, ...] = ()
    columns: dict[str, str] = {}


class _RowRead(msgspec.Struct, tag_field="type", tag="interaction"):
    """The part of a row that evaluation needs; the rest is skipped, not decoded."""

    event_id: str
    unit_id: str
    features: _FeaturesRead
    eligible: tuple[str, ...]
    pmf: list[float]
    action: str
    propensity: float
    slice: Slice
    learn: bool
    quality_value_usd: float
    score: float | None
    cost_usd: float | None


class _WholeRowRead(_RowRead, tag_field="type", tag="interaction"):
    features: _AllFeaturesRead


class _OtherRow(msgspec.Struct, tag_field="type", tag="change"):
    """A change of the catalog, which is no interaction."""


def read_interactions(
    path: Path,
    vocabulary: Vocabulary,
    left_out: Counter[str],
    *,
    contexts: bool = False,
    after: int = 0,
    until: int | None = None,
) -> Iterator[Logged]:
    """The interactions of a log that were drawn and had an outcome, in order.

    Args:
        path: a store (.db, .sqlite, .sqlite3), .jsonl, .ndjson or .parquet.
        vocabulary: takes the models that are met. A batch has the columns of those met so far.
        left_out: counts rows that are left out, by reason.
        contexts: whether a policy is to be asked, which needs every part of the features.
        after, until: only rows with ``after < position <= until``. A row's position is its
            ``learn_seq`` in a store, and its number from 1 in a file.

    Raises:
        LogFormatError, InputError, StorageError: the file is missing, damaged or no such log; the
            message names the row.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        from bandit_router.adapters.interactions_parquet import read_parquet

        yield from read_parquet(
            path, vocabulary, left_out, contexts=contexts, after=after, until=until
        )
        return
    if suffix in STORE_SUFFIXES:
        payloads = _stored(path, after, until)
    elif suffix in LINE_SUFFIXES:
        payloads = _lines(path, after, until)
    else:
        raise _unknown_extension(path)
    decoder = msgspec.json.Decoder((_WholeRowRead if contexts else _RowRead) | _OtherRow)
    while page := list(islice(payloads, BATCH)):
        rows = [(at, _decode(decoder, payload, at, path)) for at, payload in page]
        kept = [(at, row) for at, row in rows if _is_usable(row, left_out)]
        if kept:
            yield _logged(kept, vocabulary, path, contexts=contexts)


def last_position(path: Path) -> int:
    """Position of the last row; 0 for an empty log. Reads through a JSON Lines file once."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        from bandit_router.adapters.interactions_parquet import count_rows

        return count_rows(path)
    if suffix in STORE_SUFFIXES:
        from bandit_router.adapters.sqlite import SqliteStore

        with SqliteStore.open(path, create=False, read_only=True) as store:
            return store.last_learn_seq()
    if suffix in LINE_SUFFIXES:
        return _count_lines(path)
    raise _unknown_extension(path)


def _unknown_extension(path: Path) -> LogFormatError:
    return LogFormatError(
        f"unknown extension {path.suffix!r}: use a store (.db), .jsonl or .parquet", path=str(path)
    )


def _count_lines(path: Path) -> int:
    _require_file(path)
    count, last = 0, b"\n"
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                count, last = count + chunk.count(b"\n"), chunk[-1:]
    except OSError as error:
        raise LogFormatError(f"cannot be read: {error.strerror}", path=str(path)) from error
    return count + (last != b"\n")


def _require_file(path: Path) -> None:
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise LogFormatError(what, path=str(path))


def _stored(path: Path, after: int, until: int | None) -> Iterator[tuple[int, bytes]]:
    from bandit_router.adapters.sqlite import SqliteStore

    with SqliteStore.open(path, create=False, read_only=True) as store:
        yield from store.row_payloads(after, until)


def _lines(path: Path, after: int, until: int | None) -> Iterator[tuple[int, bytes]]:
    _require_file(path)
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if until is not None and number > until:
                    return
                if number > after and line.strip():
                    yield number, line
    except OSError as error:
        raise LogFormatError(f"cannot be read: {error.strerror}", path=str(path)) from error


def _decode(
    decoder: msgspec.json.Decoder[Any], payload: bytes, position: int, path: Path
) -> _RowRead | _OtherRow:
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LogFormatError(
            f"not an interaction as bandit-router logs it: {error}", path=str(path), row=position
        ) from error


def _is_usable(row: _RowRead | _OtherRow, left_out: Counter[str]) -> bool:
    if isinstance(row, _OtherRow):
        return False
    if row.slice == "forced":
        left_out[FORCED] += 1
    elif not row.learn:
        left_out[NOT_LEARNED] += 1
    elif row.score is None and row.cost_usd is None:
        left_out[NO_OUTCOME] += 1
    else:
        return True
    return False


def _logged(
    kept: list[tuple[int, _RowRead]], vocabulary: Vocabulary, path: Path, *, contexts: bool
) -> Logged:
    position, rows = np.array([at for at, _ in kept], dtype=np.int64), [row for _, row in kept]
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(row.eligible, []).append(place)
    columns = {eligible: vocabulary.columns(eligible) for eligible in groups}
    models = vocabulary.models
    pmf = np.zeros((len(rows), len(models)))
    mask = np.zeros(pmf.shape, dtype=bool)
    for eligible, places in groups.items():
        cells = np.ix_(places, columns[eligible])
        try:
            pmf[cells] = np.array([rows[i].pmf for i in places]).reshape(len(places), len(eligible))
        except ValueError:
            wrong = next(i for i in places if len(rows[i].pmf) != len(eligible))
            raise LogFormatError(
                f"pmf has {len(rows[wrong].pmf)} entries for {len(eligible)} eligible models",
                path=str(path),
                row=int(position[wrong]),
            ) from None
        mask[cells] = True
    return Logged(
        models=models,
        position=position,
        action=action_columns([row.action for row in rows], position, vocabulary, path),
        propensity=np.array([row.propensity for row in rows]),
        pmf=pmf,
        eligible=mask,
        score=np.array([row.score for row in rows], dtype=np.float64),
        cost_usd=np.array([row.cost_usd for row in rows], dtype=np.float64),
        quality_value_usd=np.array([row.quality_value_usd for row in rows]),
        features=_features(rows, position, path),
        fold_key=fold_keys((row.unit_id or row.event_id) for row in rows),
        contexts=[_context(row.features) for row in rows] if contexts else None,
    )


def _features(rows: list[_RowRead], position: np.ndarray, path: Path) -> np.ndarray:
    try:
        return np.array([row.features.dense for row in rows], dtype=np.float32)
    except ValueError:
        length = len(rows[0].features.dense)
        wrong = next(i for i, row in enumerate(rows) if len(row.features.dense) != length)
        raise LogFormatError(
            f"{len(rows[wrong].features.dense)} features where the rows before have {length}; "
            "evaluate logs of one featurizer at a time",
            path=str(path),
            row=int(position[wrong]),
        ) from None


def _context(read: Any) -> Features:
    return Features(
        dense=np.array(read.dense, dtype=np.float64), ngrams=read.ngrams, columns=read.columns
    )


def export(source: Path, to: Path) -> int:
    """Copy the training log of a store to JSON Lines or Parquet; returns how many rows.

    Raises:
        InputError: the target is there already, cannot be written or has another extension.
        StorageError: the store cannot be read.
    """
    suffix = to.suffix.lower()
    if source.suffix.lower() not in STORE_SUFFIXES:
        raise InputError(f"{source}: only a store (.db) is exported")
    if to.exists():
        raise InputError(f"{to} is there already; name another file")
    payloads = _stored(source, 0, None)
    if suffix == ".parquet":
        from bandit_router.adapters.interactions_parquet import write_parquet

        return write_parquet(payloads, to)
    if suffix not in LINE_SUFFIXES:
        raise InputError(f"{to}: unknown extension {to.suffix!r}; export to .jsonl or .parquet")
    count = 0
    try:
        with to.open("xb") as stream:
            for _, payload in payloads:
                stream.write(payload + b"\n")
                count += 1
    except OSError as error:
        raise InputError(f"{to} cannot be written: {error.strerror}") from error
    return count
