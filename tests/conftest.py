"""What every test may ask for: the repository, the shared logs, a browser.

Tests marked ``shared`` or ``browser`` are skipped, with the reason, where the data or the browser
is missing. ``--require shared --require browser`` makes a missing one an error instead, so that a
machine that is meant to have both cannot pass without them.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

REPO = Path(__file__).resolve().parent.parent
SHARED_DATA = REPO.parent / "shared" / "data"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The Chromium of this machine; BANDIT_ROUTER_TEST_CHROMIUM names another one."""
    named = os.environ.get("BANDIT_ROUTER_TEST_CHROMIUM")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


def missing(requirement: str) -> str | None:
    """Why tests marked ``requirement`` cannot run here, or None when they can."""
    if requirement == "shared":
        return None if (SHARED_DATA / "models.json").is_file() else f"no logs in {SHARED_DATA}"
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install '.[test]'"
    return None if find_chromium() else f"none of {', '.join(BROWSERS)} is installed"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        action="append",
        default=[],
        choices=["shared", "browser"],
        help="fail, instead of skipping, when what these tests need is missing",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for requirement in ("shared", "browser"):
        reason = missing(requirement)
        if reason is None:
            continue
        if requirement in config.getoption("--require"):
            raise pytest.UsageError(f"--require {requirement}: {reason}")
        for item in items:
            if item.get_closest_marker(requirement):
                item.add_marker(pytest.mark.skip(reason=f"{requirement}: {reason}"))


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout: where README.md, configs/ and bandit_router/ are."""
    return REPO


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the shared logs; for tests marked ``shared``."""
    return SHARED_DATA


@pytest.fixture
def page() -> Iterator[Page]:
    """A blank page of headless Chromium without network; for tests marked ``browser``."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield browser.new_page()
        finally:
            browser.close()
