"""`bench quality` runs everyone alike, pairs by seed, and never calls noise a win."""

from __future__ import annotations

import importlib.util
import json
import math
import operator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from bandit_router.adapters.tables import OutcomeTable
from bandit_router.bench import budgets
from bandit_router.bench import quality as bench
from bandit_router.bench.entrants import BASELINES, BEST_FIXED, OURS, QUICK, VARIANTS, entrants
from bandit_router.bench.intervals import paired_difference
from bandit_router.bench.lifts import LiftJob, LiftLogs, best_fixed_runs, run_lift_job
from bandit_router.bench.quality_figures import by_seed, is_baseline
from bandit_router.bench.routing_logs import QUALITY_VALUES_USD, find_data, read_logs
from bandit_router.bench.synthetic import synthetic_log
from bandit_router.bench.workers import run_jobs
from bandit_router.cli import app as cli
from bandit_router.errors import DependencyError, InputError

QUERIES = 24
# Fitting projections takes most of the time; that variant has a test of its own.
RUN = (OURS, *BASELINES, *(v for v in VARIANTS if v.features != "first-200"))


def write_logs(folder: Path) -> None:
    """Made-up logs under the names that the bench looks for; models 0 to 2 are default arms."""
    arms = {}
    for seed, log in enumerate(QUALITY_VALUES_USD):
        table = synthetic_log(4, QUERIES, seed)
        arms[log] = [{"model": m, "default_arm": m != "model-03"} for m in table.models]
        write_log(folder / f"{log}.csv", table)
        np.save(folder / f"{log}.emb.npy", table.embeddings.astype(np.float16))
        (folder / f"{log}.emb_ids.json").write_text(json.dumps(table.query_ids))
    (folder / "models.json").write_text(json.dumps({"arms": arms}))


def write_log(path: Path, table: OutcomeTable) -> None:
    from arro3.core import Array, DataType, Table
    from arro3.io import write_parquet

    cells = [(q, k) for q in range(len(table)) for k in range(len(table.models))]
    text, number = DataType.string(), DataType.float64()
    columns = {
        "query_id": Array([table.query_ids[q] for q, _ in cells], text),
        "prompt": Array([table.prompts[q] for q, _ in cells], text),
        "task": Array([table.columns["task"][q] for q, _ in cells], text),
        "model": Array([table.models[k] for _, k in cells], text),
        "fold": Array([q % 5 for q, _ in cells], DataType.int64()),
        "score": Array([float(table.scores[c]) for c in cells], number),
        "cost_usd": Array([float(table.costs_usd[c]) for c in cells], number),
    }
    write_parquet(Table.from_pydict(columns), path.with_suffix(".parquet"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    write_logs(folder)
    return folder


@pytest.fixture
def needs_peer() -> None:
    if importlib.util.find_spec("pareto_bandit") is None:
        pytest.skip("paretobandit is not installed: pip install '.[test]'")


def invoke(*arguments: str):
    return CliRunner().invoke(cli.app, ["bench", "quality", *arguments])


@pytest.fixture(scope="module")
def result(data, tmp_path_factory) -> dict:
    if importlib.util.find_spec("pareto_bandit") is None:
        pytest.skip("paretobandit is not installed: pip install '.[test]'")
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "entrants", lambda *, quick: RUN)
        run = invoke(
            "--data", str(data), "--seeds", "2", "--limit", "4", "--jobs", "1", "--json",
            "--out", str(out),
        )  # fmt: skip
    assert run.exit_code == 0, run.output
    printed = json.loads(run.stdout)
    assert json.loads((out / "quality.json").read_text()) == printed
    assert "| bandit |" in (out / "quality.md").read_text()
    return printed


def test_everyone_runs_in_every_cell_with_every_seed(result):
    names = {e.name for e in RUN} | {BEST_FIXED}
    ran = {(r["entrant"], r["log"], r["quality_value_usd"], r["seed"]) for r in result["runs"]}
    assert ran == {
        (name, log, value, seed)
        for name in names
        for log, values in QUALITY_VALUES_USD.items()
        for value in values
        for seed in (0, 1)
    }
    assert len(result["runs"]) == len(ran)


def test_every_reward_is_score_less_cost_over_the_quality_value(result):
    for run in result["runs"]:
        reward = run["score"] - run["cost_usd"] / run["quality_value_usd"]
        assert run["reward"] == pytest.approx(reward, abs=1e-12)


def test_regret_and_reward_add_up_to_the_best_fixed_models_reward(result):
    best = {
        (r["log"], r["quality_value_usd"]): r["reward"]
        for r in result["runs"]
        if r["entrant"] == BEST_FIXED
    }
    for run in result["runs"]:
        cell = (run["log"], run["quality_value_usd"])
        assert run["reward"] + run["regret"] == pytest.approx(best[cell], abs=1e-9)


def test_both_sides_hold_every_budget(result):
    assert [row["budget_usd"] for row in result["budgets"]] == list(bench.BUDGETS_USD)
    sides = {(r["entrant"], r["budget_usd"], r["seed"]) for r in result["budget_runs"]}
    assert sides == {
        (side, budget, seed)
        for side in ("bandit", "paretobandit")
        for budget in bench.BUDGETS_USD
        for seed in (0, 1)
    }
    for run in result["budget_runs"]:
        assert run["spend"] == pytest.approx(run["cost_usd"] / run["budget_usd"])


def test_the_targets_are_those_that_were_set(result):
    held = {f["name"]: (f["at_least"], f["at_most"]) for f in result["figures"]}
    assert held == {
        "mean lift": (-0.0138, None),
        "mean regret": (None, 0.022),
        "worst cell's lift": (-0.035, None),
        "mean lift, ambition": (-0.008, None),
        "mean regret, ambition": (None, 0.014),
        "mean reward below a baseline's": (None, 0.0),
        "of these, beyond noise": (None, 0.0),
        "mean lift, warm start, zeroeval": (0.0, None),
        "mean lift, warm start, routellm_gsm8k": (0.0, None),
        "score less paretobandit's, worst budget": (0.0, None),
        "score above the hull, worst budget": (-0.003, None),
        "spend over budget, worst budget": (None, 1.02),
    }


def test_without_routing_logs_only_the_protocol_runs_and_it_says_so(
    tmp_path, monkeypatch, needs_peer
):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    run = invoke("--quick", "--seeds", "1", "--limit", "4", "--jobs", "1")
    assert run.exit_code == 0, run.output
    assert "no routing logs in ../shared/data" in run.stdout
    assert "paretobandit's protocol" in run.stdout
    assert "Mean lift" not in run.stdout


def test_without_the_holdout_only_val_is_read_and_no_prompt_is_on_both_sides(
    monkeypatch, needs_peer
):
    asked = []
    read = budgets.read_pareto_log
    monkeypatch.setattr(
        budgets, "read_pareto_log", lambda name, **rest: asked.append(name) or read(name, **rest)
    )
    logs = budgets.read_budget_logs(limit=6, holdout=False)
    assert asked == ["val"]
    assert len(logs.val) == len(logs.test) == 3
    assert not set(logs.val.query_ids) & set(logs.test.query_ids)


def test_with_no_log_at_all_it_fails_with_a_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "has_paretobandit", lambda: False)
    with pytest.raises(DependencyError, match=r"nothing to run.*pip install"):
        bench.run_quality(bench.QualityPlan(data=None), Console(quiet=True))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--data", "nowhere"), "no models.json there"),
        (("--folds", "two"), "use whole numbers"),
    ],
)
def test_wrong_options_are_named(arguments, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = invoke(*arguments)
    assert isinstance(run.exception, InputError)
    assert complaint in str(run.exception)


def test_only_default_arms_and_asked_folds_are_replayed(data):
    tables = read_logs(data, (2, 3, 4))
    assert list(tables) == list(QUALITY_VALUES_USD)
    for table in tables.values():
        assert table.models == ("model-00", "model-01", "model-02")
        assert set(table.folds.tolist()) == {2, 3, 4}


def test_the_usual_place_may_be_absent_but_a_named_one_may_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_data(None) is None
    with pytest.raises(InputError, match=r"models\.json"):
        find_data(tmp_path)


def test_a_warm_start_never_learns_what_is_replayed(data, monkeypatch):
    monkeypatch.setattr(bench, "entrants", lambda *, quick: (OURS, bench.WARM))
    plan = bench.QualityPlan(
        data=data, folds=(0, 1), warm_folds=(1, 2), seeds=1, limit=4, processes=1
    )
    result = bench.QualityResult(plan)
    bench._run_lifts(plan, data, result, Console(quiet=True))
    assert any("warm" in note for note in result.notes)
    assert "bandit-warm" not in {run.entrant for run in result.cells}


def test_features_made_of_nothing_say_nothing():
    logs = LiftLogs({"zeroeval": synthetic_log(2, 5)}, {})
    no_context = next(v for v in VARIANTS if v.features == "none")
    features, dimension = logs.features(LiftJob("zeroeval", no_context, 0))
    assert len(features) == 5
    assert dimension == len(features[0].dense)
    assert not any(f.dense.any() or f.ngrams or f.columns for f in features)


def test_each_variant_of_the_features_is_another_one():
    logs = LiftLogs({"zeroeval": synthetic_log(2, 60)}, {})
    dense = {
        e.features: np.array([f.dense for f in logs.features(LiftJob("zeroeval", e, 0))[0]])
        for e in (OURS, *VARIANTS)
    }
    assert not np.array_equal(dense["shipped"], dense["first-200"])
    assert np.array_equal(dense["shipped"], dense["task"])
    task = next(v for v in VARIANTS if v.features == "task")
    assert logs.features(LiftJob("zeroeval", task, 0))[0][0].columns


def test_the_same_job_gives_the_same_runs():
    def run() -> list:
        logs = LiftLogs({"zeroeval": synthetic_log(2, 30)}, {})
        runs = run_lift_job(logs, LiftJob("zeroeval", OURS, 3))
        return [(r.score, r.cost_usd, r.lift, r.regret) for r in runs]

    assert run() == run()


def test_the_best_fixed_model_has_no_regret_and_lies_on_the_hull():
    table = synthetic_log(4, 50)
    runs = best_fixed_runs(LiftLogs({"zeroeval": table}, {}), range(2))
    value = QUALITY_VALUES_USD["zeroeval"][0]
    rewards = (table.scores - table.costs_usd / value).mean(axis=0)
    (one, two) = by_seed(runs, BEST_FIXED, ("zeroeval", value), lambda run: run.reward)
    assert one == two == pytest.approx(rewards.max())
    assert all(run.lift == pytest.approx(0.0, abs=1e-12) for run in runs)


def test_a_paired_interval_by_hand():
    # Differences 1, 2, 3: mean 2, standard error 1 / sqrt(3), t(2, .975) = 4.302653.
    found = paired_difference([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3.0)
    assert found.mean == pytest.approx(2.0)
    assert (found.low, found.high) == pytest.approx((2.0 - half, 2.0 + half), abs=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [
        ([1.0, 1.1, 1.2], [0.0, 0.1, 0.2001], "ahead"),
        ([0.0, 0.1, 0.2001], [1.0, 1.1, 1.2], "behind"),
        ([1.0, 0.0, 0.5], [0.0, 1.0, 0.4], "within noise"),
        ([1.0, 2.0], [1.0, 2.0], "equal"),
        ([1.0], [0.0], "one seed"),
    ],
)
def test_a_difference_is_ahead_only_beyond_noise(ours, theirs, verdict):
    assert paired_difference(ours, theirs).verdict == verdict


def test_variants_and_yardsticks_are_no_baselines():
    assert {e.name for e in BASELINES if is_baseline(e.name)} == {e.name for e in BASELINES}
    assert not any(
        is_baseline(name) for name in (OURS.name, BEST_FIXED, *(v.name for v in VARIANTS))
    )


def test_everyone_of_a_full_run_is_ours_a_baseline_or_a_variant():
    assert entrants(quick=False) == (OURS, *BASELINES, *VARIANTS)


def test_a_quick_run_has_the_policies_it_names():
    assert [e.name for e in entrants(quick=True)] == list(QUICK)


@pytest.mark.parametrize("processes", [1, 2])
def test_jobs_give_their_results_in_order_whoever_runs_them(processes: int):
    ticks = []
    found = run_jobs(operator.sub, 10, [3, 1, 2], processes=processes, tick=ticks.append)
    assert found == [7, 9, 8]
    assert ticks == [1, 1, 1]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_job_that_fails_stops_the_run(processes: int):
    with pytest.raises(ZeroDivisionError):
        run_jobs(operator.truediv, 1, [1, 0, 2], processes=processes)
