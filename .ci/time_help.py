"""Fail when `bandit-router --help` takes more than 0.4 s. Usage: time_help.py EXECUTABLE."""

from __future__ import annotations

import subprocess
import sys
import time

LIMIT_S = 0.4
RUNS = 7


def seconds(executable: str) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    subprocess.run([executable, "--help"], stdout=subprocess.DEVNULL, check=True)  # noqa: S603
    return time.perf_counter() - start


if __name__ == "__main__":
    # The best of a few: a busy machine only ever adds time.
    best = min(seconds(sys.argv[1]) for _ in range(RUNS))
    print(f"bandit-router --help: {best:.2f} s, at most {LIMIT_S} s")
    sys.exit(best > LIMIT_S)
