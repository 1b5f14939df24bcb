"""The demo's world through Kafka: this process decides, another one learns.

The router's process sends what happens to Kafka and follows the snapshots that the learner's
process publishes. Arrivals are paced by the wall clock, because the two work at the same time; so
two runs differ in how far the learner was behind at each decision, unlike embedded ones.
"""

from __future__ import annotations

import json
import math
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bandit_router.adapters.kafka.admin import init_topics
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.bootstrap import make_connection
from bandit_router.config import Settings, load_settings
from bandit_router.demo.live import SNAPSHOT_EVERY, Record
from bandit_router.demo.workspace import CONFIGURATION, LEARNER_LOG, OUTBOX, STREAMING
from bandit_router.demo.world import APP, OnTheirWay, World
from bandit_router.errors import InputError, StorageError, TransportError
from bandit_router.replay import blurred_catalog
from bandit_router.report.document import write_whole
from bandit_router.streaming.applearner import store_path
from bandit_router.streaming.edge import Edge, open_edge
from bandit_router.types import Decision

QUERIES_PER_S = 120.0
"""How fast queries arrive, wall clock. The judged score of one comes some 30 queries later, and
through the broker a little after that."""

PUBLISH_EVERY_S = 0.2
PATIENCE_S = 60.0
_PAGE = 1000


def learner_store(folder: Path) -> Path:
    """The learner's store of a demo in ``folder``."""
    return store_path(folder / STREAMING, APP)


def run_streamed(
    folder: Path,
    world: World,
    bootstrap: str,
    *,
    quality_value_usd: float,
    tick: Callable[[Record], None],
) -> float:
    """Route every query of the world, and learn from all of it in another process.

    Args:
        folder: of this demo, without anything of an earlier one.
        world: its table must have embeddings.
        bootstrap: ``host:port`` of a Kafka broker, or of several with commas between them. Topics
            of a prefix of this run's own are made.
        quality_value_usd: what a fully good answer is worth, USD, > 0.
        tick: called after each query.

    Returns:
        Seconds between the first decision and the last row learned.

    Raises:
        TransportError: Kafka cannot be reached, or the learner did not get ready or did not finish
            in time; its own words are in ``learner.log``.
        StorageError: the folder cannot be written to.
    """
    settings = _configured(folder, world, bootstrap, quality_value_usd)
    made = init_topics(
        make_connection(settings.events),
        replication=settings.events.replication,
        retention_hours=settings.events.retention_hours,
    )
    problems = [f"{topic.topic} {topic.problem}" for topic in made if topic.wrong]
    if problems:
        raise TransportError(f"the topics could not be made: {'; '.join(problems)}")
    with (
        _learner(folder) as process,
        open_edge(settings, embed=False) as edge,
    ):
        _wait(process, folder, "get ready", lambda: _learned(edge) is not None)
        start = time.monotonic()
        _route(edge, world, tick)
        _wait(process, folder, "finish", lambda: (_learned(edge) or 0) >= len(world))
        return time.monotonic() - start


def read_streamed(store: SqliteStore, world: World) -> Record:
    """What was decided, as the learner's log has it; a decision that came twice counts once.

    Raises:
        InputError: the store holds decisions of another world.
    """
    record = Record.empty(len(world))
    places = {world.event_id(query): query for query in range(len(world))}
    offset, seen = -1, set()
    while page := store.read(offset, _PAGE):
        for offset, event in page:
            if not isinstance(event, Decision) or event.event_id in seen:
                continue
            if event.event_id not in places:
                raise InputError(f"decision {event.event_id!r:.80} is not of this demo's world")
            seen.add(event.event_id)
            record.put(world, places[event.event_id], event, offset)
    return record


def _configured(folder: Path, world: World, bootstrap: str, quality_value_usd: float) -> Settings:
    """The settings that both processes read, written to the folder."""
    value = json.dumps  # a JSON string, number or list of strings is one in TOML too
    lines = [
        "# Made by `bandit-router demo --kafka`, read by its router and its learner.",
        f"[app]\nname = {value(APP)}\nsalt = {value(f'demo/{world.seed}')}",
        f"[policy]\nseed = {world.seed}\nquality_value_usd = {value(quality_value_usd)}",
        f"[snapshots]\nevery = {SNAPSHOT_EVERY}",
        f"[events]\ntransport = 'kafka'\nbootstrap_servers = {value(bootstrap.split(','))}",
        f"prefix = 'bandit-demo-{secrets.token_hex(4)}'\npartitions = 1",
        f"group = 'bandit-demo-{secrets.token_hex(4)}'\nsession_timeout_s = 6",
        f"publish_every_s = {PUBLISH_EVERY_S}",
        f"outbox = {value(OUTBOX)}\nfolder = {value(STREAMING)}",
    ]
    lines += [
        f"[[models]]\nmodel = {value(spec.model)}\nexpected_cost_usd = {spec.expected_cost_usd!r}"
        for spec in blurred_catalog(world.table, world.seed)
    ]
    path = folder / CONFIGURATION
    write_whole(path, "\n".join([*lines, ""]).encode())
    return load_settings(path)


@contextmanager
def _learner(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``bandit-router learn`` in a process of its own, told to stop at the end."""
    command = (sys.executable, "-m", "bandit_router.cli.app", "learn")
    try:
        log = (folder / LEARNER_LOG).open("wb")
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written to: {error.strerror}") from error
    with log:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            [*command, "--config", str(folder / CONFIGURATION)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired as error:
            raise TransportError(f"the learner did not stop within {PATIENCE_S:g} s") from error
        finally:
            process.kill()
            process.wait()


def _route(edge: Edge, world: World, tick: Callable[[Record], None]) -> None:
    """Every query in its turn, and what came back until then before it."""
    record, coming, start = Record.empty(len(world)), OnTheirWay(), time.monotonic()
    for query in range(len(world)):
        time.sleep(max(start + query / QUERIES_PER_S - time.monotonic(), 0.0))
        decision = edge.decide(world.context(query))
        record.put(world, query, decision, query)
        coming.add(world.outcomes(query, decision))
        last = query + 1 == len(world)
        edge.record(coming.arrived(math.inf if last else float(world.arrival_ts[query + 1])))
        tick(record)


def _wait(
    process: subprocess.Popen[bytes], folder: Path, what: str, ready: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            ended = "ended" if process.poll() is not None else f"took over {PATIENCE_S:g} s"
            raise TransportError(
                f"the learner did not {what}: it {ended}; see {folder / LEARNER_LOG}"
            )
        time.sleep(0.05)


def _learned(edge: Edge) -> int | None:
    """The last row that the router's policy has learned; None before the first snapshot."""
    serving = edge.status()["apps"][APP]
    return serving["learn_seq"] if serving["snapshot_id"] else None
