"""What every test may ask for: the repository, the shared logs, a browser.

Tests marked ``shared`` or ``browser`` are skipped, with the reason, where the data or the browser
is missing. ``--require shared --require browser --no-skips`` makes a missing one an error instead,
so that a machine that is meant to have both cannot pass without them.
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
    """The Chromium of this machine; CHROMIUM_FOR_TESTS names another one."""
    named = os.environ.get("CHROMIUM_FOR_TESTS")
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
        help="fail, instead of skipping, when these tests or what they need are missing",
    )
    parser.addoption("--no-skips", action="store_true", help="fail when any test was skipped")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for requirement in ("shared", "browser"):
        marked = [item for item in items if item.get_closest_marker(requirement)]
        reason = missing(requirement) if marked else "no test is marked so"
        if reason is None:
            continue
        if requirement in config.getoption("--require"):
            raise pytest.UsageError(f"--require {requirement}: {reason}")
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"{requirement}: {reason}"))


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


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
