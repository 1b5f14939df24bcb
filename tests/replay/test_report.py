"""``report.json`` (contract C4) and the command that writes it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bandit_router.regret import fixed_hull
from bandit_router.report.document import decode

NUMBER = (int, float)
RUN = {
    "policy": str,
    "quality_value_usd": NUMBER,
    "budget_usd": (*NUMBER, type(None)),
    "seed": int,
    "queries": int,
    "mean_score": NUMBER,
    "mean_cost_usd": NUMBER,
    "mean_reward": NUMBER,
    "hull_score_at_cost": NUMBER,
    "lift": NUMBER,
    "second_half": dict,
    "share": dict,
    "explore_share": NUMBER,
    "regret": dict,
    "estimated_regret": (dict, type(None)),
    "decisions_per_second": NUMBER,
}


@pytest.fixture
def report(tmp_path, make_table, write_log, command):
    """A report of a small log, read back as plain JSON, and the table it is of."""
    table = make_table()
    out = tmp_path / "out"
    code, _, errors = command(
        "replay", write_log(table), "--out", out, "--seeds", 2, "--policy", "linucb",
        "--policy", "thompson", "--policy", "fixed:middle", "--quality-value", 0.02,
        "--quality-value", 0.2, "--budget", 0.002,
    )  # fmt: skip
    assert code == 0, errors
    return json.loads((out / "report.json").read_text()), table


def test_the_report_has_exactly_the_fields_of_the_contract(report):
    content, table = report
    assert list(content) == ["schema", "log", "fixed", "hull", "oracle", "runs"]
    assert content["schema"] == "bandit_router.replay/1"
    assert content["log"]["queries"] == 120
    assert content["log"]["models"] == list(table.models)
    assert len(content["log"]["sha256"]) == 64
    assert set(content["log"]) == {"path", "sha256", "queries", "models"}
    assert list(content["fixed"]) == list(table.models)
    for means in (*content["fixed"].values(), content["oracle"]):
        assert set(means) == {"mean_score", "mean_cost_usd"}
    assert len(content["runs"]) == 2 * 3 * 3
    for run in content["runs"]:
        assert list(run) == list(RUN)
        for field, kind in RUN.items():
            assert isinstance(run[field], kind), field
        assert set(run["second_half"]) == {"mean_score", "mean_cost_usd", "lift"}
        assert set(run["regret"]) == {"best_fixed", "hull", "oracle"}
        if run["policy"] == "fixed:middle":
            assert run["estimated_regret"] is None, "it explores nothing"
        if run["policy"] == "linucb":
            assert list(run["estimated_regret"]) == ["best_fixed"]
            assert list(run["estimated_regret"]["best_fixed"]) == ["value", "lower", "upper"]


def test_the_numbers_of_a_run_fit_each_other(report):
    content, table = report
    hull = fixed_hull(table.scores, table.costs_usd)
    for run in content["runs"]:
        cost, value = run["mean_cost_usd"], run["quality_value_usd"]
        assert run["mean_reward"] == pytest.approx(run["mean_score"] - cost / value)
        assert run["hull_score_at_cost"] == pytest.approx(hull.score_at(cost))
        assert run["lift"] == pytest.approx(run["mean_score"] - run["hull_score_at_cost"])
        assert run["regret"]["hull"] == pytest.approx(-run["lift"])
        assert run["regret"]["oracle"] >= run["regret"]["best_fixed"] - 1e-12
        best = hull.best_reward(value)
        assert run["regret"]["best_fixed"] == pytest.approx(best - run["mean_reward"])
        assert sum(run["share"].values()) == pytest.approx(1.0)
        assert set(run["share"]) == set(table.models)
        assert 0.0 <= run["explore_share"] <= 1.0
        assert run["decisions_per_second"] > 0.0


def test_a_fixed_policy_has_the_means_of_its_model(report):
    content, _ = report
    middle = content["fixed"]["middle"]
    some = [run for run in content["runs"] if run["policy"] == "fixed:middle"]
    assert len(some) == 6
    for run in some:
        assert run["mean_score"] == pytest.approx(middle["mean_score"])
        assert run["mean_cost_usd"] == pytest.approx(middle["mean_cost_usd"])
        assert run["share"]["middle"] == 1.0


def test_the_hull_and_the_oracle_are_those_of_the_log(report):
    content, table = report
    hull = fixed_hull(table.scores, table.costs_usd)
    assert np.array(content["hull"]) == pytest.approx(
        np.column_stack([hull.costs_usd, hull.scores])
    )
    assert content["oracle"]["mean_score"] == pytest.approx(table.scores.max(axis=1).mean())


def test_runs_with_a_budget_say_so_and_others_do_not(report):
    content, _ = report
    assert {run["budget_usd"] for run in content["runs"]} == {None, 0.002}
    measured = {run["quality_value_usd"] for run in content["runs"] if run["budget_usd"]}
    assert len(measured) == 1


def test_the_second_half_is_measured_against_its_own_hull(make_table):
    from bandit_router.replay import Setting, Trace
    from bandit_router.report.measure import measure

    table = make_table(10)
    queries, chosen = np.arange(10)[::-1], np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])
    none = np.zeros(10)
    trace = Trace(Setting("x", 0.02, None, 0), queries, chosen, none.astype(bool), none, none, 1.0)
    late = queries[5:]
    score, cost = table.scores[late, chosen[5:]].mean(), table.costs_usd[late, chosen[5:]].mean()
    hull = fixed_hull(table.scores[late], table.costs_usd[late])
    half = measure(table, trace).run.second_half
    assert half.mean_score == pytest.approx(score)
    assert half.lift == pytest.approx(score - hull.score_at(cost))


def test_the_json_output_is_the_report_and_nothing_else(make_table, write_log, command):
    code, output, errors = command(
        "replay", write_log(make_table(30)), "--policy", "uniform", "--json", "--seed0", 4
    )
    assert (code, errors) == (0, "")
    document = decode(output.encode())
    assert [run.seed for run in document.runs] == [4, 4, 4]
    assert len({run.quality_value_usd for run in document.runs}) == 3


def test_the_default_policies_are_ours_and_the_baselines(make_table, write_log, command):
    code, output, _ = command("replay", write_log(make_table(30)), "--quality-value", 0.1, "--json")
    assert code == 0
    assert [run.policy for run in decode(output.encode()).runs] == [
        "bandit", "vw-epsilon", "vw-squarecb", "linucb", "thompson", "uniform", "cheapest",
        "strongest",
    ]  # fmt: skip


def test_the_table_has_a_row_for_every_policy(make_table, write_log, command):
    code, output, _ = command(
        "replay", write_log(make_table(30)), "--policy", "uniform", "--policy", "cheapest",
        "--folds", "1,2", "--models", "large,small",
    )  # fmt: skip
    assert code == 0
    assert "12 queries, 2 models, means over 1 seed" in output
    assert output.count("uniform") == output.count("cheapest") == 3


def test_every_option_works_together(tmp_path, make_table, write_log, command):
    log, other = write_log(make_table(40)), write_log(make_table(20, seed=1), "other")
    prices = {"prices": {m: {"expected_cost_usd": 0.01} for m in ("small", "middle", "large")}}
    (tmp_path / "prices.json").write_text(json.dumps(prices))
    code, output, errors = command(
        "replay", log, "--limit", 30, "--policy", "bandit", "--context-columns", "task",
        "--catalog", tmp_path / "prices.json", "--warm-start", other, "--delay", 5,
        "--quality-value", 0.05, "--json",
    )  # fmt: skip
    assert code == 0, errors
    assert decode(output.encode()).log.queries == 30


WRONG = [
    (["--policy", "magic"], "unknown policy 'magic'"),
    (["--policy", "fixed:"], "unknown policy 'fixed:'"),
    (["--policy", "fixed:nobody"], "the log has no such model"),
    (["--models", "small,nobody"], "unknown model 'nobody'"),
    (["--models", "small,,large"], "empty name"),
    (["--folds", "two"], "whole numbers"),
    (["--folds", "9"], "no query is in fold 9"),
    (["--quality-value", "0"], "above 0"),
    (["--quality-value", "nan"], "above 0"),
    (["--budget", "-1"], "above 0"),
    (["--context-columns", "score"], "no such context column"),
    (["--catalog", "none.json"], "cannot be read"),
    (["--warm-start", "none.csv"], "no such file"),
    (["--seeds", "0"], "'--seeds'"),
    (["--limit", "0"], "'--limit'"),
]


@pytest.mark.parametrize(
    ("options", "words"), WRONG, ids=[" ".join(options) for options, _ in WRONG]
)
def test_a_wrong_option_is_exit_2_and_leaves_nothing(
    tmp_path, make_table, write_log, command, options, words
):
    out = tmp_path / "out"
    code, output, errors = command("replay", write_log(make_table(10)), "--out", out, *options)
    assert code == 2
    assert words in " ".join(errors.split())
    assert output == ""
    assert not out.exists()


def test_an_unknown_policy_is_told_before_the_log_is_read(tmp_path, command):
    code, _, errors = command("replay", tmp_path / "none.parquet", "--policy", "magic")
    assert (code, "unknown policy" in errors) == (2, True)


def test_out_must_be_a_folder(tmp_path, make_table, write_log, command):
    (tmp_path / "file").write_text("kept")
    code, _, errors = command("replay", write_log(make_table(10)), "--out", tmp_path / "file")
    assert (code, "is a file" in errors) == (2, True)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_bad_log_is_exit_2_with_one_message(tmp_path, make_table, write_log, command):
    log = write_log(make_table(10))
    log.write_text(log.read_text().replace('"score": 1.0', '"score": 1.2', 1))
    out = tmp_path / "out"
    code, output, errors = command("replay", log, "--out", out)
    assert (code, output) == (2, "")
    assert errors.count("\n") == 1
    assert "log.jsonl" in errors
    assert "column 'score'" in errors
    assert not out.exists()


def test_files_are_replaced_whole(tmp_path, make_table, write_log, command):
    log, out = write_log(make_table(10)), tmp_path / "out"
    for policy in ("uniform", "cheapest"):
        assert command("replay", log, "--out", out, "--policy", policy)[0] == 0
        assert sorted(p.name for p in out.iterdir()) == ["report.html", "report.json"]
    content = decode((out / "report.json").read_bytes())
    assert {run.policy for run in content.runs} == {"cheapest"}


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    from pathlib import Path

    from bandit_router.errors import StorageError
    from bandit_router.report.document import write_whole

    path = write_whole(tmp_path / "report.json", b"old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(StorageError, match="full"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_number_that_json_cannot_carry_is_refused(tmp_path, report):
    import msgspec

    from bandit_router.report.document import ReportDocument, write_report

    content, _ = report
    document = msgspec.convert(content, ReportDocument)
    run = msgspec.structs.replace(document.runs[0], lift=float("nan"))
    with pytest.raises(msgspec.ValidationError):
        write_report(tmp_path / "new", msgspec.structs.replace(document, runs=(run,)), "")
    assert not (tmp_path / "new").exists()
