"""A flood of records that are no events, with good events among them, into a store and a loop."""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from support.session import recipe
from support.streams import completion, decision, escalation, feedback

from bandit_router.adapters.kafka.dead_letters import decode_dead, encode_dead, set_aside
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.events import MAX_EVENT_BYTES, encode
from bandit_router.loop import Loop
from bandit_router.store_ops import resume

WARM_UP = 2000
BATCH = 500
GOOD_EVERY = 20
HUGE_EVERY = 2000


def malformed(rng: random.Random, number: int) -> bytes:
    """A record that is no event, mostly of its own."""
    make = rng.choice((decision, completion, escalation, feedback))
    good = encode(make(f"m{number}", float(number)))
    kind = number % 12
    if number % HUGE_EVERY == 0:
        return good[:-1] + b" " * (MAX_EVENT_BYTES + 1 - len(good)) + b"}"
    if kind == 0:
        return b""
    if kind == 1:
        return good[: rng.randrange(1, len(good) - 1)]
    if kind == 2:
        return good.replace(b'"schema":1', b'"schema":%d' % rng.choice((0, 2, 2**70)))
    if kind == 3:
        deep = rng.choice((b"[", b'{"a":')) * rng.choice((30, 2000, 20_000))
        return b'{"schema":1,"type":"change","ts":1.0,"kind":"rollback","data":' + deep
    if kind == 4:
        return good.replace(b'"m', b'"\xff\xfe', 1)
    if kind == 5:
        number_text = rng.choice((b"NaN", b"Infinity", b"-Infinity", b"1e999"))
        return good.replace(b'"ts":', b'"ts":' + number_text + b',"was":', 1)
    if kind == 6:
        return good.replace(b'"ts":', b'"ts":"now","ts":', 1)  # a key that stands there twice
    if kind == 7:
        wrong = rng.choice((b"null", b"[]", b"{}", b"true", b'"1"'))
        return good.replace(b'"ts":%d.0' % number, b'"ts":' + wrong, 1)
    if kind == 8:
        return good[:-1] + b',"field_%d":%d}' % (number, number)
    if kind == 9:
        return good + good
    if kind == 10:
        return rng.randbytes(rng.randrange(1, 400))
    return json.dumps({f"key {number}": "x" * rng.randrange(400)}).encode()


def stream(n: int) -> Iterator[tuple[bytes, bool]]:
    """``n`` malformed records, and one good request among each twenty; (record, it is good)."""
    rng = random.Random(0)
    for number in range(n):
        yield malformed(rng, number), False
        if number % GOOD_EVERY == 0:
            event_id, ts = f"good{number}", float(number)
            yield encode(decision(event_id, ts)), True
            yield encode(completion(event_id, ts + 0.1)), True
            yield encode(feedback(event_id, ts + 0.2)), True


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def take(store: SqliteStore, loop: Loop, batch: list[tuple[bytes, bool]], dead: Counter) -> None:
    """What a learner does with what it fetched: log it, set aside what is no event, learn."""
    store.append([data for data, _ in batch])
    for data, good in batch:
        if not good:
            letter = set_aside("malformed", data, topic="t.outcomes", offset=1, ts=1.0)
            dead[decode_dead(*encode_dead(letter)).reason] += 1
    loop.run(store)


def main(path: str, n: int) -> dict:
    """Push the flood through; how much memory it took and what came of it."""
    dead: Counter[str] = Counter()
    with SqliteStore.open(Path(path)) as store:
        loop = resume(store, recipe(), snapshot_every=10_000)
        before, batch, count = 0.0, [], 0
        for record in stream(WARM_UP + n):
            batch.append(record)
            count += not record[1]
            if len(batch) >= BATCH:
                take(store, loop, batch, dead)
                batch = []
            if before == 0.0 and count > WARM_UP:
                before = resident_mb()
        take(store, loop, batch, dead)
        growth = resident_mb() - before
        rejected = store.rejected_counts()
        return {
            "growth_mb": growth,
            "malformed": count,
            "dead": dead.total(),
            "rejected": rejected,
            "joined": loop.joiner.counts["joined"],
            "rows": store.last_learn_seq(),
        }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))  # noqa: T201 - read by the test
