"""How to reach Kafka, what the topics are called, and whose fault an error is."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bandit_router.errors import ConfigError, TransportError

DECISIONS, OUTCOMES, CHANGES = "decisions", "outcomes", "changes"
SNAPSHOTS, DEAD_LETTERS, ORDER = "snapshots", "dead_letters", "order"

SOURCES = (CHANGES, DECISIONS, OUTCOMES)
"""The topics that a learner reads, in the order in which equal times are merged."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """Where the brokers are and how to talk to them.

    Attributes:
        bootstrap_servers: ``host:port`` of some brokers; the others are found through them.
        prefix: of every topic's name.
        partitions: of every topic; the same everywhere, so that what one app's decisions and
            outcomes are keyed by leads both into partitions of one number.
        security: settings of TLS and SASL, by kafka-python's names, handed through.
        timeout_s: how long one attempt to reach the cluster may take, seconds.
    """

    bootstrap_servers: tuple[str, ...]
    prefix: str = "bandit"
    partitions: int = 8
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timeout_s: float = 5.0

    def topic(self, name: str) -> str:
        """The full name of the topic that this module calls ``name``."""
        return f"{self.prefix}.{name}"

    def partition_of(self, app: str) -> int:
        """The partition of an app in every topic: that of Kafka's default partitioner."""
        from kafka.partitioner.default import murmur2

        return (murmur2(app.encode()) & 0x7FFFFFFF) % self.partitions

    def options(self, **more: Any) -> dict[str, Any]:
        """Arguments that every client of kafka-python is made with, and ``more``."""
        return {
            "bootstrap_servers": list(self.bootstrap_servers),
            "bootstrap_timeout_ms": int(self.timeout_s * 1000),
            "allow_auto_create_topics": False,
            "reconnect_backoff_max_ms": 2000,  # the default, 30 s, is how long a mend goes unseen
            **self.security,
            **more,
        }

    def admin_options(self) -> dict[str, Any]:
        """Arguments for kafka-python's admin client, which knows fewer of them."""
        options = self.options(request_timeout_ms=int(self.timeout_s * 2000))
        del options["allow_auto_create_topics"]
        return options


@contextmanager
def translated(what: str, connection: Connection) -> Iterator[None]:
    """Turn errors of kafka-python into ours.

    Raises:
        TransportError: the cluster cannot be reached or refused; ``retriable`` unless access was
            denied or the request can never be right.
        ConfigError: the connection's settings are wrong.
    """
    if "kafka" not in sys.modules:
        import kafka.errors  # noqa: F401 - the except clauses below need it
    from kafka import errors

    where = ", ".join(connection.bootstrap_servers)
    try:
        yield
    except (errors.KafkaConfigurationError, errors.UnsupportedCodecError) as error:
        raise ConfigError(f"Kafka at {where}: could not {what}: {error}") from error
    except (errors.KafkaError, OSError) as error:
        failure = TransportError(f"Kafka at {where}: could not {what}: {explained(error)}")
        failure.retriable = bool(getattr(error, "retriable", True)) or isinstance(error, OSError)
        raise failure from error


def explained(error: BaseException) -> str:
    """One line that says what an error of kafka-python means."""
    text = str(error).split("\n", 1)[0][:300]
    name = type(error).__name__
    return text if name in text else f"{name}: {text}" if text else name
