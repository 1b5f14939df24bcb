"""Snapshots as a learner would publish them, and as somebody would who means harm."""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec
from support.streams import DIMENSION, MODELS, catalog, features

from bandit_router.adapters.kafka.assembly import (
    CONTAINER_HEADER,
    ID_HEADER,
    INDEX_HEADER,
    Announced,
    Refused,
    chunk_key,
)
from bandit_router.loop import Loop, MemorySink
from bandit_router.models import ModelSpec
from bandit_router.snapshot import Recipe, Snapshot, state_of
from bandit_router.snapshot.announcement import announce, encode
from bandit_router.store_ops import fresh_loop
from bandit_router.types import Interaction

APP = "default"
KEY = b"a key of enough length"

Record = tuple[bytes, bytes | None, list[tuple[str, bytes]]]


def recipe(**fields) -> Recipe:
    """The default policy over the three models of the streams."""
    defaults = {
        "app": APP,
        "policy": "bandit",
        "dimension": DIMENSION,
        "featurizer_id": "test",
        "catalog": tuple(catalog()),
        "quality_value_usd": 0.05,
    }
    return Recipe(**(defaults | fields))


def interaction(number: int, **fields) -> Interaction:
    """A valid training row with text and columns."""
    rng = random.Random(number)
    made = msgspec.structs.replace(
        features(number),
        ngrams=tuple(sorted(rng.sample(range(1 << 18), 8))),
        columns={"task": f"t{number % 5}"},
    )
    defaults = {
        "event_id": f"e{number}",
        "ts": float(number),
        "closed_ts": float(number),
        "features": made,
        "eligible": MODELS,
        "pmf": (0.25, 0.5, 0.25),
        "action": MODELS[number % 3],
        "propensity": 0.25,
        "slice": "policy",
        "quality_value_usd": 0.05,
        "score": float(rng.random() < 0.5),
        "cost_usd": 0.002,
    }
    return Interaction(**(defaults | fields))


def trained(rows: int, of: Recipe | None = None) -> Loop:
    """A loop whose learner has seen so many rows."""
    loop = fresh_loop(of or recipe(), MemorySink())
    for number in range(rows):
        loop.learner.apply(interaction(number))
    return loop


def taken(loop: Loop, of: Recipe | None = None, *, key: bytes | None = None) -> Snapshot:
    """A snapshot of the loop's state."""
    return state_of(
        loop.learner,
        loop.joiner,
        recipe=of or recipe(),
        offset=loop.learner.learn_seq,
        parent="",
        key=key,
    )


def snapshot(rows: int = 20, *, key: bytes | None = None, **fields) -> Snapshot:
    """A snapshot after so many rows."""
    of = recipe(**fields)
    return taken(trained(rows, of), of, key=key)


def records(
    of: Snapshot, *, app: str = APP, epoch: int = 1, key: bytes | None = None, chunk_bytes: int = 0
) -> list[Record]:
    """The records that publish a snapshot, the announcement last."""
    announcement, pieces = announce(
        app, of, epoch=epoch, learner="test", key=key, chunk_bytes=chunk_bytes or 900_000
    )
    name = of.id.encode()
    last = [(ID_HEADER, name)]
    if not announcement.chunks:
        last.append((CONTAINER_HEADER, pieces[0]))
        pieces = []
    return [
        *(
            (chunk_key(app, i), piece, [(ID_HEADER, name), (INDEX_HEADER, b"%d" % i)])
            for i, piece in enumerate(pieces)
        ),
        (app.encode(), encode(announcement), last),
    ]


def announced(
    of: Snapshot, *, app: str = APP, epoch: int = 1, data: bytes | None = None
) -> Announced:
    """What a reader would hand over; with other ``data``, of which it knows no better."""
    announcement, _ = announce(app, of, epoch=epoch, learner="test", key=KEY)
    return Announced(announcement=announcement, data=of.data if data is None else data)


class ListReader:
    """A reader that hands over what a test puts into it."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.coming: list[Announced | Refused | Exception] = []
        self.closed = 0

    def give(self, *items: Announced | Refused | Exception) -> None:
        """Hand these over, one a poll."""
        self.coming += items

    def poll(self, timeout_s: float) -> list[Announced | Refused]:
        del timeout_s
        if not self.coming:
            return []
        item = self.coming.pop(0)
        if isinstance(item, Exception):
            raise item
        return [item]

    def close(self) -> None:
        self.closed += 1


def specs(count: int) -> Iterable[ModelSpec]:
    """So many models."""
    return (ModelSpec(model=f"m{i}", expected_cost_usd=0.001 * (i + 1)) for i in range(count))
