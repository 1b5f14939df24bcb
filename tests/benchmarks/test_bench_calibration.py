"""`bench calibration` on few short runs: what it measures, says and writes."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from bandit_router.bench.calibration import CalibrationPlan, run_calibration
from bandit_router.bench.calibration_report import figures, grids, to_builtins, upper_bound
from bandit_router.bench.calibration_runs import CONTRASTS, WORLDS
from bandit_router.bench.grid import markdown

RUNS = 6


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Made-up worlds only: no folder of logs is named, and there is none beside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("calibration"))
        plan = CalibrationPlan(runs=RUNS, rows=1200, processes=1)
        return run_calibration(plan, Console(stderr=True))


def test_every_world_is_run_as_often_as_asked_and_what_is_missing_is_said(result):
    kinds = {(own.world, own.what): len(own.covered.missed) for own in result.coverage}
    for world in WORLDS:
        assert [kinds[world.name, which] for which in CONTRASTS[:2]] == [RUNS, RUNS]
    assert len(result.tests) == 10
    assert all(len(done) == RUNS for done in result.tests.values())
    assert "no routing logs" in result.notes[0]


def test_the_same_seeds_give_the_same_figures(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = CalibrationPlan(runs=RUNS, rows=1200, processes=1)
    again = run_calibration(plan, Console(stderr=True))
    assert figures(again) == figures(result)


def test_every_figure_has_a_row_and_the_result_is_plain_json(result):
    written = json.loads(json.dumps(to_builtins(result, 1.0), allow_nan=False))
    assert written["schema"] == "bandit_router.bench.calibration/1"
    names = [figure["name"] for figure in written["figures"]]
    assert len(set(names)) == len(names) > 10
    text = "\n".join(map(markdown, grids(result)))
    assert all(name in text for name in names)
    worse = written["experiments"][".8 against .6"]
    assert worse == {"verdicts": 1.0, "rollbacks": 1.0, "runs": RUNS}
    assert written["coverage"][0]["width"]["100"] > written["coverage"][0]["width"]["1000"]


@pytest.mark.parametrize(
    ("missed", "runs", "bound"), [(0, 100, 1.0 - 0.05**0.01), (100, 100, 1.0), (1, 1, 1.0)]
)
def test_the_binomial_bound_on_a_rate(missed, runs, bound):
    assert upper_bound(missed, runs) == pytest.approx(bound)


def test_more_misses_give_a_higher_bound():
    bounds = [upper_bound(missed, 1000) for missed in range(0, 60, 5)]
    assert bounds == sorted(bounds)
    assert bounds[0] < 0.004
    assert upper_bound(38, 1000) < 0.05 < upper_bound(39, 1000)
