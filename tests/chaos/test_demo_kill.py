"""SIGKILL at any moment of the demo is not visible in its store.

By default 1,000 prompts, whose embeddings are no real ones and lie ready, and a few kills. With
DEMO_KILLS=N in the environment the demo in full, N kills, the first of them while it embeds:
``DEMO_KILLS=10 python -m pytest tests/chaos/test_demo_kill.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.demo import embed_ahead
from support.session import contents

from bandit_router.demo.workspace import DATABASE, EMBEDDINGS
from bandit_router.demo.world import demo_log

FULL_KILLS = int(os.environ.get("DEMO_KILLS", "0"))
KILLS = FULL_KILLS or 3
LIMIT = None if FULL_KILLS else 1000
COMMAND = (sys.executable, "-m", "bandit_router.cli.app")
PATIENCE_S = 240.0


def demo(folder: Path) -> list[str]:
    limit = [] if LIMIT is None else ["--limit", str(LIMIT)]
    return [*COMMAND, "demo", "--out", str(folder), "--seed", "3", *limit, "--json"]


def finish(folder: Path) -> dict:
    run = subprocess.run(demo(folder), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def decided(folder: Path) -> int:
    """How many queries have been decided so far; -1 before there is a store."""
    if not (folder / DATABASE).exists():
        return -1
    with contextlib.closing(sqlite3.connect(folder / DATABASE, timeout=30)) as connection:
        try:
            query = "SELECT count(*) FROM events WHERE type = 'decision'"
            return connection.execute(query).fetchone()[0]
        except sqlite3.OperationalError:
            return -1  # no tables yet


def embedded(folder: Path) -> int:
    return len(list((folder / EMBEDDINGS).glob("*.npy")))


def kill_when(folder: Path, reached, pause_s: float) -> None:
    """Start the demo, kill it ``pause_s`` after ``reached()`` is true."""
    process = subprocess.Popen(demo(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_S
    try:
        while not reached():
            assert process.poll() is None, "the demo ended before it could be killed"
            assert time.monotonic() < deadline, "the demo does not get on"
            time.sleep(0.002)
        time.sleep(pause_s)
    finally:
        process.kill()
        code = process.wait()
    assert code == -signal.SIGKILL


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    if not FULL_KILLS:
        embed_ahead(folder, demo_log(LIMIT).prompts)
    finish(folder)
    return folder


def test_killed_at_random_moments_and_resumed_the_store_is_that_of_an_uninterrupted_run(
    uninterrupted, tmp_path
):
    rng, queries = random.Random(11), len(demo_log(LIMIT))
    kills = KILLS
    if FULL_KILLS:
        parts = rng.randint(1, 10)
        kill_when(tmp_path, lambda: embedded(tmp_path) >= parts, rng.uniform(0.0, 1.0))
        assert decided(tmp_path) <= 0
        kills -= 1
    else:
        embed_ahead(tmp_path, demo_log(LIMIT).prompts)
    for target in sorted(rng.sample(range(1, int(0.95 * queries)), kills)):
        if decided(tmp_path) < target:
            kill_when(tmp_path, lambda: decided(tmp_path) >= target, rng.uniform(0.0, 0.01))  # noqa: B023
        else:  # the last kill came late: kill this one while it starts or reads the log
            kill_when(tmp_path, lambda: True, rng.uniform(0.0, 1.0))
    result = finish(tmp_path)
    assert contents(tmp_path / DATABASE) == contents(uninterrupted / DATABASE)
    story = json.loads((uninterrupted / "demo.json").read_text())
    assert result["demo"] == story
    check = subprocess.run(
        [*COMMAND, "rebuild", "--db", str(tmp_path / DATABASE), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr
    assert json.loads(check.stdout)["identical"] is True
