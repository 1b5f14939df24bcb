"""The same work on many jobs, in several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")
Shared = TypeVar("Shared")

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_here: dict[str, Any] = {}


def run_jobs(
    work: Callable[[Shared, Job], Result],
    shared: Shared,
    jobs: Sequence[Job],
    *,
    processes: int,
    tick: Callable[[int], None] | None = None,
) -> list[Result]:
    """``work(shared, job)`` of every job, in the order of the jobs.

    Args:
        work: a function of a module, so that another process can find it.
        shared: sent once to each process.
        processes: 1 runs everything in this process.
        tick: called with 1 when a job is done.

    The processes are spawned, not forked (forked VW workspaces and compilers misbehave), each with
    single-threaded linear algebra, so that they do not fight for cores.
    """
    done = tick or (lambda _: None)
    if processes == 1 or len(jobs) < 2:
        results = []
        for job in jobs:
            results.append(work(shared, job))
            done(1)
        return results
    with (
        _single_threaded_children(),
        ProcessPoolExecutor(
            min(processes, len(jobs)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_take,
            initargs=(work, shared),
        ) as pool,
    ):
        futures = [pool.submit(_call, job) for job in jobs]
        for future in as_completed(futures):
            future.result()  # stop at the first failure, not at the end
            done(1)
        return [future.result() for future in futures]


def run_apart(work: Callable[[Job], Result], job: Job) -> Result:
    """``work(job)`` in a new process, which ends with it."""
    with (
        _single_threaded_children(),
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        return pool.submit(work, job).result()


def _take(work: Callable[[Any, Any], Any], shared: Any) -> None:
    _here.update(work=work, shared=shared)


def _call(job: Any) -> Any:
    return _here["work"](_here["shared"], job)


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
