"""A relay process at its start."""

from __future__ import annotations

import subprocess
import sys

from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.relay_process import RelayProcess
from bandit_router.adapters.outbox import Outbox


def test_a_child_that_dies_before_it_says_a_word_is_followed_by_another(tmp_path, monkeypatch):
    path = tmp_path / "outbox.db"
    Outbox.open(path).close()
    started = []
    spawn = RelayProcess._spawned

    def spawned(self):
        started.append(len(started))
        if len(started) > 2:
            return spawn(self)
        return subprocess.Popen(
            [sys.executable, "-c", ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    monkeypatch.setattr(RelayProcess, "_spawned", spawned)
    relay = RelayProcess(path, Connection(bootstrap_servers=("127.0.0.1:1",), timeout_s=0.5))
    relay.start()
    try:
        assert relay.status()["restarts"] == 2
        assert relay.pid is not None
    finally:
        relay.close(drain_s=0.0)
    assert relay.pid is None
