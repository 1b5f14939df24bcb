"""Dead letters wherever they are kept, and what it takes to send one again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, Self

import msgspec

from bandit_router.adapters.kafka.dead_letters import DeadRecord
from bandit_router.events import Event


class Letter(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A dead letter in its place.

    Attributes:
        record: what was set aside, and why.
        partition: of the dead letters' topic; None in a store.
        offset: in the topic or the store's log.
        replayed: it has been sent again already.
        dead: it could not be read. Otherwise it is a sound event that the joiner had no use for
            (late, duplicate...), and would have none again.
    """

    record: DeadRecord
    partition: int | None
    offset: int
    replayed: bool
    dead: bool = True


class Fresh(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """An event that is to be sent again: as bytes, and decoded.

    ``token`` identifies it, as :attr:`DeadRecord.token`; ``partition`` is the letter's.
    """

    data: bytes
    event: Event
    token: str
    partition: int | None = None


class Letters(Protocol):
    """A place where dead letters are kept, beside the log or topics that they are sent back to."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...

    def letters(self) -> Iterator[Letter]:
        """All of them, one after the other, oldest first within a partition.

        Raises:
            TransportError, StorageError: they cannot be read.
        """
        ...

    def sent_before(self, fresh: Fresh) -> bool:
        """Whether this very event has been sent again from here already."""
        ...

    def send(self, batch: Sequence[Fresh]) -> None:
        """Send events, and remember that they were sent.

        Raises:
            TransportError, StorageError: it failed; some may have been sent all the same.
        """
        ...
