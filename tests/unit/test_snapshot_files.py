"""Snapshot files: the old one or the new one, never a half, never through a link."""

from __future__ import annotations

import os
import stat

import pytest
from support.streams import catalog

from bandit_router.errors import SnapshotError, StorageError
from bandit_router.snapshot import Recipe, Snapshot, pack, read_file, write_file


def snapshot(learn_seq: int = 1) -> Snapshot:
    recipe = Recipe(
        app="default",
        policy="linucb",
        dimension=4,
        featurizer_id="test",
        catalog=tuple(catalog()),
        quality_value_usd=0.05,
    )
    return pack(
        learn_seq=learn_seq,
        created_ts=0.0,
        parent="",
        offsets={"log": 3},
        recipe=recipe,
        catalog=recipe.catalog,
        learner=b"learner",
        joiner=b"joiner",
    )


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "policy.snapshot"
    write_file(path, snapshot())
    assert read_file(path).id == snapshot().id
    assert [p.name for p in tmp_path.iterdir()] == ["policy.snapshot"]


def test_a_new_snapshot_replaces_the_old_one(tmp_path):
    path = tmp_path / "policy.snapshot"
    write_file(path, snapshot(1))
    write_file(path, snapshot(2))
    assert read_file(path).manifest.learn_seq == 2


def test_the_file_is_its_owners_alone(tmp_path):
    path = tmp_path / "policy.snapshot"
    write_file(path, snapshot())
    assert path.stat().st_mode & 0o777 == 0o600


def test_when_the_rename_fails_the_old_one_stays_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "policy.snapshot"
    write_file(path, snapshot(1))

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(StorageError, match="No space left"):
        write_file(path, snapshot(2))
    assert read_file(path).manifest.learn_seq == 1
    assert [p.name for p in tmp_path.iterdir()] == ["policy.snapshot"]


def test_the_file_is_synced_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    calls: list[str] = []
    real_sync = os.fsync
    kinds = {False: "sync file", True: "sync folder"}

    def sync(descriptor):
        calls.append(kinds[stat.S_ISDIR(os.fstat(descriptor).st_mode)])
        real_sync(descriptor)

    real_replace = type(tmp_path).replace

    def replace(self, target):
        calls.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr("pathlib.Path.replace", replace)
    write_file(tmp_path / "policy.snapshot", snapshot())
    assert calls == ["sync file", "rename", "sync folder"]


def test_links_are_neither_read_nor_written_through(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    write_file(real, snapshot())
    link.symlink_to(real)
    with pytest.raises(SnapshotError, match="symbolic link"):
        read_file(link)
    with pytest.raises(SnapshotError, match="symbolic link"):
        write_file(link, snapshot(2))
    assert read_file(real).manifest.learn_seq == 1


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises((SnapshotError, StorageError)):
            read_file(path)


def test_a_missing_file_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot read"):
        read_file(tmp_path / "missing")


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot write"):
        write_file(tmp_path / "missing" / "policy.snapshot", snapshot())


def test_a_file_that_is_too_large_is_refused_by_its_size(tmp_path):
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(SnapshotError, match="more than"):
        read_file(path)


def test_a_damaged_file_is_refused_with_its_name(tmp_path):
    path = tmp_path / "damaged"
    path.write_bytes(snapshot().data[:-1])
    with pytest.raises(SnapshotError, match=r"damaged: truncated"):
        read_file(path)
