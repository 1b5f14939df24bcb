"""Outcome tables: what a good one becomes, and what each bad one is told."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bandit_router.adapters.tables import read_table
from bandit_router.errors import LogFormatError

ROWS = [
    {"query_id": "q1", "prompt": "Hi", "model": "a", "score": 1.0, "cost_usd": 0.001},
    {"query_id": "q1", "prompt": "Hi", "model": "b", "score": 0.0, "cost_usd": 0.01},
    {"query_id": "q2", "prompt": 'x,"y"\nz', "model": "b", "score": 0.5, "cost_usd": 0.0},
    {"query_id": "q2", "prompt": 'x,"y"\nz', "model": "a", "score": 0.25, "cost_usd": 0.002},
]


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path, rows):
    import csv

    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path, rows):
    from arro3.core import Array, DataType, Table
    from arro3.io import write_parquet as write

    kinds = {str: DataType.utf8(), float: DataType.float64(), int: DataType.int64()}
    columns = {
        name: Array([row[name] for row in rows], kinds[type(rows[0][name])]) for name in rows[0]
    }
    write(Table.from_pydict(columns), path)
    return path


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}


@pytest.mark.parametrize("extension", WRITERS)
def test_every_format_gives_the_same_table(tmp_path, extension):
    rows = [{**row, "task": "t" + row["query_id"], "fold": 3, "ts": 5.5} for row in ROWS]
    table = read_table(WRITERS[extension](tmp_path / f"log ü.{extension}", rows))
    assert table.models == ("a", "b")
    assert table.query_ids == ("q1", "q2")
    assert table.prompts == ("Hi", 'x,"y"\nz')
    assert table.scores.tolist() == [[1.0, 0.0], [0.25, 0.5]]
    assert table.costs_usd.tolist() == [[0.001, 0.01], [0.002, 0.0]]
    assert table.columns == {"task": ("tq1", "tq2")}
    assert table.folds.tolist() == [3, 3]
    assert table.ts.tolist() == [5.5, 5.5]
    assert table.embeddings is None
    assert len(table.sha256) == 64


def changed(place, **fields):
    return [{**row, **fields} if i == place else row for i, row in enumerate(ROWS)]


def without(name):
    return [{k: v for k, v in row.items() if k != name} for row in ROWS]


BAD = [
    *((without(name), None, name, "missing column") for name in ROWS[0]),
    (changed(2, score=1.2), 3, "score", "outside 0..1"),
    (changed(1, score=-0.1), 2, "score", "outside 0..1"),
    (changed(3, score=float("nan")), 4, "score", "NaN"),
    (changed(3, score=None), 4, "score", "missing"),
    (changed(0, score="good"), 1, "score", "not a number"),
    (changed(0, score=[1]), 1, "score", "not a number"),
    (changed(1, cost_usd=-1e-9), 2, "cost_usd", "not negative"),
    (changed(1, cost_usd=float("inf")), 2, "cost_usd", "finite"),
    (changed(1, cost_usd=None), 2, "cost_usd", "missing"),
    (changed(2, query_id=None), 3, "query_id", "missing"),
    (changed(2, query_id=""), 3, "query_id", "empty"),
    (changed(2, model=1.5), 3, "model", "not text"),
    (changed(2, prompt=None), 3, "prompt", "missing"),
    (changed(1, prompt="other"), 2, "prompt", "same for every model"),
    ([*ROWS, ROWS[1]], 5, "model", "second row"),
    (ROWS[:3], 3, "model", "no row for model 'a'"),
    ([], None, None, "no rows"),
    (
        [{**r, "task": str(i)} for i, r in enumerate(ROWS)],
        2,
        "task",
        "same for every model",
    ),
    ([{**r, "fold": 0.5} for r in ROWS], 1, "fold", "whole number"),
    ([{**r, "ts": "yesterday"} for r in ROWS], 1, "ts", "ISO 8601"),
]


@pytest.mark.parametrize(("rows", "row", "column", "words"), BAD)
def test_a_bad_table_names_file_row_and_column(tmp_path, rows, row, column, words):
    path = write_jsonl(tmp_path / "log.jsonl", rows)
    with pytest.raises(LogFormatError, match=r"log\.jsonl") as caught:
        read_table(path)
    assert words in str(caught.value)
    assert (caught.value.row, caught.value.column) == (row, column)


FILES = [
    ("log.parquet", b"", "not a readable Parquet file"),
    ("log.parquet", b"PAR1 and nothing else PAR1", "not a readable Parquet file"),
    ("log.csv", b"", "empty"),
    ("log.csv", b"query_id,prompt,model,score,cost_usd\n", "no rows"),
    ("log.csv", b"query_id,prompt,model,score,cost_usd\n1,a,b,0.5\n", "4 fields"),
    ("log.csv", b'query_id,prompt\n"1,a\n', "not a readable CSV"),
    ("log.csv", b"a,a\n1,2\n", "twice"),
    ("log.csv", b"a,\xff\n1,2\n", "not UTF-8"),
    ("log.jsonl", b"", "no rows"),
    ("log.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is not valid JSON"),
    ("log.jsonl", b"[1]\n", "not a JSON object"),
    ("log.jsonl", b"[" * 100_000 + b"\n", "not valid JSON"),
    ("log.txt", b"", "unknown extension"),
]


@pytest.mark.parametrize(("name", "content", "words"), FILES)
def test_an_unreadable_file_is_an_error_in_words(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LogFormatError, match=name) as caught:
        read_table(tmp_path / name)
    assert words in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(LogFormatError, match="no such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(LogFormatError, match="folder"):
        read_table(tmp_path / "folder.csv")


def test_models_are_chosen_in_the_order_asked_for(tmp_path):
    path = write_jsonl(tmp_path / "log.jsonl", ROWS)
    table = read_table(path, models=["b", "a"])
    assert table.models == ("b", "a")
    assert table.scores.tolist() == [[0.0, 1.0], [0.5, 0.25]]
    assert read_table(path, models=["b"]).costs_usd.tolist() == [[0.01], [0.0]]


def test_a_gap_in_a_model_that_is_not_asked_for_does_not_matter(tmp_path):
    path = write_jsonl(tmp_path / "log.jsonl", ROWS[:3])
    assert read_table(path, models=["b"]).scores.tolist() == [[0.0], [0.5]]


def test_folds_and_limit_choose_queries(tmp_path):
    rows = [
        {"query_id": f"q{i}", "prompt": str(i), "model": "a", "score": 0, "cost_usd": 0, "fold": i}
        for i in range(5)
    ]
    path = write_jsonl(tmp_path / "log.jsonl", rows)
    assert read_table(path, folds=[1, 3, 4]).query_ids == ("q1", "q3", "q4")
    assert read_table(path, folds=[1, 3, 4], limit=2).query_ids == ("q1", "q3")
    assert read_table(path, limit=9).query_ids == ("q0", "q1", "q2", "q3", "q4")
    with pytest.raises(LogFormatError, match="folds 0, 1, 2, 3, 4"):
        read_table(path, folds=[7])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"models": ["a", "c"]}, "unknown model 'c'; the table has: a, b"),
        ({"models": ["a", "a"]}, "twice"),
        ({"folds": [0]}, "--folds needs it"),
        ({"context_columns": ["task"]}, "the table has: none"),
        ({"context_columns": ["score"]}, "no such context column"),
    ],
)
def test_a_selection_that_does_not_fit_is_an_error(tmp_path, options, words):
    path = write_jsonl(tmp_path / "log.jsonl", ROWS)
    with pytest.raises(LogFormatError) as caught:
        read_table(path, **options)
    assert words in str(caught.value)


def test_numbers_as_ids_and_a_prompt_of_any_text_are_fine(tmp_path):
    prompt = "\x00 \ud800 مرحبا" + "x" * 200_000
    rows = [{**row, "query_id": 7, "prompt": prompt} for row in ROWS[:2]]
    table = read_table(write_jsonl(tmp_path / "log.jsonl", rows))
    assert table.query_ids == ("7",)
    assert table.prompts == (prompt,)


def test_a_long_prompt_and_an_empty_one_pass_through_csv(tmp_path):
    rows = [{**row, "prompt": "x" * 200_000 if row["query_id"] == "q1" else ""} for row in ROWS]
    table = read_table(write_csv(tmp_path / "log.csv", rows))
    assert [len(prompt) for prompt in table.prompts] == [200_000, 0]


def test_times_are_seconds_or_iso_8601(tmp_path):
    rows = [{**r, "ts": "2024-01-01T00:00:00+00:00"} for r in ROWS]
    assert read_table(write_jsonl(tmp_path / "log.jsonl", rows)).ts[0] == 1704067200.0


def write_embeddings(path, ids, matrix):
    path.with_name(f"{path.stem}.emb_ids.json").write_text(json.dumps(ids), encoding="utf-8")
    np.save(path.with_name(f"{path.stem}.emb.npy"), matrix)


def test_embeddings_are_ordered_by_id(tmp_path):
    path = write_jsonl(tmp_path / "log.jsonl", ROWS)
    matrix = np.array([[9, 9], [2, 2], [1, 1]], dtype=np.float16)
    write_embeddings(path, ["more", "q2", "q1"], matrix)
    table = read_table(path)
    assert table.embeddings.tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert table.embeddings.dtype == np.float32


BAD_EMBEDDINGS = [
    (["q1"], np.ones((1, 2)), "query 'q2' of the table is not listed"),
    (["q1", "q2"], np.ones((3, 2)), "3 rows"),
    (["q1", "q2"], np.array([[1.0, 1.0], [np.nan, 1.0]]), "row 2: has a value that is not finite"),
    (["q1", "q2"], np.ones(2), "matrix of floats"),
    (["q1", "q2"], np.ones((2, 2), dtype=int), "matrix of floats"),
    (["q1", "q1"], np.ones((2, 2)), "twice"),
    ({"q1": 0}, np.ones((2, 2)), "JSON list"),
]


@pytest.mark.parametrize(("ids", "matrix", "words"), BAD_EMBEDDINGS)
def test_bad_embeddings_are_an_error(tmp_path, ids, matrix, words):
    path = write_jsonl(tmp_path / "log.jsonl", ROWS)
    write_embeddings(path, ids, matrix)
    with pytest.raises(LogFormatError) as caught:
        read_table(path)
    assert words in str(caught.value)
    assert "log.emb" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04zip", b"no"])
def test_an_unreadable_embedding_file_is_an_error(tmp_path, content):
    path = write_jsonl(tmp_path / "log.jsonl", ROWS)
    write_embeddings(path, ["q1", "q2"], np.ones((2, 2)))
    (tmp_path / "log.emb.npy").write_bytes(content)
    with pytest.raises(LogFormatError, match=r"log\.emb\.npy"):
        read_table(path)


def test_one_embedding_file_without_the_other_is_an_error(tmp_path):
    path = write_jsonl(tmp_path / "log.jsonl", ROWS)
    np.save(tmp_path / "log.emb.npy", np.ones((2, 2)))
    with pytest.raises(LogFormatError, match="sibling"):
        read_table(path)


def test_the_packaged_log_has_three_models_and_every_cell():
    from bandit_router.adapters.pareto_log import open_log

    table = open_log("paretobandit:val", limit=50, context_columns=["task"])
    assert len(table) == 50
    assert len(table.models) == 3
    assert np.isfinite(table.scores).all()
    assert (table.costs_usd > 0.0).all()
    assert set(table.columns) == {"task"}


def test_a_packaged_log_that_is_not_there_is_an_error():
    from bandit_router.adapters.pareto_log import open_log
    from bandit_router.errors import InputError

    with pytest.raises(InputError, match="paretobandit:val or paretobandit:test_holdout"):
        open_log("paretobandit:train")
    with pytest.raises(LogFormatError, match="unknown model 'x'"):
        open_log("paretobandit:val", models=["x"])


def test_a_packaged_log_without_its_package_says_what_to_install(monkeypatch):
    import importlib.util

    from bandit_router.adapters.pareto_log import open_log
    from bandit_router.errors import DependencyError

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DependencyError, match="pip install"):
        open_log("paretobandit:val")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "queries"), [("zeroeval", 1725), ("routellm_gsm8k", 795), ("alpaca_eval1", 471)]
)
def test_the_shared_logs_are_read_with_their_embeddings(shared_data, name, queries):
    table = read_table(shared_data / f"{name}.parquet", folds=[2, 3, 4])
    assert len(table) == queries
    assert table.embeddings.shape == (queries, 384)
    assert np.allclose(np.linalg.norm(table.embeddings, axis=1), 1.0, atol=2e-3)
