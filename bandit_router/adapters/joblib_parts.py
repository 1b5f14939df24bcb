"""The parts of a log on whatever joblib reaches: threads, processes, or a Dask or Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bandit_router.errors import DependencyError, TransportError

_MISSING = "package {!r} is not installed: pip install 'bandit-router[cluster]'"


class JoblibParts:
    """A mapper for :func:`~bandit_router.store_ops.evaluating.evaluate`.

    Every worker must find the log under the same path. What a worker sends back are sums, of a
    size that does not depend on the log's.

    Args:
        backend: a backend that joblib knows or that was registered with it: ``loky``,
            ``threading``, ``dask`` (with a ``distributed.Client`` open), ``ray``.
        n_jobs: how many parts at once; -1 for as many as there are workers.

    Raises:
        DependencyError: joblib is not installed.
    """

    def __init__(self, backend: str = "loky", n_jobs: int = -1) -> None:
        try:
            import joblib
        except ImportError as error:
            raise DependencyError(_MISSING.format("joblib")) from error
        self._joblib, self._backend, self._n_jobs = joblib, backend, n_jobs

    def __call__(
        self, work: Callable[[Any, Any], Any], shared: Any, jobs: Sequence[Any]
    ) -> list[Any]:
        """``work(shared, job)`` of every job, in the order of the jobs."""
        with self._joblib.parallel_config(backend=self._backend, n_jobs=self._n_jobs):
            tasks = (self._joblib.delayed(work)(shared, job) for job in jobs)
            return list(self._joblib.Parallel()(tasks))


class DaskParts:
    """:class:`JoblibParts` on a Dask cluster; a context manager that holds the connection.

    Args:
        scheduler: its address, as in ``tcp://host:8786``.

    Raises:
        DependencyError: joblib or distributed is not installed.
    """

    def __init__(self, scheduler: str, *, timeout_s: float = 10.0) -> None:
        try:
            from distributed import Client
        except ImportError as error:
            raise DependencyError(_MISSING.format("distributed")) from error
        self._scheduler, self._timeout_s, self._make = scheduler, timeout_s, Client
        self._parts = JoblibParts("dask")

    def __enter__(self) -> JoblibParts:
        """Connect.

        Raises:
            TransportError: the scheduler cannot be reached.
        """
        try:
            self._client = self._make(self._scheduler, timeout=self._timeout_s)
        except (OSError, ValueError) as error:
            raise TransportError(
                f"no Dask scheduler at {self._scheduler}: {error}; is it running there?"
            ) from error
        return self._parts

    def __exit__(self, *exception: object) -> None:
        self._client.close()
