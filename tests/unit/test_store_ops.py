"""Resume, rebuild and explain over a stored session, whole and tampered with."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from support.session import Session, recipe
from support.streams import SALT, decision

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.cli.app import main
from bandit_router.errors import InputError, SnapshotError, StorageError
from bandit_router.events import decode, encode
from bandit_router.store_ops import SALT as SALT_KEY
from bandit_router.store_ops import explain, policy_of, rebuild, resume

TICKS = 90


@pytest.fixture
def path(tmp_path):
    where = tmp_path / "log.db"
    with SqliteStore.open(where) as store:
        Session(store, recipe()).run(TICKS)
    return where


@pytest.fixture
def store(path):
    with SqliteStore.open(path, create=False) as opened:
        yield opened


def change_payload(store: SqliteStore, table: str, key: int, old: str, new: str) -> None:
    """Replace a text in one stored payload, which must have it."""
    payload = store.database[table].get(key)["payload"]
    changed = payload.replace(old.encode(), new.encode(), 1)
    assert changed != payload
    store.database[table].update(key, {"payload": changed})


def test_a_rebuild_finds_the_same_bytes(store):
    found = rebuild(store)
    assert found.identical
    assert (found.policy_identical, found.rows_identical, found.snapshot_identical) == (True,) * 3
    assert found.learn_seq > 50
    assert found.rows == store.last_learn_seq()
    assert found.events == store.last_offset()


def test_a_rebuild_changes_nothing(store, path):
    before = store.snapshot_ids(), store.last_learn_seq(), store.rejected_counts()
    rebuild(store)
    assert (store.snapshot_ids(), store.last_learn_seq(), store.rejected_counts()) == before


def test_a_rebuild_sees_a_changed_training_row(store):
    change_payload(store, "training", 20, '"closed_ts":', '"closed_ts":1')
    found = rebuild(store)
    assert (found.identical, found.first_different_row) == (False, 20)


def test_a_rebuild_sees_a_changed_score(store):
    for learn_seq, row in store.rows():
        if getattr(row, "score", None) == 1.0 and row.learn:
            change_payload(store, "training", learn_seq, '"score":1.0', '"score":0.0')
            break
    found = rebuild(store)
    assert (found.policy_identical, found.rows_identical) == (False, False)
    assert found.snapshot_identical


def test_a_rebuild_sees_a_changed_event(store):
    for offset, event in store.read(0, 1000):
        if getattr(event, "metric", "") == "score" and event.value == 1.0:
            change_payload(store, "events", offset, '"value":1.0', '"value":0.5')
            break
    found = rebuild(store)
    assert found.policy_identical
    assert not found.rows_identical
    assert not found.snapshot_identical


def test_a_rebuild_sees_a_row_that_no_event_gives(store):
    with store.transaction("tamper") as connection:
        connection.execute(
            "INSERT INTO training SELECT learn_seq + 1, offset, event_id, payload FROM training "
            "ORDER BY learn_seq DESC LIMIT 1"
        )
    found = rebuild(store)
    assert (found.rows_identical, found.first_different_row) == (False, found.rows)


def test_a_rebuild_of_an_empty_store_is_bad_input(tmp_path):
    with (
        SqliteStore.open(tmp_path / "empty.db") as store,
        pytest.raises(InputError, match="no snapshot"),
    ):
        rebuild(store)


def test_a_resumed_loop_is_where_the_last_one_was(store):
    once, again = resume(store, recipe()), resume(store, recipe())
    assert once.offset == again.offset == store.last_offset()
    assert once.learner.dump() == again.learner.dump()
    assert once.joiner.dump() == again.joiner.dump()
    assert once.learner.learn_seq == store.last_learn_seq()


def test_a_damaged_snapshot_is_passed_over_and_the_rows_after_it_learned_again(store):
    expected = resume(store, recipe()).learner.dump()
    store.database.execute("UPDATE snapshots SET data = x'00' WHERE learn_seq > 30")
    assert resume(store, recipe()).learner.dump() == expected
    store.database.execute("DELETE FROM snapshots")
    assert resume(store, recipe()).learner.dump() == expected


def test_another_recipe_is_refused_and_named(store):
    with pytest.raises(SnapshotError, match="another seed, quality_value_usd"):
        resume(store, recipe(seed=1, quality_value_usd=0.1))


def test_a_log_that_gives_other_rows_than_the_stored_ones_is_refused(store):
    store.database.execute("DELETE FROM snapshots")
    change_payload(store, "training", 20, '"closed_ts":', '"closed_ts":1')
    with pytest.raises(StorageError, match="row 20 came out differently"):
        resume(store, recipe())


def test_snapshots_off_the_schedule_leave_no_trace_in_later_ones(tmp_path):
    paths = tmp_path / "plain.db", tmp_path / "paused.db"
    ids = []
    for where, stops in zip(paths, ([], [17, 44]), strict=True):
        with SqliteStore.open(where) as store:
            for stop in stops:
                paused = Session(store, recipe()).run(stop)
                paused.snapshots.take(paused.offset)
                paused.sink.commit()
            Session(store, recipe()).run(TICKS)
            ids.append([s.id for s in store.snapshots() if s.manifest.scheduled])
    assert ids[0] == ids[1]
    assert len(ids[0]) > 2


def test_every_decision_is_explained_bit_for_bit(store):
    for tick in range(0, TICKS, 7):
        found = explain(store, f"d{tick}")
        assert found.identical
        assert found.decision.event_id == f"d{tick}"
        chosen = next(v for v in found.models if v.model == found.decision.action)
        assert chosen.probability == chosen.logged_probability == found.decision.propensity
        assert found.decision.action in found.drawn_by


def test_an_explanation_starts_from_the_snapshot_before_the_decision(store):
    found = explain(store, "d80")
    assert int(found.snapshot_id[:12]) <= found.decision.learn_seq
    assert int(found.snapshot_id[:12]) + found.relearned_rows == found.decision.learn_seq
    assert found.snapshot_id == found.decision.snapshot_id


def test_an_explanation_does_without_the_snapshot_that_decided(store):
    store.database.execute("DELETE FROM snapshots WHERE learn_seq > 0")
    found = explain(store, "d80")
    assert found.identical
    assert found.relearned_rows == found.decision.learn_seq


def replace_decision(store: SqliteStore, event_id: str, **fields) -> None:
    """Put another decision of that id in the place of the stored one."""
    made = store.decision(event_id)
    offset = next(o for o, e in store.read(0, 1000) if encode(e) == encode(made))
    forged = encode(msgspec.structs.replace(made, **fields))
    store.database["events"].update(offset, {"payload": forged})


def test_an_explanation_sees_a_changed_action(store):
    made = store.decision("d40")
    other = next(i for i, model in enumerate(made.eligible) if model != made.action)
    replace_decision(store, "d40", action=made.eligible[other], propensity=made.pmf[other])
    found = explain(store, "d40")
    assert (found.pmf_identical, found.draw_identical) == (True, False)


def test_an_explanation_sees_a_pmf_that_differs_in_the_last_bit(store):
    made = store.decision("d40")
    index = made.eligible.index(made.action)
    pmf = list(made.pmf)
    pmf[index] = math.nextafter(pmf[index], 0.0)
    replace_decision(store, "d40", pmf=tuple(pmf), propensity=pmf[index])
    found = explain(store, "d40")
    assert (found.pmf_identical, found.identical) == (False, False)


def test_an_explanation_sees_another_quality_value(store):
    replace_decision(store, "d40", quality_value_usd=1e6)
    assert not explain(store, "d40").identical


def test_an_explanation_sees_another_prediction(store):
    made = store.decision("d40")
    better = tuple(score + 0.25 for score in made.predicted_score)
    replace_decision(store, "d40", predicted_score=better)
    found = explain(store, "d40")
    assert (found.pmf_identical, found.predictions_identical) == (True, False)
    assert not found.identical


def test_a_forced_decision_says_so(store):
    forced = decision(
        "pin", 1.0, eligible=("b",), pmf=(1.0,), propensity=1.0, slice="forced", learn=False,
        predicted_score=(), predicted_cost_usd=(), rules=("pin:b",), epsilon=0.0,
    )  # fmt: skip
    store.append([forced])
    found = explain(store, "pin")
    assert found.identical
    assert "forced (pin:b)" in found.drawn_by


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        ("DELETE FROM events WHERE event_id = 'd40'", InputError, "no decision 'd40'"),
        ("DELETE FROM meta", InputError, "salt"),
        ("DELETE FROM snapshots", SnapshotError, "no usable snapshot"),
        ("DELETE FROM training WHERE learn_seq > 5", InputError, "ends at row"),
        ("DELETE FROM training WHERE learn_seq = 30", StorageError, "row 30 is missing"),
    ],
)
def test_what_is_missing_for_an_explanation_is_named(store, spoil, error, message):
    store.database.execute(spoil)
    if "snapshots" not in spoil:
        store.database.execute("DELETE FROM snapshots WHERE learn_seq > 0")
    with pytest.raises(error, match=message):
        explain(store, "d40")


def test_another_salt_gives_another_draw_and_is_seen(store):
    store.set_meta(SALT_KEY, SALT + "!")
    draws = [explain(store, f"d{tick}").draw_identical for tick in range(20)]
    assert not all(draws)


def test_a_recipe_of_an_unknown_policy_is_a_snapshot_error():
    with pytest.raises(SnapshotError, match="no-such-policy"):
        policy_of(recipe("no-such-policy"))
    with pytest.raises(SnapshotError, match="no_such_option"):
        policy_of(recipe(options={"no_such_option": 1}))


def run(arguments: list[str], capsys) -> tuple[int, str]:
    """Exit code and standard output of a command."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return left.value.code or 0, capsys.readouterr().out


def test_the_command_rebuild_says_identical(path, capsys):
    code, text = run(["rebuild", "--db", str(path)], capsys)
    assert code == 0
    assert text.count("identical") >= 3
    assert "DIFFERENT" not in text
    code, text = run(["rebuild", "--db", str(path), "--json"], capsys)
    found = json.loads(text)
    assert (code, found["identical"], found["schema"]) == (0, True, "bandit_router.rebuild/1")


def test_the_command_rebuild_fails_when_something_differs(store, path, capsys):
    change_payload(store, "training", 20, '"closed_ts":', '"closed_ts":1')
    code, text = run(["rebuild", "--db", str(path)], capsys)
    assert code == 1
    assert "DIFFERENT, first at row 20" in text


def test_the_command_explain_shows_the_models_and_the_verdict(path, capsys):
    code, text = run(["explain", "d33", "--db", str(path)], capsys)
    assert code == 0
    assert "pmf identical, scores and costs identical, draw identical" in " ".join(text.split())
    code, text = run(["explain", "d33", "--db", str(path), "--json"], capsys)
    found = json.loads(text)
    assert (code, found["identical"], found["event_id"]) == (0, True, "d33")
    assert {model["model"] for model in found["models"]} == {"a", "b", "c"}


@pytest.mark.parametrize("command", [["rebuild"], ["explain", "d1"]])
def test_the_commands_refuse_a_file_that_is_not_there(command, tmp_path, capsys):
    code, _ = run([*command, "--db", str(tmp_path / "missing.db")], capsys)
    assert code == 2


def test_stored_decisions_decode_as_they_were_encoded(store):
    for _, event in store.read(0, 1000):
        assert encode(decode(encode(event))) == encode(event)
