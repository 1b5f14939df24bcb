"""`bandit-router demo` as a person runs it: results on stdout, progress on stderr, exit codes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest
from support.demo import embed_ahead

from bandit_router.demo.world import demo_log
from bandit_router.report.document import ReportDocument, decode

LIMIT = 60


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bandit_router.cli.app", "demo", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("out")
    embed_ahead(path, demo_log(LIMIT).prompts)
    return path


@pytest.fixture(scope="module")
def first(folder):
    return demo("--out", str(folder), "--limit", str(LIMIT), "--json")


def test_json_is_the_report_and_the_story(first, folder):
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    story = result.pop("demo")
    report = decode((folder / "report.json").read_bytes())
    assert list(result) == list(ReportDocument.__struct_fields__)
    assert result["log"]["queries"] == report.log.queries == LIMIT
    assert story == json.loads((folder / "demo.json").read_text())
    assert story["drop"]["query"] == LIMIT // 2


def test_progress_goes_to_stderr(first):
    assert f"routing {LIMIT} queries" in first.stderr
    assert "answers worse; the router is not told" in first.stderr


def test_a_finished_demo_says_so_and_shows_its_tables(first, folder):
    again = demo("--out", str(folder), "--limit", str(LIMIT))
    assert again.returncode == 0, again.stderr
    assert "finished before; --fresh begins anew" in again.stdout
    for text in ("before the drop, 30 queries", "hull at our spend", "oracle", "report.html"):
        assert text in again.stdout
    band = decode((folder / "report.json").read_bytes()).runs[0].estimated_regret.best_fixed
    said = " ".join(again.stdout.split())
    assert f"own log: {band.value:+.4f}, 95% band {band.lower:+.4f} to {band.upper:+.4f}" in said
    assert again.stderr == ""


def test_other_options_in_the_same_folder_are_refused(first, folder):
    other = demo("--out", str(folder), "--limit", str(LIMIT), "--seed", "1")
    assert other.returncode == 2
    assert "--seed 0 instead of 1" in other.stderr
    assert "--fresh" in other.stderr
    assert len(other.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [("--limit", "1"), ("--seed", "-1"), ("--quality-value", "nan"), ("--quality-value", "0")],
)
def test_options_out_of_range_are_refused(arguments, tmp_path):
    refused = demo("--out", str(tmp_path / "out"), *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert not (tmp_path / "out").exists()


def test_without_the_package_the_extra_is_named(monkeypatch, tmp_path):
    from bandit_router.cli.app import app, run

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "pareto_bandit" else find(name, *rest),
    )
    messages: list[str] = []
    monkeypatch.setattr("sys.stderr.write", messages.append)
    assert run(["demo", "--out", str(tmp_path / "out")], lambda a: app(a, prog_name="x")) == 1
    assert "pip install 'bandit-router[demo]'" in "".join(messages)
    assert not (tmp_path / "out").exists()
