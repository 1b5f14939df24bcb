"""The parts of a log on threads, processes and a Dask cluster: the very report of one process."""

from __future__ import annotations

import contextlib
import json

import pytest
from support.session import Session, recipe

from bandit_router.adapters.joblib_parts import JoblibParts
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.cli.app import app, run
from bandit_router.store_ops.evaluating import Request, evaluate
from bandit_router.store_ops.part_workers import PartWorkers

TARGETS = ("logging", "fixed", "hull")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("parts") / "log.db"
    with SqliteStore.open(path) as opened:
        Session(opened, recipe("uniform")).run(200)
    return path


@pytest.mark.parametrize(
    "mapper",
    [
        lambda: contextlib.nullcontext(JoblibParts("threading", 2)),
        lambda: PartWorkers(2),
    ],
    ids=["threads", "processes"],
)
def test_the_report_is_that_of_one_process_in_every_bit(store, mapper):
    one = evaluate(Request(log=store, policies=TARGETS))
    with mapper() as parts:
        assert evaluate(Request(log=store, policies=TARGETS, parts=3), parts) == one


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
def test_the_report_of_a_dask_cluster_is_that_of_one_process_in_every_bit(store, capsys):
    distributed = pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")

    def printed(*arguments):
        capsys.readouterr()
        assert run(["evaluate", str(store), "--json", *arguments], app) == 0
        return json.loads(capsys.readouterr().out)

    alone = printed()
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        assert printed("--jobs", "3", "--scheduler", cluster.scheduler_address) == alone


def test_a_scheduler_that_is_not_there_is_an_error_not_a_wait(store, capsys):
    pytest.importorskip("distributed", reason="the extra 'cluster' is not installed")
    assert run(["evaluate", str(store), "--scheduler", "nonsense://"], app) == 1
    assert "no Dask scheduler at nonsense://" in capsys.readouterr().err


def test_without_the_extra_the_command_says_what_to_install(store, capsys, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run(["evaluate", str(store), "--scheduler", "tcp://127.0.0.1:1"], app) == 1
    assert "pip install 'bandit-router[cluster]'" in capsys.readouterr().err
