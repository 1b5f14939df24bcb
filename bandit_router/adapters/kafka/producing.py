"""The producer that a relay sends with: how it is made, got rid of, and which errors mean what."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bandit_router.adapters.kafka.client import Connection, explained, translated
from bandit_router.adapters.kafka.opening import open_client
from bandit_router.errors import TransportError

if TYPE_CHECKING:
    from kafka import KafkaProducer

MAX_REQUEST_BYTES = 1_048_576
_JOIN_S = 2.0


def make_producer(
    connection: Connection,
    *,
    linger_ms: int,
    batch_bytes: int,
    request_timeout_s: float,
    delivery_timeout_s: float,
) -> KafkaProducer:
    """An idempotent producer that waits for all replicas. Takes up to ``connection.timeout_s``.

    Raises:
        TransportError: no broker answers, or access is denied.
        ConfigError: the connection's settings are wrong.
    """
    from kafka import KafkaProducer

    options = connection.options(
        acks="all",
        enable_idempotence=True,
        linger_ms=linger_ms,
        batch_size=batch_bytes,
        max_request_size=MAX_REQUEST_BYTES,
        compression_type=compression(),
        request_timeout_ms=int(request_timeout_s * 1000),
        delivery_timeout_ms=int(delivery_timeout_s * 1000) + linger_ms,
        max_block_ms=int(connection.timeout_s * 1000),
        metrics_enabled=False,
    )
    with translated("open a producer", connection):
        return open_client(KafkaProducer, options)


def abandon(producer: KafkaProducer) -> None:
    """End a producer at once; what it had not sent fails.

    ``close(timeout=0)`` alone first waits for everything in it and raises when that is not there
    yet, with its thread left running.
    """
    from kafka.errors import KafkaError

    sender = producer._sender  # noqa: SLF001 - see above
    sender.force_close()
    sender.join(_JOIN_S)
    try:
        producer.close(timeout=0)
    except KafkaError:
        producer._closed = True  # noqa: SLF001 - or its finalizer tries once more


def compression() -> str | None:
    """The first of lz4, zstd and snappy whose package is installed, cheapest first; else None."""
    from kafka import codec

    available: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("lz4", codec.has_lz4),
        ("zstd", codec.has_zstd),
        ("snappy", codec.has_snappy),
    )
    return next((name for name, has in available if has()), None)


def never_taken(error: BaseException) -> str | None:
    """Why no broker will ever take the record that failed so, or None when it may yet be taken."""
    from kafka import errors

    if isinstance(error, errors.MessageSizeTooLargeError | errors.RecordListTooLargeError):
        return "oversize"
    return "invalid" if isinstance(error, errors.InvalidRecordError) else None


def in_sending(error: BaseException, connection: Connection, topic: str) -> BaseException:
    """What ``KafkaProducer.send`` raised, in words that say what to do."""
    from kafka import errors

    name = connection.topic(topic)
    if isinstance(error, errors.KafkaTimeoutError):
        what = "no broker knows it; if they are up, `bandit-router events init` makes it"
    elif isinstance(error, ValueError):  # this is how it refuses a partition
        what = f"it has no partition for some app; events.partitions is {connection.partitions}"
    else:
        return error
    failure = TransportError(f"topic {name}: {what}")
    failure.__cause__ = error
    return failure


def reason_of(error: BaseException) -> str:
    """A short stable token of an error, for counters."""
    cause = error.__cause__ if isinstance(error, TransportError) and error.__cause__ else error
    return type(cause).__name__.removesuffix("Error")


def told(error: BaseException) -> str:
    """An error in one line, for people."""
    return str(error) if isinstance(error, TransportError) else explained(error)
