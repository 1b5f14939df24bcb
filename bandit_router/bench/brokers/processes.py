"""Servers that tests start: each in a process group of its own, and gone when the run is gone."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"

# The shell starts the server and waits at a pipe whose other end the test run holds. When the run
# ends, in whatever way, the pipe ends and the group is killed; so it is when the server ends.
GUARD = '{ "$@"; kill -9 0; } & read -r _; kill -9 0'

_given: set[int] = set()


def free_port() -> int:
    """A port nobody listens on, below those that the system gives to outgoing connections.

    So it is still free for a server that comes back after it was killed.
    """
    draw = random.Random(os.urandom(8))  # noqa: S311 - a port, not a secret
    for port in (draw.randrange(15_000, 32_000) for _ in range(1000)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            if port not in _given:
                _given.add(port)
                return port
    raise OSError("no free port on loopback")


def listening(port: int) -> bool:
    """Whether somebody accepts connections on a port of this machine."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((LOOPBACK, port), timeout=1) as connection,
    ):
        # A connection to a port in the range of outgoing ones can be one to itself.
        return connection.getsockname() != connection.getpeername()
    return False


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait for a condition, asking every 10 ms.

    Raises:
        TimeoutError: it did not come true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s in vain until {what}")
        time.sleep(0.01)


class Server:
    """A program that serves, until it is stopped or the test run ends, however that ends.

    Args:
        command: the program and its arguments.
        log: file that its output is appended to.
        port: what it listens on; None for nothing.
        env: its environment; None takes that of the test run.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        port: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._command, self._log, self._port = list(command), log, port
        self._env = None if env is None else dict(env)
        self._process: subprocess.Popen[bytes] | None = None
        self._alive = -1

    def start(self) -> None:
        """Start it; returns at once."""
        if self.running():
            raise RuntimeError(f"{self._command[0]} runs already")
        self._collect()
        self._alive, held = os.pipe()
        with self._log.open("ab") as log, os.fdopen(held, "wb"):
            self._process = subprocess.Popen(  # noqa: S603 - the caller's own command
                ["/bin/sh", "-c", GUARD, "server", *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                pass_fds=(held,),
                start_new_session=True,
            )

    @property
    def group(self) -> int | None:
        """The process group of the program and all it starts; None when it does not run."""
        return self._process.pid if self._process is not None else None

    def running(self) -> bool:
        """Whether the program has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def wait_ready(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until it serves.

        Raises:
            RuntimeError: it ended, or was not ready in time; with the end of its log.
        """
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not self.running() or ready(), timeout_s, "it is ready")
            if self.running():
                return
        state = f"not ready after {timeout_s:g} s" if self.running() else "ended"
        self.kill()
        tail = self._log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{self._command[0]} {state}:\n{tail}")

    def kill(self) -> None:
        """``kill -9``, and wait until its port is free. Nothing happens when it does not run."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._collect()
            port = self._port
            if port is not None:
                wait_until(lambda: not listening(port), 10, f"port {port} is free")

    def pause(self) -> None:
        """Halt it where it is; connections stay open and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a halted one go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.running():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _collect(self) -> None:
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait()
            self._process = None
            with os.fdopen(self._alive, "rb") as alive:
                alive.read()  # ends when the last process of the group has ended
