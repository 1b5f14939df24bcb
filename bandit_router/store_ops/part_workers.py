"""Processes that each keep to their parts of a log through every pass over it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any, Self

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class PartWorkers:
    """A mapper for :func:`~bandit_router.store_ops.evaluating.evaluate`; a context manager.

    Job number i always goes to process i modulo their number, so what a process has kept of its
    part serves the next pass. Processes are spawned, with single-threaded linear algebra.

    Args:
        processes: at least 1.
    """

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._stack, self._pools = ExitStack(), []
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        # A process reads these when it loads its linear algebra, which is before any of our code.
        self._before = {name: os.environ.get(name) for name in _ONE_THREAD}
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
        context = multiprocessing.get_context("spawn")
        self._pools = [
            self._stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
            for _ in range(self._processes)
        ]
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def __call__(
        self, work: Callable[[Any, Any], Any], shared: Any, jobs: Sequence[Any]
    ) -> list[Any]:
        """``work(shared, job)`` of every job, in the order of the jobs."""
        futures = [
            self._pools[number % self._processes].submit(work, shared, job)
            for number, job in enumerate(jobs)
        ]
        return [future.result() for future in futures]
