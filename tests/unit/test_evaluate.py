"""`evaluate`: the same report from a store and its exports, and refusals instead of numbers."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from support.demo import Quiet, embed_ahead, small_log
from support.session import Session, recipe

from bandit_router.adapters.interactions import export, last_position, read_interactions
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.adapters.vocabulary import Vocabulary
from bandit_router.cli.app import app, run
from bandit_router.demo.run import run_demo
from bandit_router.demo.workspace import DATABASE
from bandit_router.demo.world import make_world
from bandit_router.errors import InputError, LogFormatError, SnapshotError
from bandit_router.loop import MemorySink
from bandit_router.snapshot import state_of, write_file
from bandit_router.store_ops import evaluating, fresh_loop
from bandit_router.store_ops.evaluating import Request, evaluate, in_this_process
from bandit_router.store_ops.ope_targets import DEFAULT_TARGETS

MODELS = ("a", "b", "c")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of a session in which a policy learned; only read."""
    path = tmp_path_factory.mktemp("evaluate") / "log.db"
    with SqliteStore.open(path) as opened:
        Session(opened, recipe("uniform")).run(260)
    return path


@pytest.fixture(scope="module")
def lines(store):
    """The rows of its JSON Lines export, decoded."""
    to = store.with_suffix(".jsonl")
    export(store, to)
    return [json.loads(line) for line in to.read_bytes().splitlines()]


@pytest.fixture
def write(tmp_path):
    def write_rows(rows, name="log.jsonl"):
        path = tmp_path / name
        text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows)
        path.write_text(text)
        return path

    return write_rows


def report_of(path, **fields):
    return evaluate(Request(log=path, **fields))


def figures(report):
    return report.targets, report.rows, report.models, report.left_out


def interactions(lines):
    return [row for row in lines if row["type"] == "interaction"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_an_export_gives_the_report_of_its_store_in_every_bit(store, tmp_path, suffix):
    to = tmp_path / f"log{suffix}"
    assert export(store, to) >= last_position(to) > 200
    # a price list, since an export has none
    prices = tmp_path / "prices.json"
    spec = {m: {"expected_cost_usd": 0.001 * 4.0**i} for i, m in enumerate(MODELS)}
    prices.write_text(json.dumps({"prices": spec}))
    from bandit_router.adapters.price_list import read_whole_price_list

    catalog = read_whole_price_list(prices)
    wanted, found = (report_of(path, catalog=catalog) for path in (store, to))
    assert figures(found) == figures(wanted)


def test_the_parts_of_a_log_give_the_report_of_the_whole_in_every_bit(store):
    assert figures(report_of(store, parts=5)) == figures(report_of(store))


def test_a_store_that_grows_meanwhile_is_evaluated_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "CACHED_ROWS", 0)
    path = tmp_path / "log.db"
    with SqliteStore.open(path) as opened:
        session = Session(opened, recipe("uniform"))
        session.run(130)
        expected = report_of(path)

        def grown_after_each_pass(work, shared, jobs):
            results = in_this_process(work, shared, jobs)
            session.run(260)
            return results

        assert evaluate(Request(log=path), grown_after_each_pass) == expected


def test_two_processes_give_the_report_of_one_and_the_log_is_as_it_was(store, capsys):
    before = hashlib.sha256(store.read_bytes()).hexdigest()

    def printed(*arguments):
        capsys.readouterr()
        assert run(["evaluate", str(store), "--json", *arguments], app) == 0
        return json.loads(capsys.readouterr().out)

    assert printed("--jobs", "2") == printed()
    assert hashlib.sha256(store.read_bytes()).hexdigest() == before


def test_the_default_targets_are_all_there_with_intervals_around_plausible_values(store):
    report = report_of(store)
    names = [target.name for target in report.targets]
    assert names == ["logging", "strongest", "fixed:a", "fixed:b", "fixed:c", "hull"]
    for target in report.targets:
        assert target.refused is None
        for outcome, named in target.estimates.items():
            for figure in named.values():
                assert figure.low <= figure.high
                if outcome == "score":
                    assert 0.0 <= figure.low <= figure.high <= 1.0
    by_name = {target.name: target for target in report.targets}
    assert by_name["strongest"].estimates == by_name["fixed:c"].estimates
    assert by_name["logging"].mean_weight == 1.0


def test_rewards_are_counted_at_the_quality_value_asked_for(store):
    [target] = report_of(store, policies=("logging",), quality_value_usd=0.02).targets
    score, cost, reward = (target.estimates[o]["ips"].value for o in target.estimates)
    assert reward == pytest.approx(score - cost / 0.02, rel=1e-9)


def test_the_cost_of_a_cheap_model_is_not_taken_to_reach_that_of_a_dear_one(lines, write):
    rows = interactions(lines)
    report = report_of(write(rows), policies=("fixed",))
    for target in report.targets:
        model = target.name.removeprefix("fixed:")
        largest = max(row["cost_usd"] for row in rows if row["action"] == model)
        for figure in target.estimates["cost_usd"].values():
            assert 0.0 <= figure.low <= figure.high <= 2.0 * largest


def test_the_hull_spends_its_budget(store):
    fixed = report_of(store, policies=("fixed",), estimators=("snips",)).targets
    costs = [target.estimates["cost_usd"]["snips"].value for target in fixed]
    budget = (min(costs) + max(costs)) / 2.0
    request = {"policies": ("hull",), "estimators": ("snips",)}
    [hull] = report_of(store, budget_usd=budget, **request).targets
    assert hull.estimates["cost_usd"]["snips"].value <= 1.1 * budget
    assert f"the hull of the fixed models at {budget:.4g} USD per query" in hull.about
    [cheapest] = report_of(store, budget_usd=1e-9, **request).targets
    assert "no fixed model is that cheap" in cheapest.about
    assert cheapest.estimates["cost_usd"]["snips"].value == pytest.approx(min(costs))


def test_rows_that_were_not_drawn_or_have_no_outcome_are_left_out_and_counted(lines, write):
    rows = [dict(row) for row in interactions(lines)]
    rows[0] |= {"slice": "forced"}
    rows[1] |= {"learn": False}
    rows[2] |= {"learn": False}
    rows[3] |= {"score": None, "cost_usd": None}
    rows[4] |= {"score": None}
    report = report_of(write(rows), policies=("logging",))
    assert report.left_out == {"forced": 1, "no_outcome": 1, "not_learned": 2}
    assert report.rows == len(rows) - 4
    [logged] = report.targets
    assert logged.estimates["cost_usd"]["ips"].n - logged.estimates["score"]["ips"].n == 1


def test_an_outcome_that_no_row_has_is_none_not_a_number(lines, write):
    rows = [row | {"score": None} for row in interactions(lines)]
    [target] = report_of(write(rows), policies=("logging",)).targets
    assert set(target.estimates["score"].values()) == {None}
    assert set(target.estimates["reward"].values()) == {None}
    assert target.estimates["cost_usd"]["dr"].value > 0.0


# -- policies and snapshots -----------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["linucb", "thompson", "bandit"])
def test_a_policy_that_learns_is_trained_on_the_first_part_and_asked_about_the_rest(store, policy):
    last = last_position(store)
    report = report_of(store, policies=(policy, "fixed:a"), train_share=0.6)
    split = int(0.6 * last)
    assert report.first == split + 1
    assert split < report.last <= last
    assert report.targets[0].about == f"trained on rows 1 to {split} of the log, then frozen"
    assert report.targets[0].estimates["score"]["ips"].n <= last - split
    assert f"rows up to {split} were learned from and are not evaluated on" in report.notes


def test_a_stored_snapshot_is_asked_about_the_rows_after_it(store, tmp_path):
    with SqliteStore.open(store, read_only=True) as opened:
        ids = opened.snapshot_ids()
        middle = opened.snapshot(ids[len(ids) // 2])
    file = tmp_path / "middle.snapshot"
    write_file(file, middle)
    by_id, by_file = (report_of(store, policies=(name,)) for name in (middle.id, str(file)))
    assert by_id.first == by_file.first == middle.manifest.learn_seq + 1
    assert by_id.targets[0].estimates == by_file.targets[0].estimates
    assert by_id.targets[0].about == f"snapshot {middle.id}, frozen"
    # the store's policy is uniform, and so is every snapshot of it
    [uniform] = report_of(store, policies=(middle.id, "uniform")).targets[1:]
    assert uniform.estimates == by_id.targets[0].estimates


def test_a_snapshot_that_has_learned_the_whole_log_is_refused(store, tmp_path):
    with SqliteStore.open(store, read_only=True) as opened:
        made_from = opened.snapshot(opened.snapshot_ids()[0]).manifest.recipe
    copy = tmp_path / "log.db"
    copy.write_bytes(store.read_bytes())
    with SqliteStore.open(copy) as opened:
        loop = fresh_loop(made_from, MemorySink())
        for _, row in opened.rows():
            loop.learner.offer(row)
        newest = state_of(loop.learner, loop.joiner, recipe=made_from, offset=1, parent="")
        opened.commit_steps((), (), [newest])
    with pytest.raises(InputError, match=r"the snapshot has learned from all .* rows; evaluate an"):
        report_of(copy, policies=("newest",))


def test_a_snapshot_of_another_app_is_taken_not_to_have_learned_from_the_log(store, lines, write):
    with SqliteStore.open(store, read_only=True) as opened:
        snapshot = opened.snapshot(opened.snapshot_ids()[0])
    path = write(interactions(lines))
    file = path.with_name("one.snapshot")
    write_file(file, snapshot)
    report = report_of(path, policies=(str(file),))
    assert report.first == 1
    assert report.targets[0].about.endswith("taken not to have learned from log.jsonl")


def test_a_damaged_snapshot_is_refused(store, tmp_path):
    file = tmp_path / "bad.snapshot"
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(SnapshotError):
        report_of(store, policies=(str(file),))


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("fixed:x", "the log has no such model; it has: a, b, c"),
        ("nonsense", "no policy, no snapshot's file, and no id of a snapshot in a store"),
        ("paretobandit", "it sees other features than are logged"),
        ("000000000001-aaaaaaaaaaaa", "has no snapshot '000000000001-aaaaaaaaaaaa'"),
    ],
)
def test_a_target_that_is_none_is_refused(store, policy, message):
    with pytest.raises(InputError, match=message):
        report_of(store, policies=(policy,))


def test_policies_are_not_trained_on_parquet(store, tmp_path):
    to = tmp_path / "log.parquet"
    export(store, to)
    with pytest.raises(InputError, match=r"trained on a store .* or its \.jsonl export"):
        report_of(to, policies=("linucb",))


# -- refusals -------------------------------------------------------------------------------------


def test_missing_support_is_refused_beside_targets_that_can_be_answered(lines, write):
    rows = []
    for number, row in enumerate(interactions(lines)):
        if number >= 50 and row["action"] == "c":
            continue
        rows.append(row if number < 50 else row | {"pmf": [0.5, 0.5, 0.0], "propensity": 0.5})
    report = report_of(write(rows), policies=("fixed",))
    a, _, c = report.targets
    assert a.refused is None
    assert c.estimates == {}
    assert "of its choices had no chance there (first 'c' at interaction 51)" in c.refused
    assert c.share_off_support == pytest.approx(1.0 - 50 / len(rows), abs=1e-9)


def test_propensities_that_did_not_draw_are_an_error_with_exit_code_2(lines, write, capsys):
    rows = [
        row | {"action": "a", "pmf": [0.1, 0.45, 0.45], "propensity": 0.1}
        for row in interactions(lines)
    ]
    path = write(rows)
    assert run(["evaluate", str(path), "--json"], app) == 2
    captured = capsys.readouterr()
    assert "the propensities are not those that drew the actions: 'a' was chosen" in captured.err
    assert json.loads(captured.out)["error"]["type"] == "InputError"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"propensity": 0.0}, "interaction 3: propensity 0.0 must be above 0 and at most 1"),
        ({"propensity": 1.5}, "interaction 3: propensity 1.5 must be above 0 and at most 1"),
        ({"pmf": [0.5, 0.3, 0.3]}, "interaction 3: pmf 1.1 is its sum, which must be 1"),
        ({"pmf": [0.5, 0.5]}, "row 3: pmf has 2 entries for 3 eligible models"),
        ({"action": "z"}, "row 3: unknown action 'z': it is none of the eligible models"),
        ({"score": 1.5}, r"interaction 3: score 1.5 must be in \[0, 1\]"),
        ({"features": {"dense": [1.0], "ngrams": [], "columns": {}}}, "row 3: 1 features where"),
        ({"score": "high"}, "row 3: not an interaction as bandit-router logs it"),
        ({"type": "other"}, "row 3: not an interaction as bandit-router logs it"),
    ],
)
def test_a_bad_row_of_a_file_is_named(lines, write, change, message):
    rows = interactions(lines)[:20]
    rows[2] = rows[2] | change
    with pytest.raises(InputError, match=message):
        report_of(write(rows), policies=("logging",))


@pytest.mark.parametrize("text", ["", "\n\n", '{"type": "change"}'])
def test_an_empty_log_is_refused(write, text):
    with pytest.raises(InputError, match="there is no interaction to evaluate on"):
        report_of(write([text] if text else []), policies=("logging",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.jsonl", b"{broken", "row 1: not an interaction"),
        ("log.jsonl", b'{"type": "interaction", "propensity": NaN}', "row 1: not an interaction"),
        ("log.parquet", b"PAR1 and nothing more", "not a readable Parquet file"),
        ("log.parquet", b"PAR1" + bytes(64) + b"PAR1", "not a readable Parquet file"),
        ("log.parquet", b"", "not a readable Parquet file"),
        ("log.txt", b"", "unknown extension '.txt': use a store"),
        ("log.db", b"no database at all, but long enough to be one", "is no SQLite database"),
    ],
)
def test_a_file_that_is_no_log_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        report_of(path, policies=("logging",))


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet", "log.db"])
def test_a_missing_file_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="no such"):
        report_of(tmp_path / name, policies=("logging",))


def test_a_parquet_file_of_something_else_is_refused(tmp_path):
    from arro3.core import Array, Table
    from arro3.io import write_parquet

    path = tmp_path / "other.parquet"
    write_parquet(Table.from_pydict({"x": Array.from_numpy(np.arange(3.0))}), str(path))
    with pytest.raises(LogFormatError, match="column 'event_id': no such column"):
        report_of(path, policies=("logging",))


def test_an_export_overwrites_nothing_and_has_two_forms(store, tmp_path):
    there = tmp_path / "there.jsonl"
    there.write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        export(store, there)
    assert there.read_text() == "mine"
    with pytest.raises(InputError, match=r"export to \.jsonl or \.parquet"):
        export(store, tmp_path / "log.csv")
    with pytest.raises(InputError, match="only a store"):
        export(there, tmp_path / "again.jsonl")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alpha": 0.0}, "alpha 0.0 must be between 0 and 1"),
        ({"train_share": 1.0}, "share to train on 1.0 must be between 0 and 1"),
        ({"budget_usd": -1.0}, "budget -1.0 must be finite and above 0"),
        ({"quality_value_usd": float("nan")}, "quality value nan must be finite and above 0"),
        ({"estimators": ("best",)}, "unknown estimator 'best'"),
    ],
)
def test_numbers_out_of_range_are_refused(store, fields, message):
    with pytest.raises(InputError, match=message):
        Request(log=store, **fields)


def test_a_wrong_folding_is_refused_by_the_command(store, capsys):
    assert run(["evaluate", str(store), "--folding", "odd"], app) == 2
    assert "use crossed or past" in capsys.readouterr().err


def test_the_command_prints_every_target_and_what_the_interval_is(store, capsys):
    assert run(["evaluate", str(store), "--estimator", "snips,dr"], app) == 0
    out = capsys.readouterr().out
    for expected in ("fixed:c  (worth", "hull  (worth", "snips", "95% interval", "Cressie-Read"):
        assert expected in out
    assert "ips  " not in out.replace("snips", "")


def test_batches_know_the_models_met_so_far_and_can_be_put_over_others(lines, write):
    first = [
        row | {"eligible": ["a", "b"], "pmf": [0.5, 0.5], "propensity": 0.5, "action": "a"}
        for row in interactions(lines)[:3]
    ]
    path, vocabulary = write([*first, *interactions(lines)[3:6]]), Vocabulary()
    from collections import Counter

    [log] = read_interactions(path, vocabulary, Counter())
    assert log.models == ("a", "b", "c")
    assert log.eligible[:, 2].tolist() == [False] * 3 + [True] * 3
    other = log.over(("d", "c", "b", "a"))
    assert (other.pmf[:, 0] == 0.0).all()
    assert np.array_equal(other.pmf[:, [3, 2, 1]], log.pmf)
    assert np.array_equal(other.pmf[np.arange(6), other.action], log.propensity)
    with pytest.raises(InputError, match="the log has the model 'c', which is not among"):
        log.over(("b", "a"))


# -- the demo -------------------------------------------------------------------------------------


def test_the_demos_own_log_says_within_its_intervals_what_each_model_would_have_got(tmp_path):
    table, value = small_log(600), 0.1
    embed_ahead(tmp_path, table.prompts)
    run_demo(tmp_path, table, Quiet(), quality_value_usd=value)
    truth = make_world(table, seed=0, quality_value_usd=value).table
    rewards = truth.scores - truth.costs_usd / value
    report = report_of(tmp_path / DATABASE, policies=DEFAULT_TARGETS, quality_value_usd=value)
    checked = 0
    for target in report.targets:
        model = target.name.removeprefix("fixed:")
        if model not in truth.models:
            continue
        k = truth.models.index(model)
        known = {"score": truth.scores, "cost_usd": truth.costs_usd, "reward": rewards}
        if target.refused:
            assert "none of" in target.refused
            continue
        for outcome, matrix in known.items():
            for figure in target.estimates[outcome].values():
                assert figure.low <= matrix[:, k].mean() <= figure.high
                checked += 1
    assert checked >= 18  # two of the three models at least
