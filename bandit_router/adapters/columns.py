"""Files of rows (Parquet, CSV, JSON Lines) as columns of Python values, foreign errors translated.

The reader is chosen by the file's extension. Rows are counted from 1, the header not counted. A
cell that is absent, null or an empty CSV field is None; types are otherwise left to the caller.
"""

from __future__ import annotations

import csv
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from bandit_router.errors import LogFormatError

Columns = dict[str, list[Any]]
"""Column name to its cells, one per row; every list has the same length."""

_LARGEST_CSV_FIELD = 2**31 - 1


def read_columns(path: Path, wanted: Callable[[str], bool]) -> Columns:
    """The columns of ``path`` whose name ``wanted`` accepts.

    Raises:
        LogFormatError: the file is missing, unreadable, damaged or of an unknown extension.
    """
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise LogFormatError(
            f"unknown extension {path.suffix!r}: use .parquet, .csv or .jsonl", path=str(path)
        )
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise LogFormatError(what, path=str(path))
    try:
        return reader(path, wanted)
    except OSError as error:
        raise LogFormatError(f"cannot be read: {error.strerror}", path=str(path)) from error


def file_sha256(path: Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _parquet(path: Path, wanted: Callable[[str], bool]) -> Columns:
    import asyncio

    try:
        from arro3.io import read_parquet_async
        from arro3.io.store import LocalStore
    except ImportError as error:  # pragma: no cover - a runtime dependency
        raise LogFormatError(
            "reading Parquet needs arro3-io and arro3-core: pip install arro3-io arro3-core",
            path=str(path),
        ) from error

    async def read(folder: str) -> Any:
        return await read_parquet_async("log.parquet", store=LocalStore(folder))

    # The store percent-encodes unusual file names, and the synchronous reader panics on a damaged
    # footer where this one raises; a link with a plain name serves both.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "log.parquet").symlink_to(path.resolve(strict=True))
        try:
            table = asyncio.run(read(folder))
            return {n: table[n].to_pylist() for n in table.column_names if wanted(n)}
        except Exception as error:  # arro3 raises plain Exception
            raise LogFormatError(f"not a readable Parquet file: {error}", path=str(path)) from error


def _csv(path: Path, wanted: Callable[[str], bool]) -> Columns:
    csv.field_size_limit(_LARGEST_CSV_FIELD)  # the default refuses a prompt over 128 KiB
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream, strict=True))
    except UnicodeDecodeError as error:
        raise LogFormatError(f"not UTF-8 text: {error}", path=str(path)) from error
    except csv.Error as error:
        raise LogFormatError(f"not a readable CSV file: {error}", path=str(path)) from error
    if not rows:
        raise LogFormatError("the file is empty", path=str(path))
    names, data = rows[0], [row for row in rows[1:] if row]
    if len(set(names)) != len(names):
        raise LogFormatError("a column name stands twice in the header", path=str(path))
    for number, row in enumerate(data, 1):
        if len(row) != len(names):
            raise LogFormatError(
                f"{len(row)} fields where the header has {len(names)}", path=str(path), row=number
            )
    cells = zip(*data, strict=True) if data else ([] for _ in names)
    return {
        name: [cell if cell != "" or name == "prompt" else None for cell in column]
        for name, column in zip(names, cells, strict=True)
        if wanted(name)
    }


def _jsonl(path: Path, wanted: Callable[[str], bool]) -> Columns:
    rows = list(read_json_lines(path))
    names = dict.fromkeys(name for row in rows for name in row if wanted(name))
    return {name: [row.get(name) for row in rows] for name in names}


def read_json_lines(path: Path) -> Iterable[dict[str, Any]]:
    """The objects of a JSON Lines file; blank lines are skipped.

    Raises:
        LogFormatError: a line is not a JSON object, named by its number in the file.
        OSError: the file cannot be read.
    """
    decoder = msgspec.json.Decoder(dict[str, Any])
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _object(line, number, path, decoder)


def _object(
    line: bytes, number: int, path: Path, decoder: msgspec.json.Decoder[dict[str, Any]]
) -> dict[str, Any]:
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The standard decoder is slower and accepts more: NaN (reported later with its row and
        # column) and lone surrogates (which are text like any other).
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LogFormatError(
                f"line {number} is not valid JSON: {error}", path=str(path)
            ) from error
        if not isinstance(value, dict):
            raise LogFormatError(f"line {number} is not a JSON object", path=str(path)) from None
        return value
