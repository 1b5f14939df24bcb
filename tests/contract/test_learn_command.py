"""`bandit-router learn` from a configuration file: learns, publishes, ends cleanly."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from support.streaming import send
from support.streams import completion, decision, feedback

from bandit_router.adapters.kafka.snapshots import last_published
from bandit_router.adapters.sqlite_stream import StreamStore
from bandit_router.bench.brokers.processes import wait_until
from bandit_router.bootstrap import make_featurizer
from bandit_router.config import load_settings
from bandit_router.live import recipe_of
from bandit_router.snapshot import unpack
from bandit_router.store_ops import rebuild
from bandit_router.streaming.learning import plans_of, run_learner

COMMAND = (sys.executable, "-m", "bandit_router.cli.app")

CONFIG = """
[app]
name = "shop"
[policy]
name = "linucb"
[events]
transport = "kafka"
bootstrap_servers = ["{bootstrap}"]
prefix = "{prefix}"
partitions = 4
session_timeout_s = 6
publish_every_s = 0.5
folder = "{folder}"
[snapshots]
every = 20
[[models]]
model = "small"
expected_cost_usd = 0.001
[[models]]
model = "large"
expected_cost_usd = {price}
"""


@pytest.fixture
def config(broker, tmp_path):
    """Writes the configuration; gives its path."""

    def write(price=0.01):
        path = tmp_path / f"shop-{price}.toml"
        path.write_text(
            CONFIG.format(
                bootstrap=broker.bootstrap,
                prefix=broker.prefix,
                folder=tmp_path / "learner",
                price=price,
            )
        )
        return path

    return write


def events(settings, count):
    import numpy as np

    from bandit_router.types import Features

    made = recipe_of(settings, make_featurizer(settings.features, embed=False))
    rng, found = np.random.default_rng(0), []
    for n in range(count):
        chosen = decision(
            f"d{n}",
            float(n),
            app="shop",
            features=Features(dense=rng.standard_normal(made.dimension)),
            featurizer_id=made.featurizer_id,
            eligible=("small", "large"),
            pmf=(0.5, 0.5),
            action="small",
            predicted_score=(),
            predicted_cost_usd=(),
        )
        found += [
            chosen,
            completion(f"d{n}", n + 0.1, app="shop", model="small"),
            feedback(f"d{n}", n + 0.2, app="shop"),
        ]
    return found


def test_it_learns_and_publishes_and_sigterm_ends_it_cleanly(broker, config):
    connection, path = broker.with_topics(), config()
    settings = load_settings(path)
    (plan,) = plans_of(settings)
    send(connection, events(settings, 30))
    process = subprocess.Popen(
        [*COMMAND, "learn", "--config", str(path), "--json"], stdout=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: "shop" in last_published(connection, ["shop"]), 60, "it has published")
        wait_until(
            lambda: last_published(connection, ["shop"])["shop"].announcement.learn_seq == 30,
            30,
            "all is published",
        )
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    last = json.loads(out.strip().splitlines()[-1])
    assert last["apps"]["shop"]["learn_seq"] == 30
    assert last["problems"] == {}
    announced = last_published(connection, ["shop"])["shop"]
    assert (announced.epoch, unpack(announced.data).manifest.learn_seq) == (1, 30)
    with StreamStore.open(plan.store_path, read_only=True) as store:
        assert rebuild(store).identical
        assert len([1 for e in event_ids_of(store) if e]) == 30


def event_ids_of(store):
    return [
        row["event_id"]
        for row in store.database.query("SELECT event_id FROM events WHERE type = 'decision'")
    ]


def test_models_that_the_configuration_prices_anew_are_learned_as_a_change(broker, config):
    connection = broker.with_topics()
    before = load_settings(config())
    send(connection, events(before, 5))
    done = {"stop": lambda: False, "until_idle_s": 0.5}
    run_learner([before], **done)
    after = load_settings(config(0.02))
    assert run_learner([after], **done)["problems"] == {}
    (plan,) = plans_of(after)
    with StreamStore.open(plan.store_path, read_only=True) as store:
        rows = [row for _, row in store.rows() if getattr(row, "kind", "") == "model_repriced"]
        assert [row.data["expected_cost_usd"] for row in rows] == [0.02]
        assert rebuild(store).identical
