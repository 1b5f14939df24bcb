"""Snapshots: the verified state of learner and joiner at one offset of the log."""

from bandit_router.snapshot.container import Manifest, Recipe, Snapshot, is_signed, pack, unpack
from bandit_router.snapshot.files import read_file, write_file
from bandit_router.snapshot.probe import probe
from bandit_router.snapshot.taker import Snapshots, restore, state_of

__all__ = [
    "Manifest",
    "Recipe",
    "Snapshot",
    "Snapshots",
    "is_signed",
    "pack",
    "probe",
    "read_file",
    "restore",
    "state_of",
    "unpack",
    "write_file",
]
