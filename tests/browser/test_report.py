"""``report.html`` in a browser: its charts are there, nothing is fetched, nothing complains."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bandit_router.adapters.tables import OutcomeTable
from bandit_router.replay import Setting, Trace
from bandit_router.report.measure import measure
from bandit_router.report.page import render
from bandit_router.report.replay_page import replay_page

pytestmark = pytest.mark.browser

HOSTILE = "<script>document.title='owned'</script>\"'&amp;</style>\x00"
MODELS = ("small", HOSTILE, "large", "very/long/model-name-that-does-not-end-" * 3)
FIGURES = {
    "score-cost": 1,
    "regret-best-fixed": 2,
    "regret-hull": 2,
    "regret-oracle": 2,
    "errors": 2,
    "share": 6,
    "confusion": 6,
}


def measured_runs(n=80, seeds=3):
    rng = np.random.default_rng(0)
    table = OutcomeTable(
        path=f"logs/{HOSTILE}.csv",
        sha256="0" * 64,
        models=MODELS,
        query_ids=tuple(map(str, range(n))),
        prompts=("",) * n,
        scores=(rng.random((n, 4)) < [0.3, 0.5, 0.8, 0.7]).astype(float),
        costs_usd=np.array([0.0, 0.001, 0.01, 0.02]) * np.exp(0.3 * rng.normal(size=(n, 4))),
    )
    runs = []
    for seed in range(seeds):
        for policy in ("bandit", "cheapest", f"fixed:{HOSTILE}"):
            for value, budget in ((0.05, None), (0.1, 0.004)):
                chosen = rng.integers(0, 4, n).astype(np.int32)
                setting = Setting(policy, value, budget, seed)
                flat = np.full(n, 0.25)
                trace = Trace(setting, rng.permutation(n), chosen, flat > 1, flat, flat, 0.1)
                runs.append(measure(table, trace))
    return table, runs


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    html = render(replay_page(*measured_runs()))
    path.write_bytes(html.encode("utf-8", "replace"))
    return path


@pytest.fixture
def opened(page, report):
    """The page, opened, with everything it asked for and everything it complained of."""
    seen = {"requests": [], "complaints": []}
    page.on("request", lambda request: seen["requests"].append(request.url))
    page.on("console", lambda message: seen["complaints"].append(message.text))
    page.on("pageerror", lambda error: seen["complaints"].append(str(error)))
    page.goto(report.as_uri())
    return page, seen


def test_it_asks_for_nothing_but_itself_and_complains_of_nothing(opened, report):
    page, seen = opened
    page.mouse.move(300, 400)
    page.locator("details").first.click()
    assert seen == {"requests": [report.as_uri()], "complaints": []}


def test_every_chart_is_drawn(opened):
    page, _ = opened
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for name, count in FIGURES.items():
        figures = page.locator(f"figure[data-figure='{name}']")
        assert figures.count() == count, name
        for i in range(count):
            box = figures.nth(i).locator("svg").bounding_box()
            assert box["width"] > 200, name
            assert box["height"] > 60, name
            marks = "polyline, polygon, circle, rect"
            assert figures.nth(i).locator(f"svg :is({marks})").count() >= 4, name


def test_every_chart_has_a_name_and_a_table_that_says_the_same(opened):
    page, _ = opened
    figures = page.locator("figure")
    assert figures.count() == sum(FIGURES.values())
    for i in range(figures.count()):
        assert figures.nth(i).locator("svg[role=img]").get_attribute("aria-label")
        assert figures.nth(i).locator("tbody tr").count() >= 1
        assert figures.nth(i).locator("thead th[scope=col]").count() >= 2


def test_values_show_on_hover_and_go_on_escape(opened):
    page, _ = opened
    tip = page.locator("#tip")
    assert tip.is_hidden()
    page.locator("figure[data-figure='score-cost'] svg .dot").first.hover()
    assert "per query" in tip.inner_text()
    page.locator("figure[data-figure='regret-hull'] svg .strip").nth(20).hover()
    assert "after" in tip.inner_text()
    assert "bandit:" in tip.inner_text()
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_text_from_the_log_is_inert(opened):
    page, _ = opened
    assert page.title().startswith("Replay of logs/<script>")
    assert page.locator("script").count() == 1
    assert (
        page.locator("figure[data-figure='score-cost'] tbody").get_by_text("<script>").count() > 0
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_and_paper_differ_in_both_schemes(opened, scheme):
    page, _ = opened
    page.emulate_media(color_scheme=scheme)
    style = "getComputedStyle(document.body)"
    paper = brightness(page.evaluate(f"{style}.backgroundColor"))
    ink = brightness(page.evaluate(f"{style}.color"))
    assert (paper > 200 and ink < 60) if scheme == "light" else (paper < 60 and ink > 200)
    line = page.locator("svg .line.s0").first
    assert brightness(line.evaluate("e => getComputedStyle(e).stroke")) != pytest.approx(
        paper, abs=40
    )


def brightness(colour):
    numbers = [float(n) for n in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(numbers) / 3


def test_a_phone_shows_it_without_scrolling_sideways(opened):
    page, _ = opened
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    text = page.locator("figure[data-figure='score-cost'] svg .tick").first
    assert text.bounding_box()["height"] >= 8


def test_a_single_seed_and_a_single_query_still_make_a_page(page, tmp_path):
    table, _ = measured_runs()
    one = dataclasses.replace(table.take([0]), models=MODELS)
    nothing = np.zeros(1)
    trace = Trace(
        Setting("bandit", 0.05, None, 0),
        np.array([0]),
        np.array([1], dtype=np.int32),
        nothing > 1,
        nothing,
        nothing,
        0.1,
    )
    path = tmp_path / "report.html"
    path.write_bytes(render(replay_page(one, [measure(one, trace)])).encode("utf-8", "replace"))
    page.goto(path.as_uri())
    assert page.locator("figure svg").count() == 7
