"""`bandit-router check`: whether everything that a decision needs is in place."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from bandit_router.cli.output import ConfigOption, JsonOption, emit
from bandit_router.errors import BanditRouterError

if TYPE_CHECKING:
    from rich.console import Console

    from bandit_router.config import Settings

STYLES = {"ok": "green", "warn": "yellow", "failed": "red"}


class Finding(NamedTuple):
    """One line of the report: ``status`` is ``ok``, ``warn`` or ``failed``."""

    check: str
    status: str
    detail: str
    mend: str = ""


def command(config: ConfigOption = None, json_output: JsonOption = False) -> None:
    """Check the configuration, the catalog, the encoder and the store."""
    from bandit_router.config import BUILT_IN_NAME, find_config, load_settings

    settings = load_settings(config)
    findings = [Finding("configuration", "ok", str(find_config(config) or BUILT_IN_NAME))]
    findings += (finding for probe in PROBES for finding in _guarded(probe, settings))
    good = all(finding.status != "failed" for finding in findings)
    result = {"ok": good, "checks": [finding._asdict() for finding in findings]}
    emit(result, json_output, human=lambda console: _draw(console, findings))
    if not good:
        raise typer.Exit(1)


def _guarded(probe: Probe, settings: Settings) -> list[Finding]:
    """The probe's findings; an error of ours is a finding too, whose message has the mend."""
    try:
        return list(probe(settings))
    except BanditRouterError as error:
        return [Finding(probe.__name__.strip("_"), "failed", str(error))]


Probe = Callable[["Settings"], Iterator[Finding]]


def _snapshots(settings: Settings) -> Iterator[Finding]:
    if settings.snapshots.hmac_key is None:
        yield Finding(
            "snapshots",
            "warn",
            "snapshots are not signed: whoever can write them can change what is learned",
            "set BANDIT_ROUTER_SNAPSHOTS__HMAC_KEY",
        )
    else:
        yield Finding("snapshots", "ok", "signed")


def _catalog(settings: Settings) -> Iterator[Finding]:
    catalog = settings.catalog
    costs = [spec.prior_cost_usd() for spec in catalog]
    span = f"USD {min(costs):.3g} to {max(costs):.3g} for a typical query"
    yield Finding("catalog", "ok", f"{len(catalog)} models, {span}")
    if len(catalog) == 1:
        yield Finding("catalog", "warn", "one model: nothing to choose", "add a second model")
    value = settings.policy.quality_value_usd
    dear = [spec.model for spec in catalog if spec.prior_cost_usd() > value]
    if dear:
        yield Finding(
            "catalog",
            "warn",
            f"a query costs more than a fully good answer is worth (USD {value:g}): "
            f"{', '.join(dear)}",
            "raise policy.quality_value_usd or leave the model out",
        )


def _encoder(settings: Settings) -> Iterator[Finding]:
    from bandit_router.bootstrap import make_featurizer
    from bandit_router.types import Context

    start = time.perf_counter()
    featurizer = make_featurizer(settings.features)
    featurizer.features(Context(event_id="check", ts=0.0, prompt="ready?"))
    took = f"{time.perf_counter() - start:.1f} s"
    detail = f"{settings.features.embedder}, {featurizer.dimension} features, ready in {took}"
    yield Finding("encoder", "ok", detail)


def _policy(settings: Settings) -> Iterator[Finding]:
    """Builds the policy and decides once, which also compiles what is compiled at first use."""
    import numpy as np

    from bandit_router.bootstrap import make_featurizer, make_policy
    from bandit_router.types import Features

    chosen, catalog = settings.policy, settings.catalog
    dimension = make_featurizer(settings.features, embed=False).dimension
    start = time.perf_counter()
    policy = make_policy(
        chosen.name, catalog, dimension=dimension, seed=chosen.seed, **chosen.options
    )
    features = Features(dense=np.zeros(dimension))
    policy.evaluate(features, catalog.names, chosen.quality_value_usd)
    yield Finding("policy", "ok", f"{chosen.name}, ready in {time.perf_counter() - start:.1f} s")


def _vowpal(_: Settings) -> Iterator[Finding]:
    from importlib.metadata import version

    from bandit_router.adapters.vowpal import VowpalWorkspace

    VowpalWorkspace(["--noconstant"])
    yield Finding("vowpal", "ok", f"vowpalwabbit {version('vowpalwabbit')}")


def _store(settings: Settings) -> Iterator[Finding]:
    if settings.events.transport == "kafka":
        return
    yield _file("store", "store.path", settings.store.path)


def _outbox(settings: Settings) -> Iterator[Finding]:
    if settings.events.transport == "kafka":
        yield _file("outbox", "events.outbox", settings.events.outbox)


def _events(settings: Settings) -> Iterator[Finding]:
    """Whether Kafka can be reached and has the topics. Without Kafka nothing is asked."""
    chosen = settings.events
    if chosen.transport != "kafka":
        return
    from bandit_router.adapters.kafka.admin import MISSING, describe
    from bandit_router.bootstrap import make_connection

    connection = make_connection(chosen)
    start = time.perf_counter()
    found = describe(
        connection, replication=chosen.replication, retention_hours=chosen.retention_hours
    )
    took = f"{(time.perf_counter() - start) * 1000:.0f} ms"
    where = ", ".join(connection.bootstrap_servers)
    yield Finding("events", "ok", f"{found.brokers} brokers at {where}, asked in {took}")
    missing = [topic for topic in found.topics if topic.state == MISSING]
    if missing:
        names = ", ".join(topic.topic for topic in missing)
        yield Finding("events", "failed", f"topics are missing: {names}", missing[0].mend)
    for topic in found.topics:
        if topic.wrong and topic not in missing:
            yield Finding("events", "failed", f"{topic.topic} {topic.problem}", topic.mend)
    if not any(topic.wrong for topic in found.topics):
        shape = f"{connection.partitions} partitions, {chosen.replication} replicas"
        yield Finding("events", "ok", f"topics {connection.topic('*')}: {shape}")


def _file(check: str, key: str, path: Path) -> Finding:
    """Whether a database can be written."""
    problem = _unwritable(path)
    if problem:
        mend = f"set {key} to a file in a folder that exists and can be written"
        return Finding(check, "failed", f"{path}: {problem}", mend)
    return Finding(check, "ok", f"{path}, {'writable' if path.exists() else 'will be made'}")


def _unwritable(path: Path) -> str:
    """Why a database cannot be used, or an empty text. Changes nothing."""
    if not path.exists():
        folder = path.absolute().parent
        return "" if os.access(folder, os.W_OK) else f"no folder {folder} that can be written"
    try:
        with closing(sqlite3.connect(path, timeout=1.0)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        return str(error)
    return ""


PROBES: tuple[Probe, ...] = (
    _catalog,
    _encoder,
    _policy,
    _vowpal,
    _store,
    _outbox,
    _events,
    _snapshots,
)


def _draw(console: Console, findings: list[Finding]) -> None:
    from rich.markup import escape

    from bandit_router.cli.event_lines import printable

    for check, status, detail, mend in findings:
        label = f"[{STYLES[status]}]{status:<6}[/]"
        console.print(f"{label} {check:<13} {escape(printable(detail))}", soft_wrap=True)
        if mend:
            console.print(f"{'':<20} mend: {escape(mend)}", soft_wrap=True)
