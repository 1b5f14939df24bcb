"""A relay in a process of its own, so that sending never holds up whoever makes the events.

kafka-python spends about .15 ms of Python on each record. In the process of a router that is time
in which the interpreter is taken: with a backlog to send, a put into the outbox takes 5 ms instead
of .2 (the interval at which threads take turns). Beside it, the router only writes to the file.

The child gets its settings, passwords included, through a pipe, tells its status through another,
and ends when the first one closes: however a router ends, its relay does not outlive it, and what
is left in the outbox is sent by the next one. A child that dies is started again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any, Self

import msgspec

import bandit_router
from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.relay import Relay, RelayLimits
from bandit_router.errors import BanditRouterError, StorageError

_STATUS_S = 0.5
_START_S = 20.0
_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_NICE = 10
"""A backlog is sent with what processor time the requests leave."""


class _Setup(msgspec.Struct):
    """What a child is told before anything else."""

    outbox_path: str
    connection: Connection
    limits: RelayLimits
    wait_s: float


class _Told(msgspec.Struct, omit_defaults=True):
    """One line of a child: that it could not start, and why, or its status."""

    refused: str = ""
    status: dict[str, Any] = {}


class RelayProcess:
    """As :class:`Relay`, in a child process. See there for the arguments.

    ``wait_s``: how long a relay may wait for an earlier one of the same outbox to end, seconds.
    """

    def __init__(
        self,
        outbox_path: Path | str,
        connection: Connection,
        *,
        limits: RelayLimits | None = None,
        wait_s: float = 3.0,
    ) -> None:
        self.path = Path(outbox_path)
        self._timeout_s = connection.timeout_s
        self._setup = msgspec.json.encode(
            _Setup(str(self.path.absolute()), connection, limits or RelayLimits(), wait_s)
        )
        self._child: subprocess.Popen[bytes] | None = None
        self._status: dict[str, Any] = {"running": False, "connected": False}
        self._restarts = 0
        self._refused = ""
        self._heard = threading.Event()
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="relay-watcher", daemon=True)

    @property
    def pid(self) -> int | None:
        """The child's process id, or None when there is none."""
        child = self._child
        return None if child is None or child.poll() is not None else child.pid

    def start(self) -> None:
        """Start the child, and wait until it has the outbox. Kafka need not be there yet.

        Raises:
            StorageError: another relay has the outbox, or the child cannot open it, or none lives
                long enough to say so.
        """
        self._child = self._spawned()
        self._watcher.start()
        if not self._heard.wait(_START_S):
            self._refused = f"{self.path}: the relay process did not start in {_START_S:g} s"
        if self._refused:
            self.close(drain_s=0.0)
            raise StorageError(self._refused)

    def close(self, *, drain_s: float = 5.0) -> None:
        """Stop the child, after the backlog is sent or ``drain_s`` seconds have passed."""
        self._closing.set()
        child = self._child
        if child is not None:
            _tell(child, b"%f\n" % drain_s)
            try:
                child.wait(drain_s + self._timeout_s + 5.0)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if self._watcher.is_alive():
            self._watcher.join(_LONGEST_PAUSE_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def status(self) -> dict[str, Any]:
        """As :meth:`Relay.status`, half a second old at most; ``restarts`` counts dead children."""
        status = {**self._status, "restarts": self._restarts}
        return status if self.pid is not None else {**status, "running": False, "connected": False}

    def _spawned(self) -> subprocess.Popen[bytes]:
        root = str(Path(bandit_router.__file__).resolve().parents[1])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        child = subprocess.Popen(  # noqa: S603 - this very module
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        _tell(child, self._setup + b"\n", end=False)
        return child

    def _watch(self) -> None:
        """Listen to the child; when it dies, start another after a pause."""
        pause_s = _PAUSE_S
        child = self._child
        while child is not None:
            assert child.stdout is not None  # noqa: S101 - for the type checker
            with child.stdout as lines:
                if self._listen(lines):
                    pause_s = _PAUSE_S
            child.wait()
            _tell(child, b"")  # it is gone: this closes the pipe
            child = None
            while child is None and not (self._closing.wait(pause_s) or self._refused):
                pause_s = min(pause_s * 2.0, _LONGEST_PAUSE_S)
                child = self._another()

    def _another(self) -> subprocess.Popen[bytes] | None:
        """A new child, or None when there cannot be one now."""
        self._restarts += 1
        try:
            child = self._child = self._spawned()
        except OSError as error:  # out of processes or file descriptors
            self._status = {**self._status, "last_error": f"no relay process: {error}"}
            return None
        if self._closing.is_set():  # meanwhile, and nobody else knows of this one
            child.kill()
        return child

    def _listen(self, lines: IO[bytes]) -> bool:
        """Take what a child says until it ends; whether it ever worked."""
        worked = False
        for line in lines:
            try:
                told = msgspec.json.decode(line, type=_Told)
            except msgspec.DecodeError:
                continue  # cut short by its death
            if told.refused:
                self._status = {**self._status, "last_error": told.refused}
                if not self._heard.is_set():
                    self._refused = told.refused  # the first one: whoever starts it is told
            else:
                worked = True
                self._status = told.status
            self._heard.set()
        return worked  # one that ended before it said a word is followed by another


def _tell(child: subprocess.Popen[bytes], line: bytes, *, end: bool = True) -> None:
    """Write to a child, which may be dead already; ``end`` closes the pipe."""
    assert child.stdin is not None  # noqa: S101 - for the type checker
    try:
        child.stdin.write(line)
        child.stdin.flush()
    except (OSError, ValueError):  # it has ended, or the pipe is closed already
        end = True
    if end:
        with contextlib.suppress(OSError):
            child.stdin.close()


def main() -> int:
    """The child: relay until the pipe from the parent says how long to drain, or closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then lets drain
    os.nice(_NICE)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what goes wrong is in the status
    setup = msgspec.json.decode(sys.stdin.buffer.readline(), type=_Setup)
    relay = Relay(setup.outbox_path, setup.connection, limits=setup.limits, wait_s=setup.wait_s)
    try:
        relay.start()
    except BanditRouterError as error:
        _say(_Told(refused=str(error)))
        return 1
    drain_s = 0.0
    while relay.status()["running"] and _say(_Told(status=relay.status())):
        readable, _, _ = select.select([sys.stdin.buffer], [], [], _STATUS_S)
        if readable:
            drain_s = float(sys.stdin.buffer.readline() or 0.0)  # nothing: the parent is gone
            break
    relay.close(drain_s=drain_s)
    _say(_Told(status=relay.status()))
    return 0


def _say(told: _Told) -> bool:
    """Whether anybody is listening."""
    try:
        sys.stdout.buffer.write(msgspec.json.encode(told) + b"\n")
        sys.stdout.buffer.flush()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # a client of kafka-python that hangs must not keep the process
