"""The demo's folder: never another's, never two at once, nothing deleted that it did not make."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.demo import HashEmbedder

from bandit_router.demo.prompts import PART, embed_prompts
from bandit_router.demo.workspace import DATABASE, EMBEDDINGS, SETTINGS, DemoSettings, claimed
from bandit_router.errors import InputError

MINE = DemoSettings(log_sha256="0" * 64, queries=100, seed=0, quality_value_usd=0.1)


def take(folder, settings=MINE, **options) -> None:
    with claimed(folder, settings, **options):
        pass


def test_a_folder_is_made_and_taken_up_again(tmp_path):
    folder = tmp_path / "a" / "b"
    take(folder)
    written = (folder / SETTINGS).read_bytes()
    (folder / DATABASE).write_text("kept")
    take(folder)
    assert (folder / SETTINGS).read_bytes() == written
    assert (folder / DATABASE).read_text() == "kept"


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "report.json").write_text("somebody's")
    for fresh in (False, True):
        with pytest.raises(InputError, match="holds no demo"):
            take(tmp_path, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="is a file"):
        take(tmp_path / "out")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 7}, "--seed 0 instead of 7"),
        ({"queries": 50}, "--limit 100 instead of 50"),
        ({"quality_value_usd": 1.0}, "--quality-value 0.1 instead of 1.0"),
    ],
)
def test_a_demo_with_other_settings_is_refused_by_name(tmp_path, changed, named):
    take(tmp_path)
    other = DemoSettings(**{"log_sha256": "0" * 64, "queries": 100, "seed": 0,
                            "quality_value_usd": 0.1, **changed})  # fmt: skip
    with pytest.raises(InputError, match=named):
        take(tmp_path, other)


@pytest.mark.parametrize("content", ["", "{}", "[1]", "\xff", '{"schema": "x"}'])
def test_settings_that_cannot_be_read_are_refused_even_to_begin_anew(tmp_path, content):
    (tmp_path / SETTINGS).write_text(content, encoding="latin-1")
    (tmp_path / DATABASE).write_text("kept")
    for fresh in (False, True):
        with pytest.raises(InputError, match="not the settings of a demo"):
            take(tmp_path, fresh=fresh)
    assert (tmp_path / DATABASE).read_text() == "kept"


def test_beginning_anew_removes_what_the_demo_made_and_nothing_else(tmp_path):
    take(tmp_path)
    for name in (DATABASE, f"{DATABASE}-wal", "report.json", "report.html", "demo.json", "notes"):
        (tmp_path / name).write_text(name)
    (tmp_path / EMBEDDINGS).mkdir()
    other = DemoSettings(log_sha256="1" * 64, queries=9, seed=4, quality_value_usd=1.0)
    take(tmp_path, other, fresh=True)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == sorted([".lock", EMBEDDINGS, "notes", SETTINGS])
    assert json.loads((tmp_path / SETTINGS).read_text())["seed"] == 4


def test_only_one_at_a_time(tmp_path):
    with claimed(tmp_path, MINE), pytest.raises(InputError, match="another demo is running"):
        take(tmp_path)
    take(tmp_path)


def test_prompts_are_embedded_once_and_in_their_order(tmp_path):
    prompts = [f"prompt {i}" for i in range(PART + 10)]
    first, second, ticks = HashEmbedder(), HashEmbedder(), []
    made = embed_prompts(prompts, first, tmp_path, ticks.append)
    np.testing.assert_array_equal(made[PART + 3], first.embed_one(f"prompt {PART + 3}"))
    np.testing.assert_array_equal(embed_prompts(prompts, second, tmp_path), made)
    assert (first.embedded, second.embedded, ticks) == (PART + 10, 0, [PART, 10])
    more = HashEmbedder()
    assert embed_prompts([*prompts, "new"], more, tmp_path).shape == (PART + 11, 384)
    assert more.embedded == 11, "the first part is known"


@pytest.mark.parametrize("damage", ["truncate", "other rows", "other lengths", "no array"])
def test_a_damaged_part_is_named(tmp_path, damage):
    prompts = ["a", "b", "c"]
    made = embed_prompts(prompts, HashEmbedder(), tmp_path)
    (part,) = tmp_path.glob("*.npy")
    if damage == "truncate":
        part.write_bytes(part.read_bytes()[:-100])
    elif damage == "no array":
        part.write_bytes(b"PK\x03\x04 nothing")
    else:
        np.save(part, made[:2] if damage == "other rows" else 2 * made)
    with pytest.raises(InputError, match=rf"{part.name}.*delete the file"):
        embed_prompts(prompts, HashEmbedder(), tmp_path)
