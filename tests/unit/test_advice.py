"""`bandit-router route`: one decision with its reasons, from a fresh policy or a stored one."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from support.demo import HashEmbedder, Quiet, embed_ahead, small_log
from support.session import contents

from bandit_router import advice as advice_module
from bandit_router.adapters.artefacts import load_projection
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.advice import fresh_advisor, stored_advisor
from bandit_router.config import load_settings
from bandit_router.demo.run import run_demo
from bandit_router.demo.workspace import DATABASE
from bandit_router.errors import InputError
from bandit_router.features.featurizer import Featurizer
from bandit_router.types import Context

LOG = small_log(200)


@pytest.fixture(autouse=True)
def _no_encoder(monkeypatch):
    def make(settings, components=16):
        return Featurizer(*load_projection(), HashEmbedder(), components=settings.components)

    monkeypatch.setattr(advice_module, "make_featurizer", make)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    embed_ahead(folder, LOG.prompts)
    run_demo(folder, LOG, Quiet(), quality_value_usd=0.1)
    return folder / DATABASE


def settings(tmp_path, text: str = ""):
    file = tmp_path / "config.toml"
    model = '[[models]]\nmodel = "{}"\nexpected_cost_usd = {}\n'
    file.write_text(text + model.format("cheap", 0.001) + model.format("dear", 0.01))
    return load_settings(file)


def ask(text: str = "why?", event_id: str = "e") -> Context:
    return Context(event_id=event_id, ts=0.0, prompt=text, columns={"task": "code"})


def test_a_fresh_policy_decides_over_the_configured_catalog(tmp_path):
    found = fresh_advisor(settings(tmp_path)).advise(ask())
    assert [offer.model for offer in found.offers] == ["cheap", "dear"]
    assert sum(offer.probability for offer in found.offers) == pytest.approx(1.0)
    for offer in found.offers:
        assert offer.utility == pytest.approx(offer.score - offer.cost_usd / 0.01)
    assert found.decision.propensity in {offer.probability for offer in found.offers}
    assert found.decision.learn_seq == 0


def test_the_words_fit_the_draw(tmp_path):
    advisor = fresh_advisor(settings(tmp_path))
    reasons = {}
    for i in range(2000):
        found = advisor.advise(ask(event_id=f"e{i}"), quality_value_usd=0.05)
        best = max(found.offers, key=lambda offer: offer.utility).model
        reasons[found.decision.slice, found.decision.action == best] = found
    assert set(reasons) >= {("policy", True), ("explore", True), ("explore", False)}
    for (part, is_best), found in reasons.items():
        assert ("by the exploration share" in found.drawn_by) == (part == "explore")
        assert ("the best of 2" in found.why) == is_best
        assert found.why.startswith(f"{found.decision.action} is expected to score")


def test_a_request_can_have_its_own_quality_value(tmp_path):
    advisor = fresh_advisor(settings(tmp_path))
    frugal, lavish = (advisor.advise(ask(), quality_value_usd=v).offers for v in (0.001, 100.0))
    assert frugal[1].utility < 0 < lavish[1].utility
    assert lavish[1].probability > frugal[1].probability
    for value in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="quality value"):
            advisor.advise(ask(), quality_value_usd=value)


def test_with_a_store_the_learned_policy_decides_and_the_store_stays_as_it_is(database):
    before = contents(database)
    with SqliteStore.open(database, create=False) as store:
        advisor = stored_advisor(store, load_settings())
        assert (advisor.learned_rows, advisor.app) == (200, "demo")
        found = advisor.advise(ask(LOG.prompts[0]))
        assert found.decision.snapshot_id.startswith("000000000")
        assert [offer.model for offer in found.offers] == list(LOG.models)
        assert advisor.advise(ask(LOG.prompts[0])).offers == found.offers, "nothing was learned"
        np.testing.assert_allclose(found.offers[2].cost_usd, 0.05, rtol=0.5)
    assert contents(database) == before


def test_features_that_do_not_fit_the_store_are_refused(database, tmp_path):
    other = settings(tmp_path, "[features]\ncomponents = 8\n")
    with (
        SqliteStore.open(database, create=False) as store,
        pytest.raises(InputError, match=r"learned on features .* give the configuration"),
    ):
        stored_advisor(store, other)


def test_any_text_gets_a_decision(hostile_text, tmp_path):
    found = fresh_advisor(settings(tmp_path)).advise(ask(hostile_text))
    assert found.decision.action in {"cheap", "dear"}


def route(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "bandit_router.cli.app", "route", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
    )


def test_the_command_reads_any_bytes_from_standard_input():
    run = route("-", "--column", "task=code", "--json", stdin=b"a\xff\x00b\xed\xa0\x80")
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["schema"] == "bandit_router.route/1"
    assert result["action"] in {model["model"] for model in result["models"]}
    assert result["rules"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("x", "--column", "task"), b"write NAME=VALUE"),
        (("x", "--column", "a=1", "--column", "a=2"), b"given twice"),
        (("x", "--db", "no-such.db"), b"no such database"),
        (("x", "--config", "no-such.toml"), b"cannot be read"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_2(arguments, words):
    run = route(*arguments)
    assert (run.returncode, run.stdout) == (2, b"")
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1
