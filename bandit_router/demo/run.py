"""One demo from its folder to its reports."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from bandit_router.adapters.embedding import FastEmbedder
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.adapters.tables import OutcomeTable
from bandit_router.bootstrap import make_featurizer
from bandit_router.demo.live import LiveDemo, Record, read_record
from bandit_router.demo.logged import read_observed
from bandit_router.demo.page import demo_page
from bandit_router.demo.prompts import embed_prompts
from bandit_router.demo.story import Story, tell
from bandit_router.demo.workspace import (
    DATABASE,
    EMBEDDINGS,
    RESULTS,
    DemoSettings,
    claimed,
    forget_streamed,
)
from bandit_router.demo.world import World, make_world
from bandit_router.errors import InputError, SnapshotError, StorageError
from bandit_router.events import Change
from bandit_router.replay import Setting, Trace
from bandit_router.report.document import ReportDocument, decode, encode, write_report, write_whole
from bandit_router.report.measure import Measured, document, measure
from bandit_router.report.page import render
from bandit_router.report.regret_curve import Observed, RegretCurve

QUALITY_VALUE_USD = 0.10
"""What a fully good answer is worth, by default: ten cents.

In the log the models' (mean score, mean cost) are (.79, $.00003), (.92, $.0005) and (.93, $.015).
The middle one has the best reward of the three from $.004 to $1.3, so over all of that range it is
the favourite, and losing it hurts. Once its score has fallen to .55, the small and the large one
are left, and they break even at about $.10: which of them to take is then a question that the price
does not answer for all prompts at once, so the prompt has to.
"""


class Watcher(Protocol):
    """Shows a running demo."""

    def embedding(self, prompts: int) -> AbstractContextManager[Callable[[int], None]]:
        """While prompts are embedded; what it gives is called with how many are done."""
        ...

    def routing(self, world: World, done: int) -> AbstractContextManager[Callable[[Record], None]]:
        """While queries are routed, from ``done`` on; what it gives is called after each."""
        ...

    def change(self, change: Change) -> None:
        """A drift alarm was raised."""
        ...


@dataclass(frozen=True)
class Finished:
    """A finished demo.

    Attributes:
        report: the content of ``report.json``.
        story: the content of ``demo.json``.
        resumed_at: how many queries the folder's demo had done before this call; equal to all of
            them when it was finished before.
        files: database and reports.
        regret: of the live run, estimated from what it logged, beside the true one.
    """

    report: ReportDocument
    story: Story
    resumed_at: int
    files: tuple[Path, ...]
    regret: RegretCurve | None


def run_demo(
    folder: Path,
    log: OutcomeTable,
    watcher: Watcher,
    *,
    seed: int = 0,
    quality_value_usd: float = QUALITY_VALUE_USD,
    fresh: bool = False,
    kafka: str | None = None,
) -> Finished:
    """Run the demo in ``folder``, from where it stopped there; a finished one is only read.

    Args:
        log: as :func:`~bandit_router.demo.world.demo_log` gives it.
        fresh: forget an earlier demo in the folder.
        kafka: ``host:port`` of a broker: decide and learn in two processes, with it between them.
            Interrupted, such a run begins anew.

    Raises:
        InputError: an argument is out of its range, or the folder's content is not this demo's.
        StorageError: the folder cannot be written to.
        TransportError: the broker cannot be reached, or the learner did not come up.
        DependencyError: the encoder is missing or damaged.
    """
    if not 0.0 < quality_value_usd < math.inf:
        raise InputError(f"quality value {quality_value_usd!r} must be finite and above 0, in USD")
    settings = DemoSettings(
        log_sha256=log.sha256,
        queries=len(log),
        seed=seed,
        quality_value_usd=quality_value_usd,
        transport="sqlite" if kafka is None else "kafka",
    )
    with claimed(folder, settings, fresh=fresh):
        if kafka is not None:
            return _run_streamed(folder, log, watcher, settings, kafka)
        path = folder / DATABASE
        try:
            with SqliteStore.open(path) as store:
                return _run(folder, store, log, watcher, settings)
        except (SnapshotError, StorageError) as error:
            if error.retriable:
                raise
            raise InputError(f"{path}: {error}; begin anew with --fresh") from error


def _run(
    folder: Path, store: SqliteStore, log: OutcomeTable, watcher: Watcher, settings: DemoSettings
) -> Finished:
    value, seed = settings.quality_value_usd, settings.seed
    world = make_world(log, seed=seed, quality_value_usd=value)
    record, _ = read_record(store, world)
    resumed_at, seconds = record.done, math.inf
    if not _is_complete(store, record, world):
        embeddings = _embed(folder, log, watcher)
        world = make_world(
            dataclasses.replace(log, embeddings=embeddings), seed=seed, quality_value_usd=value
        )
        live = LiveDemo(
            store,
            world,
            make_featurizer(embed=False),
            quality_value_usd=value,
            on_change=watcher.change,
        )
        with watcher.routing(world, resumed_at) as tick:
            live.run(tick)
        record, made = live.record, len(world) - resumed_at
        seconds = live.seconds * len(world) / made if made else math.inf
    story = tell(world, record, store.changes(), value)
    measured = _measured(world, record, read_observed(store, world), story, seconds)
    report = _report(folder, world, measured, story)
    files = tuple(folder / name for name in (DATABASE, *RESULTS))
    return Finished(report, story, resumed_at, files, measured[0].estimated)


def _run_streamed(
    folder: Path, log: OutcomeTable, watcher: Watcher, settings: DemoSettings, bootstrap: str
) -> Finished:
    from bandit_router.demo.streamed import learner_store, read_streamed, run_streamed

    value, seed = settings.quality_value_usd, settings.seed
    world = make_world(log, seed=seed, quality_value_usd=value)
    path, seconds, resumed_at = learner_store(folder), math.inf, len(world)
    if not (folder / RESULTS[0]).exists():
        forget_streamed(folder)
        embeddings, resumed_at = _embed(folder, log, watcher), 0
        embedded = dataclasses.replace(log, embeddings=embeddings)
        world = make_world(embedded, seed=seed, quality_value_usd=value)
        with watcher.routing(world, 0) as tick:
            seconds = run_streamed(folder, world, bootstrap, quality_value_usd=value, tick=tick)
    with SqliteStore.open(path, create=False) as store:
        record = read_streamed(store, world)
        story = tell(world, record, store.changes(), value)
        measured = _measured(world, record, read_observed(store, world), story, seconds)
    report = _report(folder, world, measured, story)
    files = (path, *(folder / name for name in RESULTS))
    return Finished(report, story, resumed_at, files, measured[0].estimated)


def _is_complete(store: SqliteStore, record: Record, world: World) -> bool:
    """Whether every query is decided, learned and kept in a snapshot."""
    if record.done < len(world):
        return False
    newest = next(store.snapshots(), None)
    return newest is not None and newest.manifest.offsets["log"] == store.last_offset()


def _embed(folder: Path, log: OutcomeTable, watcher: Watcher) -> np.ndarray:
    with watcher.embedding(len(log)) as tick:
        return embed_prompts(log.prompts, FastEmbedder(), folder / EMBEDDINGS, tick)


def _report(folder: Path, world: World, measured: list[Measured], story: Story) -> ReportDocument:
    """Write the reports, unless they are there already and say the same."""
    report = document(world.table, measured)
    written = _written(folder / RESULTS[0])
    if written is not None and _same(written, report):
        report = written  # it has the speed of the run that did the work
    write_report(folder, report, render(demo_page(world, measured, story)))
    content = msgspec.json.format(msgspec.json.encode(story), indent=1) + b"\n"
    write_whole(folder / RESULTS[2], content)
    return report


def _measured(
    world: World, record: Record, log: Observed, story: Story, seconds: float
) -> list[Measured]:
    """The live run, and what each single model would have given."""
    n, table = len(world), world.table

    def trace(policy: str, chosen: np.ndarray, seconds: float) -> Trace:
        ours = policy == "bandit"
        return Trace(
            Setting(policy, story.quality_value_usd, None, world.seed),
            np.arange(n),
            chosen,
            record.explored if ours else np.zeros(n, bool),
            record.propensities if ours else np.ones(n),
            np.full(n, story.quality_value_usd),
            seconds,
        )

    fixed = [
        trace(f"fixed:{model}", np.full(n, column, np.int32), math.inf)
        for column, model in enumerate(table.models)
    ]
    live = measure(table, trace("bandit", record.chosen, seconds), log)
    return [live, *(measure(table, t) for t in fixed)]


def _written(path: Path) -> ReportDocument | None:
    """The report that is there, or None when it is missing or was made by another version."""
    try:
        return decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def _same(one: ReportDocument, other: ReportDocument) -> bool:
    """Whether they agree in everything but the speed."""
    return _without_speed(one) == _without_speed(other)


def _without_speed(report: ReportDocument) -> bytes:
    runs = tuple(msgspec.structs.replace(run, decisions_per_second=0.0) for run in report.runs)
    return encode(msgspec.structs.replace(report, runs=runs))
