"""What holds a learner's stores against the acknowledgements sees what it is there to see."""

from __future__ import annotations

import shutil

import pytest
from support.session import run_and_die

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.bench.chaos.acks import Acknowledged, AckWriter, lines_in, read_acks
from bandit_router.bench.chaos.finding import Finding, finding_grid
from bandit_router.bench.chaos.plan import chosen
from bandit_router.bench.chaos.verify import applied, differences, missing_rows, progress
from bandit_router.errors import InputError

TICKS = 60


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "log.db"
    run_and_die(str(path), TICKS, None)
    return path


@pytest.fixture
def store(whole, tmp_path):
    """A store that can be spoiled."""
    return shutil.copy(whole, tmp_path / whole.name)


@pytest.fixture
def acknowledged(whole):
    found = applied([whole])
    return Acknowledged(found.decisions, found.completions, found.feedbacks)


def spoil(path, statement: str) -> None:
    with SqliteStore.open(path, create=False) as store, store.transaction("spoil") as connection:
        assert connection.execute(statement).rowcount > 0


def test_a_whole_store_has_lost_and_doubled_nothing(whole, acknowledged):
    found = applied([whole])
    assert len(acknowledged.whole) > TICKS // 2
    assert (found.lost(acknowledged), found.doubled, found.gaps) == (0, 0, [])
    assert missing_rows([whole], acknowledged.whole) == 0
    assert differences([whole], {whole.name: whole}) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM events WHERE event_id = 'd20' AND type = 'decision'",
        "DELETE FROM events WHERE event_id = 'd20' AND type = 'outcome'",
    ],
)
def test_an_event_that_is_missing_is_lost(statement, store, acknowledged):
    spoil(store, statement)
    assert applied([store]).lost(acknowledged) >= 1


def test_a_whole_decision_without_a_row_is_lost_and_leaves_a_gap(store, acknowledged):
    spoil(store, "DELETE FROM training WHERE learn_seq = 10")
    found = applied([store])
    assert found.lost(acknowledged) == 1
    assert found.gaps == [store.name]
    assert missing_rows([store], acknowledged.whole) == 1


def test_a_second_row_of_a_decision_is_doubled(store):
    spoil(store, "INSERT INTO training SELECT learn_seq + 1000, offset, event_id, payload "
                 "FROM training WHERE learn_seq = 10")  # fmt: skip
    assert applied([store]).doubled == 1


def test_another_order_of_the_log_is_a_difference(store, whole):
    spoil(store, "UPDATE events SET payload = (SELECT payload FROM events WHERE offset = 5) "
                 "WHERE offset = 6")  # fmt: skip
    found = differences([store], {whole.name: whole})
    assert any("relearning" in line for line in found)
    assert any("events differ" in line for line in found)


def test_an_app_that_the_undisturbed_reader_does_not_have_is_a_difference(whole):
    assert differences([whole], {}) == [f"{whole.name}: the undisturbed reader has no such app"]


def test_progress_counts_events_and_rows_and_waits_for_no_store(whole, tmp_path):
    events, rows = progress([whole, tmp_path / "not-there.db"])
    assert events > rows > 0


def test_acknowledgements_are_read_back_but_for_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "acks.txt"
    writer = AckWriter(path)
    for kind in "dcfu":
        writer.write(kind, f"{kind}-1", 0.002)
    with path.open("a") as file:
        file.write("d d-2 12.0")
    found = read_acks([path, tmp_path / "never-written.txt"])
    assert (found.decisions, found.completions, found.feedbacks) == ({"d-1"}, {"c-1"}, {"f-1"})
    assert found.unlogged == {"u-1"}
    assert found.slowest_ms([(0.0, float("inf"))]) == 2.0
    assert lines_in(path) == (3, 1)


@pytest.mark.parametrize(
    "fields", [{"lost": 1}, {"doubled": 1}, {"bits_equal": False}, {"wrong": ("a law",)}]
)
def test_a_finding_survives_only_without_a_fault(fields):
    good = Finding(fault="f", bits_equal=True)
    assert good.survived
    assert not Finding(**{"fault": "f", "bits_equal": True, **fields}).survived
    assert Finding(fault="f", skipped="no root").survived is None


def test_the_table_has_a_cell_for_every_header():
    findings = [Finding(fault="f", injected=3, wrong=("a law",)), Finding(fault="g", skipped="why")]
    grid = finding_grid(findings)
    assert all(len(row) == len(grid.headers) for row in grid.rows)
    assert [row[8] for row in grid.rows] == ["FAILED", "skipped"]


def test_an_unknown_fault_is_refused_with_the_known_ones():
    assert len(chosen(())) > 15
    with pytest.raises(InputError, match="kill-router"):
        chosen(["no-such-fault"])
