"""The demo's ``report.html`` in a browser: when the model failed, and when it was noticed."""

from __future__ import annotations

import pytest
from support.demo import Quiet, embed_ahead, small_log

from bandit_router.demo.run import run_demo

pytestmark = pytest.mark.browser

FIGURES = [
    "share", "regret-best-of-halves", "estimated-regret", "score-cost", "regret-oracle",
    "confusion", "errors",
]  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder, log = tmp_path_factory.mktemp("demo"), small_log(600)
    embed_ahead(folder, log.prompts)
    run_demo(folder, log, Quiet(), quality_value_usd=0.1)
    return folder / "report.html"


def test_charts_and_marks_are_there_without_a_request_or_a_complaint(report, page):
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    assert [f.get_attribute("data-figure") for f in page.locator("figure").all()] == FIGURES
    for figure in ("share", "regret-best-of-halves", "estimated-regret", "regret-oracle"):
        notes = page.locator(f"figure[data-figure='{figure}'] text.event-note")
        assert notes.all_text_contents() == ["drop", "alarm"]
        boxes = [note.bounding_box() for note in notes.all()]
        assert boxes[0]["x"] < boxes[1]["x"]
        assert boxes[1]["y"] - boxes[0]["y"] >= 12, "one below the other"
    assert "every score of middle was multiplied by 0.6" in page.locator("main").inner_text()
    band = page.locator("figure[data-figure='estimated-regret'] polygon.band")
    assert band.count() == 1
    assert "95% band" in page.locator("main").inner_text()
    assert (complaints, requests) == ([], [report.as_uri()])
