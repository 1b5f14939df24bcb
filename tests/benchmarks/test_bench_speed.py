"""`bench speed` measures everything it lists; how fast this machine is, is not asserted."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
from rich.console import Console

from bandit_router.bench import startup
from bandit_router.bench.figures import Figure, median_figure, skipped
from bandit_router.bench.grid import Grid, figure_grid, markdown, print_grid
from bandit_router.bench.speed import SpeedPlan, machine, run_speed, to_builtins
from bandit_router.bench.synthetic import TASKS, synthetic_log

TINY = SpeedPlan(
    queries=40,
    prompts=8,
    rounds=2,
    learns=30,
    decisions=20,
    learned=40,
    starts=1,
    compiling=False,
    routed=6,
)
TARGETS = {
    "decide, 12 models, p50": (250.0, None),
    "decide, 12 models, p99": (1000.0, None),
    "replay, 3 models, synthetic log": (None, 8000.0),
    "replay, 12 models, synthetic log": (None, 3000.0),
    "replay, 3 models, paretobandit log": (None, 8000.0),
    "route a short prompt over embedding it": (1.3, None),
    "memory growth over 30 learns": (20.0, None),
    "memory growth over 30 learns, each of a tenant of its own": (20.0, None),
    "bandit-router --help": (0.4, None),
}


@pytest.fixture(scope="module")
def figures() -> list[Figure]:
    if importlib.util.find_spec("pareto_bandit") is None:
        pytest.skip("paretobandit is not installed: pip install '.[test]'")
    return run_speed(TINY, Console(quiet=True))


def test_every_target_has_a_measured_figure_beside_it(figures):
    held = {f.name: (f.at_most, f.at_least) for f in figures if f.met is not None}
    assert held == TARGETS
    assert all(f.value is not None and np.isfinite(f.value) for f in figures)


def test_a_spread_encloses_its_median(figures):
    spread = [f for f in figures if f.low is not None]
    assert len(spread) > 10
    assert all(f.low <= f.high for f in spread)


def test_the_ratio_to_the_peer_is_that_of_the_same_run(figures):
    by_name = {f.name: f for f in figures}
    for log in ("replay, 3 models, synthetic log", "replay, 3 models, paretobandit log"):
        ours, theirs = by_name[log], by_name[f"{log}, paretobandit"]
        ratio = by_name[f"{log}, ours over theirs"]
        assert ours.low / theirs.high <= ratio.low <= ratio.high <= ours.high / theirs.low


def test_the_result_is_json_and_says_where(figures):
    result = json.loads(json.dumps(to_builtins(figures, machine(), 1.0), allow_nan=False))
    assert result["schema"] == "bandit_router.bench.speed/1"
    assert result["machine"]["cores"] >= 1
    assert [f["name"] for f in result["figures"]] == [f.name for f in figures]


def test_the_first_use_is_timed_in_a_process_of_its_own(tmp_path, monkeypatch):
    seen = []

    def run(command: list[str], **variables: str) -> str:
        seen.append((command[1:], variables))
        return json.dumps({"import_s": 1.0, "first_s": len(seen), "second_s": 0.001})

    monkeypatch.setattr(startup, "_run", run)
    compiled, loaded = startup.first_use_figures()
    assert (compiled.value, loaded.value) == (1.0, 2.0)
    (one, two) = seen
    assert one == two
    assert one[0] == ["-m", "bandit_router.bench.first_use"]


@pytest.mark.parametrize(
    ("value", "bounds", "verdict"),
    [
        (1.0, {"at_most": 1.0}, "ok"),
        (1.1, {"at_most": 1.0}, "missed"),
        (1.0, {"at_least": 1.0}, "ok"),
        (0.9, {"at_least": 1.0}, "missed"),
        (0.9, {}, ""),
        (None, {"at_most": 1.0}, "not measured"),
    ],
)
def test_a_verdict_compares_the_value_with_its_target(value, bounds, verdict):
    assert Figure("f", value, "s", **bounds).verdict == verdict


def test_what_was_not_measured_does_not_meet_its_target():
    assert skipped("f", "s", "no clock", at_most=1.0).met is False


def test_a_figure_of_repeats_is_their_median():
    figure = median_figure("f", [3.0, 1.0, 10.0], "s")
    assert (figure.low, figure.value, figure.high) == (1.0, 3.0, 10.0)


def test_markdown_has_every_cell_and_escapes_bars():
    grid = figure_grid("T", [Figure("a|b", 1234.5, "us", at_most=2000.0, note="how")])
    text = markdown(grid)
    assert "| a\\|b | 1,234 us |  | <= 2,000 | ok | how |" in text
    assert "| --- | ---: | ---: | ---: | --- | --- |" in text


def test_a_grid_on_a_pipe_is_not_cut(capsys):
    wide = Grid("T", ("name", *(f"column {i}" for i in range(9))), (("x", *["123456"] * 9),))
    print_grid(Console(), wide)
    assert capsys.readouterr().out.count("123456") == 9


def test_a_synthetic_log_is_the_same_for_the_same_seed_and_a_valid_table():
    one, two, other = (synthetic_log(3, 30, seed) for seed in (0, 0, 1))
    assert np.array_equal(one.scores, two.scores)
    assert one.prompts == two.prompts
    assert one.prompts != other.prompts
    assert set(np.unique(one.scores)) <= {0.0, 1.0}
    assert (one.costs_usd > 0.0).all()
    assert np.allclose(np.linalg.norm(one.embeddings, axis=1), 1.0, atol=1e-5)
    assert len(set(one.columns["task"])) <= TASKS
