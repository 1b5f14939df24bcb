"""Make clients of kafka-python so that a failure leaves nothing behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

Client = TypeVar("Client")


def open_client(kind: type[Client], options: Mapping[str, Any]) -> Client:
    """``kind(**options)``, without the thread and sockets that kafka-python leaves when it fails.

    A constructor of kafka-python starts a network thread and then raises when no broker answers in
    time. Whoever tries again every few seconds while Kafka is away would gather such threads.

    Args:
        kind: ``KafkaProducer``, ``KafkaConsumer`` or ``KafkaAdminClient``.
        options: the constructor's arguments, with ``bootstrap_timeout_ms``.

    Raises:
        Exception: whatever the constructor raised.
    """
    from kafka.net.compat import KafkaNetClient

    networks: list[KafkaNetClient] = []

    def remembered(*arguments: Any, **settings: Any) -> KafkaNetClient:
        networks.append(KafkaNetClient(*arguments, **settings))
        return networks[-1]

    try:
        return kind(**options, kafka_client=remembered)
    except BaseException:
        for network in networks:
            network.close()
        raise
