"""SIGKILL of whoever writes an outbox: what a put has taken is there, and nothing is half there."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.relaying import numbered

from bandit_router.adapters.outbox import Outbox

WRITER = """
import sys
from support.relaying import numbered
from bandit_router.adapters.outbox import Outbox

first = int(sys.argv[2])
with Outbox.open(sys.argv[1], synchronous=sys.argv[3]) as outbox:
    number = first
    while True:
        outbox.put([numbered(number), numbered(number + 1)])
        number += 2
        print(number, flush=True)
"""


def write_and_die(path: Path, first: int, synchronous: str, after_s: float) -> int:
    """Put numbered records from a process that is killed; returns the first not acknowledged."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first), synchronous],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert process.stdout is not None
    line = process.stdout.readline()  # it has begun
    deadline = time.monotonic() + after_s
    while time.monotonic() < deadline:
        line = process.stdout.readline()
    process.kill()
    # The last line may be cut; what was acknowledged is what was printed whole.
    lines = process.stdout.read().split(b"\n")[:-1]
    process.stdout.close()
    process.wait()
    return int([line, *lines][-1])


@pytest.mark.parametrize("synchronous", ["NORMAL", "FULL"])
def test_every_put_that_returned_before_the_process_was_killed_is_there(tmp_path, synchronous):
    path, rng = tmp_path / "outbox.db", random.Random(3)
    first = 0
    for _ in range(4):
        acknowledged = write_and_die(path, first, synchronous, rng.uniform(0.01, 0.1))
        with Outbox.open(path) as outbox:
            waiting = outbox.read(0, 10_000_000)
        assert [item.record for item in waiting] == [numbered(n) for n in range(len(waiting))]
        assert [item.id for item in waiting] == list(range(1, len(waiting) + 1))
        assert len(waiting) >= acknowledged > first
        assert len(waiting) % 2 == 0  # a put is there whole or not at all
        first = len(waiting)
