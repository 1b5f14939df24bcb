"""What every test may ask for: the repository, the shared logs, a browser, message brokers.

Tests marked ``shared``, ``browser`` or ``kafka`` are skipped, with the reason, where the data, the
browser or Apache Kafka is missing. ``--require shared --require browser --no-skips`` makes a
missing one an error instead, so that a machine that is meant to have both cannot pass without them.
"""

from __future__ import annotations

import collections
import importlib.util
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from support.brokers import Broker

from bandit_router.bench.brokers import FaultProxy, KafkaCluster, Tansu, why_no_kafka

if TYPE_CHECKING:
    from playwright.sync_api import Page

# How long one example takes says more of the machine than of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

REPO = Path(__file__).resolve().parent.parent
SHARED_DATA = REPO.parent / "shared" / "data"
REQUIREMENTS = ("shared", "browser", "kafka")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The Chromium of this machine; CHROMIUM_FOR_TESTS names another one."""
    named = os.environ.get("CHROMIUM_FOR_TESTS")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


def missing(requirement: str) -> str | None:
    """Why tests marked ``requirement`` cannot run here, or None when they can."""
    if requirement == "shared":
        return None if (SHARED_DATA / "models.json").is_file() else f"no logs in {SHARED_DATA}"
    if requirement == "kafka":
        return why_no_kafka()
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install '.[test]'"
    return None if find_chromium() else f"none of {', '.join(BROWSERS)} is installed"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        action="append",
        default=[],
        choices=REQUIREMENTS,
        help="fail, instead of skipping, when these tests or what they need are missing",
    )
    parser.addoption("--no-skips", action="store_true", help="fail when any test was skipped")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for requirement in REQUIREMENTS:
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


BROKER_USED = "broker"


def of_this_test(request: pytest.FixtureRequest, process: Tansu | KafkaCluster) -> Broker:
    """The broker with topics of this test's own; noted for the counts at the end."""
    request.node.user_properties.append((BROKER_USED, process.name))
    return Broker(process.name, f"t{uuid.uuid4().hex[:12]}", process)


def lent(request: pytest.FixtureRequest, process: Tansu | KafkaCluster) -> Iterator[Broker]:
    """A shared broker for one test; Kafka, whose topics cost files, is left without the test's."""
    broker = of_this_test(request, process)
    yield broker
    if isinstance(process, KafkaCluster):
        process.mend()
        broker.remove_topics()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests passed on which broker."""
    passed = collections.Counter(
        name
        for report in terminalreporter.stats.get("passed", [])
        for key, name in report.user_properties
        if key == BROKER_USED
    )
    if passed:
        counts = (f"{count} on {name}" for name, count in sorted(passed.items(), reverse=True))
        terminalreporter.write_line(f"broker tests passed: {', '.join(counts)}")


@pytest.fixture(scope="session")
def shared_tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tansu]:
    with Tansu(tmp_path_factory.mktemp("tansu")) as tansu:
        yield tansu


@pytest.fixture(scope="session")
def shared_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with KafkaCluster(tmp_path_factory.mktemp("kafka"), secured=True) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_kafka3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    with KafkaCluster(tmp_path_factory.mktemp("kafka3"), nodes=3) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def shared_proxied_kafka(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[KafkaCluster, FaultProxy]]:
    cluster = KafkaCluster(tmp_path_factory.mktemp("proxied"))
    with FaultProxy(cluster.ports[1]) as proxy:
        cluster.advertised = {1: proxy.port}
        with cluster:
            yield cluster, proxy


@pytest.fixture
def broker(request: pytest.FixtureRequest, shared_tansu: Tansu) -> Broker:
    """Tansu, which other tests use too: do not kill it."""
    return of_this_test(request, shared_tansu)


@pytest.fixture
def own_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Tansu for this test alone, to be killed, restarted and halted through ``.process``."""
    with Tansu(tmp_path) as tansu:
        yield of_this_test(request, tansu)


@pytest.fixture
def proxied_broker(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Broker, FaultProxy]]:
    """Tansu for this test alone behind a proxy: whatever it is asked comes through the proxy."""
    tansu = Tansu(tmp_path)
    with FaultProxy(tansu.port) as proxy:
        tansu.advertised = proxy.port
        with tansu:
            yield of_this_test(request, tansu), proxy


@pytest.fixture
def kafka(request: pytest.FixtureRequest, shared_kafka: KafkaCluster) -> Iterator[Broker]:
    """Apache Kafka, one node; for tests marked ``kafka``. Killed or halted, it is mended after."""
    yield from lent(request, shared_kafka)


@pytest.fixture
def kafka3(request: pytest.FixtureRequest, shared_kafka3: KafkaCluster) -> Iterator[Broker]:
    """Apache Kafka, three nodes; for tests marked ``kafka``. What is killed is mended after."""
    yield from lent(request, shared_kafka3)


@pytest.fixture
def proxied_kafka(
    request: pytest.FixtureRequest, shared_proxied_kafka: tuple[KafkaCluster, FaultProxy]
) -> Iterator[tuple[Broker, FaultProxy]]:
    """Apache Kafka, one node behind a proxy that passes again afterwards; marked ``kafka``."""
    cluster, proxy = shared_proxied_kafka
    for broker in lent(request, cluster):
        yield broker, proxy
        proxy.mode = "pass"


@pytest.fixture(params=["tansu", pytest.param("kafka", marks=pytest.mark.kafka)])
def any_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Tansu, then Apache Kafka: for what must hold on both."""
    yield from lent(request, request.getfixturevalue(f"shared_{request.param}"))
