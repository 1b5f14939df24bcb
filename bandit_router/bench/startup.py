"""Whole processes: the help page, and the first decision with and without compiled kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bandit_router.bench.figures import Figure, median_figure
from bandit_router.errors import DependencyError

HELP_AT_MOST_S = 0.4
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])


def help_figures(*, rounds: int = 7) -> list[Figure]:
    """Wall time of ``bandit-router --help``, and of a Python that does nothing, in turn."""
    script = Path(sys.executable).with_name("bandit-router")
    if script.is_file():
        command, how = [str(script), "--help"], "the console script"
    else:
        module = "bandit_router.cli.app"
        command, how = [sys.executable, "-m", module, "--help"], f"python -m {module}"
    nothing = [sys.executable, "-c", "pass"]
    taken: dict[str, list[float]] = {"help": [], "nothing": []}
    _seconds(command)
    for _ in range(rounds):
        taken["help"].append(_seconds(command))
        taken["nothing"].append(_seconds(nothing))
    note = f"{how}, whole process, {rounds} times"
    return [
        median_figure(
            "bandit-router --help", taken["help"], "s", at_most=HELP_AT_MOST_S, note=note
        ),
        median_figure("python -c pass", taken["nothing"], "s", note="in turn with it"),
    ]


def first_use_figures() -> list[Figure]:
    """The first decision and learning of a process: kernels compiled, then loaded from disk."""
    with tempfile.TemporaryDirectory(prefix="bandit-router-bench-") as folder:
        compiled, loaded = (_first_use(folder) for _ in range(2))
    return [
        Figure(
            "first use ever, kernels compiled",
            compiled["first_s"],
            "s",
            note="first decide and learn of a new installation",
        ),
        Figure(
            "first use of a process, kernels loaded",
            loaded["first_s"],
            "s",
            note=f"imports before it {loaded['import_s']:.2f} s, second query "
            f"{loaded['second_s'] * 1e3:.2f} ms",
        ),
    ]


def _first_use(cache: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bandit_router.bench.first_use"]
    return json.loads(_run(command, NUMBA_CACHE_DIR=cache))


def _seconds(command: list[str]) -> float:
    start = time.perf_counter()
    _run(command)
    return time.perf_counter() - start


def _run(command: list[str], **variables: str) -> str:
    """stdout of a command. The package is found from a checkout too."""
    paths = [_PACKAGE_PARENT, os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise DependencyError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    return done.stdout
