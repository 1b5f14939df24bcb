"""Brokers and installations for scenarios."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bandit_router.bench.brokers import (
    FaultProxy,
    KafkaCluster,
    Tansu,
    why_no_kafka,
    why_no_tansu,
)
from bandit_router.bench.chaos.site import Site
from bandit_router.errors import DependencyError, InputError

TANSU, KAFKA, OUTSIDE = "tansu", "kafka", "outside"

SESSION_S = {TANSU: 6.0, KAFKA: 3.0}
"""How long a silent learner keeps its partitions, seconds."""


def available() -> list[str]:
    """The kinds of broker that can be started on this machine."""
    reasons = ((TANSU, why_no_tansu()), (KAFKA, why_no_kafka()))
    return [kind for kind, reason in reasons if reason is None] or [TANSU]


@contextmanager
def rig(kind: str, bootstrap: str | None = None) -> Iterator[Rig]:
    """A rig with a temporary folder.

    Args:
        kind: ``tansu`` or ``kafka``, started when it is asked for.
        bootstrap: of a Kafka that is there already, instead.

    Raises:
        InputError: there is no such kind.
        DependencyError: that broker cannot be started here.
    """
    reasons = {TANSU: why_no_tansu, KAFKA: why_no_kafka}
    if kind not in reasons:
        raise InputError(f"--broker {kind}: use {' or '.join(reasons)}")
    reason = None if bootstrap else reasons[kind]()
    if reason is not None:
        raise DependencyError(f"cannot start the broker {kind}: {reason}")
    with TemporaryDirectory(prefix="bandit-router-bench-") as folder:
        if bootstrap is None:
            yield Rig(Path(folder), kind, session_timeout_s=SESSION_S[kind])
        else:
            yield Rig(Path(folder), OUTSIDE, Running(f"Kafka at {bootstrap}", bootstrap))


@dataclass(frozen=True)
class Running:
    """A broker that answers.

    Attributes:
        name: which one, with its version.
        bootstrap: ``host:port``, several with a comma between them.
        process: to kill, halt and restart it; None where it is somebody else's.
        proxy: what stands in front of it, or None.
    """

    name: str
    bootstrap: str
    process: Tansu | KafkaCluster | None = None
    proxy: FaultProxy | None = None

    @property
    def nodes(self) -> int:
        """How many brokers there are."""
        return self.bootstrap.count(",") + 1


class NotHere(Exception):  # noqa: N818 - no error: the scenario says why it is skipped
    """A scenario cannot be run on this broker or machine; the message says why."""


class Rig:
    """What scenarios are run on.

    Args:
        folder: for the files of brokers and installations.
        kind: ``tansu``, ``kafka`` or ``outside``.
        running: a broker of that kind that is there already and may be shared. What a scenario
            does to it, it mends.
        session_timeout_s: of the learners, unless a scenario says another.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        running: Running | None = None,
        *,
        session_timeout_s: float = 6.0,
    ) -> None:
        self.folder, self.kind = folder, kind
        self._session_timeout_s = session_timeout_s
        self._running = running
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def broker(self, *, nodes: int = 1, own: bool = False, proxied: bool = False) -> Iterator[Any]:
        """A broker.

        Args:
            nodes: of the cluster; more than one only with Kafka.
            own: nobody else uses it, so that it can be killed or halted.
            proxied: a proxy stands in front of it.

        Raises:
            NotHere: this rig has none like that.
        """
        given = self._running
        if given is not None and proxied <= (given.proxy is not None) and nodes <= given.nodes:
            if own and given.process is None:
                raise NotHere("the broker is not ours to kill")
            yield given
        elif self.kind == OUTSIDE:
            raise NotHere("needs a broker of its own")
        elif self.kind == TANSU:
            if nodes > 1:
                raise NotHere("Tansu in memory is one node")
            with self._tansu(proxied=proxied) as running:
                yield running
        else:
            if proxied:
                raise NotHere("the proxy stands before Tansu alone")
            with KafkaCluster(self._fresh("kafka"), nodes=nodes) as cluster:
                yield Running(cluster.name, cluster.bootstrap, cluster)

    @contextmanager
    def _tansu(self, *, proxied: bool) -> Iterator[Running]:
        tansu = Tansu(self._fresh("tansu"))
        if not proxied:
            with tansu:
                yield Running(tansu.name, tansu.bootstrap, tansu)
            return
        with FaultProxy(tansu.port) as proxy:
            tansu.advertised = proxy.port
            with tansu:
                yield Running(tansu.name, tansu.bootstrap, tansu, proxy)

    @contextmanager
    def site(
        self, broker: Running, *, replication: int = 1, topics: bool = True, **options: Any
    ) -> Iterator[Site]:
        """An installation on a broker, with topics of its own."""
        options.setdefault("session_timeout_s", self._session_timeout_s)
        folder = self._fresh("site")
        with Site(folder, broker.bootstrap, f"chaos-{uuid.uuid4().hex[:10]}", **options) as site:
            if topics:
                site.make_topics(replication=replication)
            yield site

    def _fresh(self, name: str) -> Path:
        folder = self.folder / f"{name}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        return folder
