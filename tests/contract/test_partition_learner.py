"""The laws of a partition's learner, held on a broker, in one process."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import time
from contextlib import ExitStack, contextmanager

import msgspec
import pytest
from support.learners import assert_equal_bits, event_ids, followed, learned_ids
from support.streaming import interactions, outgoing, plan, send, send_stamped
from support.streams import decision

from bandit_router.adapters.kafka.dead_letters import decode_dead
from bandit_router.adapters.kafka.fetcher import Fetcher
from bandit_router.adapters.kafka.journal import Entry, Journal
from bandit_router.adapters.kafka.sender import Sender
from bandit_router.adapters.outbox import Outgoing
from bandit_router.errors import FencedError, StorageError, TransportError
from bandit_router.store_ops import policy_of, rebuild
from bandit_router.streaming.applearner import AppLearner
from bandit_router.streaming.partition import PartitionLearner

PATIENCE_S = 20.0


@pytest.fixture
def connection(any_broker):
    return any_broker.with_topics(partitions=1)


class Keeper:
    """Where snapshots are published to, in these tests."""

    def __init__(self):
        self.last = {}

    def publish(self, app, snapshot, *, epoch, learner):
        self.last[app] = snapshot


@contextmanager
def learner(connection, folder, apps=("x",), *, name="first", batch=50, seeds=None, **fields):
    """A claimed partition; ``busy_timeout_s`` and the fields of a plan may be given."""
    timeout = fields.pop("busy_timeout_s", 5.0)
    with ExitStack() as stack:
        sender = stack.enter_context(Sender(connection))
        journal = stack.enter_context(Journal(connection, sender))
        fetcher = stack.enter_context(Fetcher(connection, capacity=2 * batch))
        opened = []
        for app in apps:
            seed = (seeds or {}).get(app)
            opened.append(
                AppLearner.open(
                    plan(app, folder, **fields), lambda s=seed: s, busy_timeout_s=timeout
                )
            )
            stack.callback(opened[-1].close)
        made = PartitionLearner(
            connection.partition_of(apps[0]),
            opened,
            connection,
            journal,
            fetcher,
            learner=name,
            batch=batch,
        )
        made.claim()
        made.fetcher, made.sender, made.journal = fetcher, sender, journal
        yield made


def learn(partition, until) -> None:
    """Go on until the log of the first app holds so many events, or a condition is true."""
    app = next(iter(partition.apps.values()))
    done = until if callable(until) else lambda: app.store.last_offset() >= until
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, f"{app.positions} after {PATIENCE_S} s"
        partition.fetcher.poll(0.02)
        partition.step()


def test_who_has_been_deposed_finds_out_before_it_learns_anything_and_what_it_wrote_is_void(
    connection, tmp_path
):
    events = interactions("x", 60)
    with learner(connection, tmp_path / "a") as first:
        send(connection, events[:100])
        learn(first, 100)
        with learner(connection, tmp_path / "b", name="second") as second:
            send(connection, events[100:])
            before = first.apps["x"].store.last_offset(), first.apps["x"].learn_seq
            with pytest.raises(FencedError, match="second has taken it over with epoch 2"):
                learn(first, len(events))
            assert (first.apps["x"].store.last_offset(), first.apps["x"].learn_seq) == before
            learn(second, len(events))
            assert second.counts["void"] >= 1
    reference = followed(connection, ["x"], tmp_path / "c")["x"]
    assert_equal_bits(reference, AppLearner.open(plan("x", tmp_path / "b")))
    assert len(event_ids(AppLearner.open(plan("x", tmp_path / "b")), "decision")) == 60


def test_of_two_that_claim_with_one_epoch_the_first_has_it_and_the_other_claims_again(
    connection, tmp_path
):
    with learner(connection, tmp_path / "a") as first:
        rival = Entry(epoch=first.epoch + 1, claim="rival")
        append = first.journal.append

        def overtaken(number, entry):
            first.journal.append = append
            append(number, rival)  # between our reading and our writing
            return append(number, entry)

        first.journal.append = overtaken
        first.claim()
        assert first.epoch == rival.epoch + 1


def test_two_processes_on_one_store_cannot_write_one_batch_twice(connection, tmp_path):
    send(connection, interactions("x", 20))
    with learner(connection, tmp_path) as first:
        learn(first, 30)
        other = AppLearner.open(plan("x", tmp_path))
        first.apps["x"].store.rebase({**first.apps["x"].positions, "order": 99})
        other.take([], order=7, start={}, upto={"changes": 0, "decisions": 9, "outcomes": 9})
        with pytest.raises(FencedError, match="another learner has brought it"):
            other.settle()
        other.close()


def test_batches_that_were_written_down_and_not_learned_are_learned_as_they_were_written(
    connection, tmp_path
):
    """Killed after the order was written: the next one makes no batches of its own before them."""
    events = interactions("x", 60)
    with learner(connection, tmp_path / "a", batch=30) as first:
        send(connection, events)
        learn(first, 60)
        topics = {"changes": 0, "decisions": 40, "outcomes": 60}
        start = {t: first.apps["x"].positions[t] for t in topics}
        first.journal.append(0, Entry(epoch=first.epoch, start=start, upto=topics))
    with learner(connection, tmp_path / "a", batch=500) as second:
        assert not second.caught_up
        learn(second, lambda: second.caught_up)
        assert {t: second.apps["x"].positions[t] for t in topics} == topics
        learn(second, len(events))
    reference = followed(connection, ["x"], tmp_path / "b")["x"]
    assert_equal_bits(AppLearner.open(plan("x", tmp_path / "a")), reference)


def test_a_snapshot_taken_amid_a_batch_leads_another_machine_to_the_same_bits(connection, tmp_path):
    """The scheduled snapshots of the first store are the seeds; each lies within a batch, whose
    records are not in the order of their times.
    """
    events, rng = interactions("x", 150), random.Random(1)
    times = [10**12 + 10 * n + rng.randint(0, 900) for n in range(len(events))]
    for n in range(0, len(times), 45):
        times[n] += 60_000  # a clock that is a minute off, now and then
    send_stamped(connection, events, times)
    with learner(connection, tmp_path / "a", batch=200, snapshot_every=20) as first:
        learn(first, len(events))
        whole = first.apps["x"]
        ids = [i for i in whole.store.snapshot_ids() if int(i.split("-")[0]) % 20 == 0]
        seeds = [whole.store.snapshot(i) for i in ids if not i.startswith("000000000000-")]
        assert len(seeds) >= 4
        for seed in seeds[1:]:
            at = whole.store.sources(seed.manifest.offsets["log"])
            assert seed.manifest.offsets == {"log": seed.manifest.offsets["log"], **at}
            folder = tmp_path / seed.id
            with learner(connection, folder, seeds={"x": seed}, snapshot_every=20) as other:
                planted = other.apps["x"]
                assert planted.learn_seq == seed.manifest.learn_seq
                learn(other, len(events))
                assert planted.store.snapshot_ids()[0] == whole.store.snapshot_ids()[0]
                assert planted.store.seed().id == seed.id
                assert rebuild(planted.store).identical
                assert learned_ids(planted) == learned_ids(whole)[-len(learned_ids(planted)) :]


def test_apps_of_one_partition_have_positions_of_their_own(connection, tmp_path):
    both = [e for app in "xy" for e in interactions(app, 40)]
    send(connection, sorted(both, key=lambda event: event.ts))
    count = {app: sum(e.app == app for e in both) for app in "xy"}
    with learner(connection, tmp_path / "a", apps=["x"]) as alone:
        learn(alone, count["x"])
        assert alone.counts["foreign"] == count["y"]
    with learner(connection, tmp_path / "a", apps=["x", "y"], batch=23) as later:
        learn(later, lambda: later.apps["y"].store.last_offset() >= count["y"])
        assert later.apps["x"].store.last_offset() == count["x"]
    reference = followed(connection, ["x", "y"], tmp_path / "b")
    for app in "xy":
        assert_equal_bits(AppLearner.open(plan(app, tmp_path / "a")), reference[app])


def test_what_cannot_be_used_goes_to_the_dead_letters_and_the_offset_advances(connection, tmp_path):
    wrong = {
        "null": Outgoing("outcomes", "x", None),
        "undecodable": Outgoing("outcomes", "x", b"\xff{"),
        "unknown_version": Outgoing("decisions", "x", b'{"schema":9,"type":"decision"}'),
        "invalid": Outgoing("outcomes", "x", b'{"schema":1,"type":"outcome"}'),
        "forged_app": msgspec.structs.replace(outgoing([decision("d", app="y")])[0], key="x"),
        "no_app": Outgoing("outcomes", "", b"?"),
    }
    events = interactions("x", 10)
    send(connection, [*wrong.values(), *events])
    with learner(connection, tmp_path) as only:
        app = only.apps["x"]
        learn(only, lambda: len(event_ids(app, "decision")) == 10 and app.positions["outcomes"] > 4)
        learn(only, len(events) + 4)
        letters = [record for _, record in app.store.outgoing()]
        told = {(dead := decode_dead(r.value, r.headers)).reason: dead for r in letters}
        assert set(told) == set(wrong)
        for reason, dead in told.items():
            assert dead.topic == connection.topic(wrong[reason].topic)
            assert dead.value == wrong[reason].value
        assert told["null"].offset == 0
        assert app.store.rejected_counts() == {
            "null": 1, "undecodable": 1, "unknown_version": 1, "invalid": 1,
            "duplicate": app.loop.joiner.counts["duplicate"],
        }  # fmt: skip
        assert app.send(only.sender) == len(wrong)
        assert app.send(only.sender) == 0
        app.commit()
        app.loop.snapshots.take(app.loop.offset)
        app.commit()
        assert rebuild(app.store).identical


def test_a_locked_store_is_waited_for_and_nothing_is_lost(connection, tmp_path):
    events = interactions("x", 40)
    with learner(connection, tmp_path / "a", busy_timeout_s=0.02) as only:
        app = only.apps["x"]
        send(connection, events[:50])
        learn(only, 50)
        other = sqlite3.connect(app.store.path)
        other.execute("BEGIN IMMEDIATE")
        send(connection, events[50:])
        with pytest.raises(StorageError, match="locked") as locked:
            learn(only, len(events))
        assert locked.value.retriable
        other.execute("ROLLBACK")
        other.close()
        learn(only, len(events))
        assert event_ids(app, "decision") == [f"x:{n}" for n in range(40)]
    reference = followed(connection, ["x"], tmp_path / "b")["x"]
    assert_equal_bits(AppLearner.open(plan("x", tmp_path / "a")), reference)


def failing_on(event_id):
    """From a recipe to a policy that changes and then fails when it is to learn that decision."""

    def make(recipe):
        policy = policy_of(recipe)
        learn_row = policy.learn

        def fails(row):
            learn_row(row)
            if row.event_id == event_id:
                raise ZeroDivisionError("a fault of the policy")

        policy.learn = fails
        return policy

    return make


def test_a_row_that_the_policy_fails_on_is_refused_and_leaves_no_trace_in_its_state(
    connection, tmp_path
):
    events = interactions("x", 60)
    send(connection, events)
    with learner(connection, tmp_path / "a") as sane:
        learn(sane, len(events))
        culprit = learned_ids(sane.apps["x"])[25]
    with learner(connection, tmp_path / "b", make=failing_on(culprit)) as only:
        app = only.apps["x"]
        learn(only, len(events))
        assert app.store.rejected_counts()["policy_error"] == 1
        assert culprit not in learned_ids(app)
        assert app.learn_seq == sane.apps["x"].learn_seq - 1
        app.loop.snapshots.take(app.loop.offset)
        app.commit()
        assert rebuild(app.store).identical  # by a policy that never saw the row
        again = app.loop.learner.dump()
    reopened = AppLearner.open(plan("x", tmp_path / "b", make=failing_on(culprit)))
    assert reopened.loop.learner.dump() == again
    reopened.close()


@pytest.mark.kafka
def test_records_that_kafka_removed_are_counted_and_the_rest_is_learned_in_one_order(
    kafka, tmp_path
):
    from kafka import TopicPartition
    from kafka.admin import KafkaAdminClient

    connection = kafka.with_topics(partitions=1)
    events = interactions("x", 60)
    send(connection, events)
    admin = KafkaAdminClient(**connection.admin_options())
    admin.delete_records({TopicPartition(connection.topic("decisions"), 0): 25})
    admin.close()
    with learner(connection, tmp_path / "a") as only:
        app = only.apps["x"]
        learn(only, len(events) - 25)
        assert event_ids(app, "decision") == [f"x:{n}" for n in range(25, 60)]
        assert only.missed == 25
    reference = followed(connection, ["x"], tmp_path / "b")["x"]
    assert_equal_bits(AppLearner.open(plan("x", tmp_path / "a")), reference)


def test_when_the_broker_has_lost_everything_the_service_goes_on(own_broker, tmp_path):
    connection = own_broker.with_topics()
    with learner(connection, tmp_path) as only:
        app = only.apps["x"]
        send(connection, interactions("x", 30))
        learn(only, lambda: len(event_ids(app, "decision")) == 30)
        own_broker.process.restart()
        own_broker.with_topics()
        send(connection, interactions("x", 30, first=30))

        def all_there():
            return len(event_ids(app, "decision")) == 60

        deadline = time.monotonic() + PATIENCE_S
        while not all_there():
            assert time.monotonic() < deadline, (app.positions, only.counts)
            with contextlib.suppress(TransportError):
                only.fetcher.poll(0.02)
                only.step()
        assert only.counts["journal_lost"] >= 1
        assert rebuild_now(app).identical
    again = AppLearner.open(plan("x", tmp_path))
    assert event_ids(again, "decision") == [f"x:{n}" for n in range(60)]
    again.close()


def rebuild_now(app):
    app.loop.snapshots.take(app.loop.offset)
    app.commit()
    return rebuild(app.store)
