"""A flood of malformed records costs no memory and stops nothing.

MALFORMED=100000 runs the long version.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.malformed import GOOD_EVERY, WARM_UP, stream

from bandit_router.errors import EventError
from bandit_router.events import decode

REPO = Path(__file__).resolve().parents[2]
FLOOD = int(os.environ.get("MALFORMED", "20000"))
AT_MOST_MB = 20.0
REASONS = {"null", "oversize", "undecodable", "unknown_version", "invalid"}


def test_none_of_the_flood_is_an_event_and_every_reason_is_in_it():
    reasons = set()
    for record, good in stream(3000):
        if good:
            decode(record)
            continue
        with pytest.raises(EventError) as caught:
            decode(record)
        reasons.add(caught.value.reason)
    assert reasons == REASONS


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_malformed_records_take_no_memory_and_the_good_among_them_all_arrive(tmp_path):
    # In a process of its own: what other tests left in memory would blur the figure.
    run = subprocess.run(
        [sys.executable, "-m", "support.malformed", str(tmp_path / "log.db"), str(FLOOD)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{REPO}{os.pathsep}{REPO / 'tests'}"},
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    total = WARM_UP + FLOOD
    assert (found["malformed"], found["dead"]) == (total, total)
    assert set(found["rejected"]) == REASONS
    assert sum(found["rejected"].values()) == total
    requests = -(-total // GOOD_EVERY)
    assert (found["joined"], found["rows"]) == (requests, requests)
    assert found["growth_mb"] <= AT_MOST_MB, found
