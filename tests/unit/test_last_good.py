"""A router's last good snapshot on disk: two files, neither of them ever a link."""

from __future__ import annotations

import pytest
from support.published import APP, KEY, snapshot

from bandit_router.errors import SnapshotError, StorageError
from bandit_router.snapshot import Snapshot
from bandit_router.snapshot.announcement import Announcement, announce
from bandit_router.streaming.keeping import LastGood, file_name


@pytest.fixture(scope="module")
def found() -> Snapshot:
    return snapshot()


def said(of: Snapshot, epoch: int = 1, key: bytes | None = None) -> Announcement:
    return announce(APP, of, epoch=epoch, learner="l", key=key)[0]


def test_what_was_kept_is_there_and_nothing_else(found, tmp_path):
    stored = LastGood(tmp_path / "routers", APP)
    assert (stored.announcement(), stored.container()) == (None, None)
    stored.keep(said(found), found)
    again = LastGood(tmp_path / "routers", APP)
    assert (again.announcement(), again.container()) == (said(found), found.data)
    assert len(list((tmp_path / "routers").iterdir())) == 2


def test_a_higher_epoch_of_the_same_snapshot_is_kept(found, tmp_path):
    stored = LastGood(tmp_path, APP)
    stored.keep(said(found, 1), found)
    stored.keep(said(found, 2), None)
    assert (stored.announcement().epoch, stored.container()) == (2, found.data)


def test_what_another_process_has_kept_since_and_is_newer_stays(found, tmp_path):
    newer = snapshot(25)
    LastGood(tmp_path, APP).keep(said(newer), newer)
    LastGood(tmp_path, APP).keep(said(found), found)
    stored = LastGood(tmp_path, APP)
    assert (stored.announcement().learn_seq, stored.container()) == (25, newer.data)


@pytest.mark.parametrize("name", ["announcement_path", "snapshot_path"])
def test_a_link_is_neither_read_nor_written_through(found, tmp_path, name):
    stored = LastGood(tmp_path / "routers", APP)
    stored.keep(said(found), found)
    path, target = getattr(stored, name), tmp_path / "target"
    path.rename(target)
    path.symlink_to(target)
    before = target.read_bytes()
    read = stored.announcement if name == "announcement_path" else stored.container
    with pytest.raises(SnapshotError, match="symbolic link") as caught:
        read()
    assert caught.value.reason == "symlink"
    newer = snapshot(25)
    with pytest.raises(SnapshotError, match="symbolic link"):
        stored.keep(said(newer), newer)
    assert target.read_bytes() == before


def test_a_link_to_nowhere_is_a_link_and_not_nothing(found, tmp_path):
    stored = LastGood(tmp_path, APP)
    stored.snapshot_path.symlink_to(tmp_path / "missing")
    with pytest.raises(SnapshotError, match="symbolic link"):
        stored.container()


def test_a_damaged_announcement_is_refused_and_replaced(found, tmp_path):
    stored = LastGood(tmp_path, APP)
    stored.keep(said(found), found)
    stored.announcement_path.write_bytes(b"{}")
    with pytest.raises(SnapshotError, match=r"announced\.json"):
        stored.announcement()
    stored.keep(said(found), found)
    assert stored.announcement() == said(found)


def test_an_announcement_that_the_key_did_not_sign_is_refused(found, tmp_path):
    LastGood(tmp_path, APP).keep(said(found), found)
    with pytest.raises(SnapshotError) as caught:
        LastGood(tmp_path, APP, key=KEY).announcement()
    assert caught.value.reason == "unsigned"


def test_a_folder_that_cannot_be_made_is_a_storage_error(found, tmp_path):
    (tmp_path / "routers").write_text("a file")
    with pytest.raises(StorageError):
        LastGood(tmp_path / "routers", APP).keep(said(found), found)


def test_every_app_has_a_file_of_its_own_and_inside_the_folder():
    apps = ["default", "default/0", "default%2F0", "..", ".", "a b", "ä", "x" * 200, "x" * 256]
    apps += ["ä" * 256, "ä" * 255 + "ö", "/etc/passwd", "a\0b", "A", "a"]
    names = [file_name(app) for app in apps]
    assert len(set(names)) == len(apps)
    for name in names:
        assert "/" not in name
        assert "\0" not in name
        assert len(f".{name}.announced.json.0123456789abcdef.tmp") <= 255
