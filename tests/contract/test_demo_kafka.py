"""The demo over a broker: another process learns, and the same is reported from what it logged."""

from __future__ import annotations

import json

import pytest
from support.demo import Quiet, embed_ahead, small_log

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.demo.run import run_demo
from bandit_router.errors import InputError, TransportError
from bandit_router.store_ops import rebuild

QUERIES = 150


@pytest.fixture
def log(tmp_path):
    log = small_log(QUERIES)
    embed_ahead(tmp_path / "demo", log.prompts)
    return log


def test_every_query_is_decided_here_and_learned_there(any_broker, tmp_path, log):
    finished = run_demo(tmp_path / "demo", log, Quiet(), kafka=any_broker.bootstrap)
    run = finished.report.runs[0]
    assert run.policy == "bandit"
    assert run.queries == QUERIES
    assert run.regret.best_fixed < finished.report.runs[1].regret.best_fixed  # it has learned
    band = run.estimated_regret.best_fixed
    assert band.lower <= run.regret.best_fixed <= band.upper
    store_file, *reports = finished.files
    assert json.loads(reports[0].read_bytes())["log"]["queries"] == QUERIES
    with SqliteStore.open(store_file, create=False) as store:
        assert store.last_learn_seq() == QUERIES
        assert store.rejected_counts() == {}
        assert rebuild(store).identical
    again = run_demo(tmp_path / "demo", log, Quiet(), kafka=any_broker.bootstrap)
    assert again.resumed_at == QUERIES
    assert again.report == finished.report


def test_a_folder_holds_one_kind_of_demo(tmp_path, log):
    with pytest.raises(TransportError, match=r"Kafka at 127\.0\.0\.1:1"):
        run_demo(tmp_path / "demo", log, Quiet(), kafka="127.0.0.1:1")
    with pytest.raises(InputError, match=r"transport \(--kafka\) kafka instead of sqlite"):
        run_demo(tmp_path / "demo", log, Quiet())
