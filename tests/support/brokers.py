"""Brokers for tests, on loopback alone: Tansu in memory, and Apache Kafka where Java has its jars.

Both have ``name``, ``bootstrap`` and ``kill``/``restart``. A killed Tansu has forgotten everything,
its topics too; a killed Kafka node has what it acknowledged.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

from bandit_router.adapters.kafka.admin import init_topics
from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.opening import open_client
from bandit_router.bench.brokers import KafkaCluster, Tansu

__all__ = ["Broker", "KafkaCluster", "Tansu"]


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
