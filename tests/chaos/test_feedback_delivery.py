"""From a broker: each feedback counts once or is set aside with a reason, over restarts.

Everything is sent in no order at all: feedback one to five times, some before its decision, some
after its window, records that are no events among them. The learner is stopped in the middle again
and again, at places that depend on how quick the broker is.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

from support.judgements import check, judged, rules
from support.learners import Owner
from support.malformed import malformed
from support.streaming import plan, send, topic
from support.streams import decision

from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.letters import KafkaLetters
from bandit_router.adapters.outbox import Outgoing
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.events import Event, encode
from bandit_router.streaming.applearner import AppPlan
from bandit_router.streaming.learning import Learning
from bandit_router.types import Interaction

APP = "default"
MALFORMED = 200
LIVES = 8
PATIENCE_S = 60.0


def from_its_producer(event: Event) -> Outgoing:
    """A forged event has the app it pretends to be of in it, and the producer's own as key."""
    return Outgoing(topic(event), APP, encode(event))


def learning(connection: Connection, app: AppPlan) -> Learning:
    owner = Owner(range(connection.partitions))
    return Learning([app], connection, group="", batch=64, membership=owner)


def learn_all(connection: Connection, app: AppPlan) -> None:
    deadline = time.monotonic() + PATIENCE_S
    with learning(connection, app) as learner:
        learner.run(stop=lambda: time.monotonic() > deadline, until_idle_s=0.5)
    assert time.monotonic() < deadline


def logged(folder: Path) -> int:
    """How many events the app's store has."""
    (path,) = folder.rglob("*.db")
    with SqliteStore.open(path, create=False) as store:
        return store.last_offset()


def test_each_feedback_counts_once_and_the_dead_letters_hold_the_rest(any_broker, tmp_path: Path):
    connection = any_broker.with_topics(partitions=2)
    rng = random.Random(11)
    sent = judged(rng, 300, apart_s=0.01, judges=4, aggregation="mean")
    records = [from_its_producer(event) for event in sent.events]
    records += [Outgoing("outcomes", APP, malformed(rng, n)) for n in range(1, MALFORMED)]
    records.append(Outgoing("outcomes", APP, None))
    rng.shuffle(records)
    send(connection, records)

    app = plan(APP, tmp_path, rules=rules("window", "mean"))
    stopped_at = set()
    for _ in range(LIVES):
        with learning(connection, app) as learner:
            for _ in range(rng.randint(2, 12)):
                learner.turn()
        stopped_at.add(logged(tmp_path))
    learn_all(connection, app)
    assert len({at for at in stopped_at if 0 < at < logged(tmp_path)}) >= 2
    send(connection, [decision("end", 1300.0)])  # ends every window
    learn_all(connection, app)

    (path,) = tmp_path.rglob("*.db")
    with SqliteStore.open(path, create=False) as store:
        rows = [row for _, row in store.rows() if isinstance(row, Interaction)]
        rejected = Counter(store.rejected_counts())
    with KafkaLetters(connection) as place:
        letters = [letter.record for letter in place.letters()]
    assert len({letter.token for letter in letters}) == MALFORMED + sent.set_aside["forged_app"]
    reasons = {letter.token: letter.reason for letter in letters}
    dead = Counter(reasons.values())
    for reason in ("null", "undecodable", "unknown_version", "invalid"):
        assert dead[reason] == rejected.pop(reason) > 0
    rejected["forged_app"] = dead["forged_app"]
    check(sent, rows, rejected)
