"""SIGKILL at any point is not visible in the log, the training rows or the snapshots."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import signal
import sqlite3
import time

import pytest
from support.session import contents, run_and_die

TICKS = 400


@pytest.fixture(scope="module", params=["first", "window"])
def closing(request):
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, closing):
    path = tmp_path_factory.mktemp("whole") / "log.db"
    run_and_die(str(path), TICKS, None, closing)
    return contents(path)


@pytest.fixture(scope="module")
def processes():
    """Processes that start quickly, with everything imported, and share nothing with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.session", "bandit_router.policy.baselines"])
    return context


def events_in(path) -> int:
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
        try:
            return connection.execute("SELECT count(*) FROM events").fetchone()[0]
        except sqlite3.OperationalError:
            return 0  # no tables yet


def finish(processes, path, closing) -> None:
    last = processes.Process(target=run_and_die, args=(str(path), TICKS, None, closing))
    last.start()
    last.join(60)
    assert last.exitcode == 0


def test_killed_at_chosen_points_and_resumed_the_store_is_that_of_an_uninterrupted_run(
    processes, uninterrupted, closing, tmp_path
):
    path, rng = tmp_path / "log.db", random.Random(1)
    deaths = 0
    for _ in range(10):
        life = processes.Process(
            target=run_and_die, args=(str(path), TICKS, rng.randrange(1, 700), closing)
        )
        life.start()
        life.join(60)
        assert life.exitcode in (0, -signal.SIGKILL)
        deaths += life.exitcode != 0
    assert deaths >= 5
    finish(processes, path, closing)
    assert contents(path) == uninterrupted


def test_killed_at_random_moments_and_resumed_the_store_is_that_of_an_uninterrupted_run(
    processes, uninterrupted, closing, tmp_path
):
    path, rng = tmp_path / "log.db", random.Random(2)
    progress = {0}
    for _ in range(6):
        life = processes.Process(target=run_and_die, args=(str(path), TICKS, None, closing))
        life.start()
        before = time.monotonic()
        while life.is_alive() and events_in(path) in progress and time.monotonic() - before < 30:
            time.sleep(0.001)  # until this life has stored something
        time.sleep(rng.uniform(0.0, 0.05))
        life.kill()
        life.join(60)
        progress.add(events_in(path))
    assert len(progress) >= 3  # it was killed in the midst of things
    finish(processes, path, closing)
    assert contents(path) == uninterrupted


def test_two_learners_over_one_log_write_the_same_rows_and_do_not_quarrel(
    processes, uninterrupted, closing, tmp_path
):
    path = tmp_path / "log.db"
    run_and_die(str(path), TICKS, None, closing)
    both = [
        processes.Process(target=run_and_die, args=(str(path), TICKS, None, closing))
        for _ in range(2)
    ]
    for each in both:
        each.start()
    for each in both:
        each.join(60)
    assert [each.exitcode for each in both] == [0, 0]
    assert contents(path) == uninterrupted
