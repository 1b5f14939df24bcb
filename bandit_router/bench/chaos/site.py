"""One installation under test: its configuration, its topics, its router and learner processes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec

from bandit_router.adapters.kafka.admin import init_topics
from bandit_router.bench.brokers.processes import Server, wait_until
from bandit_router.bench.chaos.acks import Acknowledged, lines_in, read_acks
from bandit_router.bench.chaos.traffic import TrafficPlan
from bandit_router.bootstrap import make_connection
from bandit_router.config import Settings, load_settings
from bandit_router.errors import TransportError

MODELS = 4
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[3])
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_RELAY = b"bandit_router.adapters.kafka.relay_process"
FOLDER = "BANDIT_ROUTER_EVENTS__FOLDER"
_OUTBOX = "BANDIT_ROUTER_EVENTS__OUTBOX"


def write_config(
    path: Path,
    *,
    bootstrap: str,
    prefix: str,
    models: int = MODELS,
    shards: int = 1,
    snapshot_every: int = 200,
    session_timeout_s: float = 6.0,
    window_s: float = 3600.0,
    publish_every_s: float = 0.5,
    **events: float | str,
) -> Path:
    """A configuration with so many models, of which each is dearer than the one before."""
    servers = ", ".join(f'"{server}"' for server in bootstrap.split(","))
    more = "".join(f"{key} = {value!r}\n" for key, value in events.items()).replace("'", '"')
    tables = "".join(
        f'[[models]]\nmodel = "model-{i:02d}"\nexpected_cost_usd = {0.0005 * 4.0**i!r}\n'
        for i in range(models)
    )
    path.write_text(
        f"""[app]
name = "chaos"
[policy]
quality_value_usd = 0.05
[joiner]
window_s = {window_s}
[snapshots]
every = {snapshot_every}
[events]
transport = "kafka"
bootstrap_servers = [{servers}]
prefix = "{prefix}"
partitions = 4
shards = {shards}
session_timeout_s = {session_timeout_s}
publish_every_s = {publish_every_s}
outbox = "outbox.db"
folder = "streaming"
{more}
{tables}""",
        encoding="utf-8",
    )
    return path


class Router:
    """A router process under traffic, that can be killed and come back.

    Attributes:
        name: of its outbox, its folder and its files.
        server: the process.
    """

    def __init__(self, site: Site, name: str, plan: TrafficPlan) -> None:
        self.name, self._site, self._plan = name, site, plan
        self._folder = site.folder / name
        self.outbox.parent.mkdir(parents=True, exist_ok=True)
        self._lives = 0
        self.server: Server | None = None

    @property
    def outbox(self) -> Path:
        """Its outbox file, in a folder of its own."""
        return self._folder / "outbox" / "outbox.db"

    @property
    def acks(self) -> list[Path]:
        """What each of its lives had acknowledged."""
        return [self._folder / f"acks-{life}.txt" for life in range(1, self._lives + 1)]

    def start(self, **changes: float) -> None:
        """Start its next life; ``changes`` of its plan."""
        self._lives += 1
        life = self._lives
        plan = msgspec.structs.replace(
            self._plan,
            seed=self._plan.seed * 1000 + life,
            acks=str(self._folder / f"acks-{life}.txt"),
            stop=str(self._folder / f"stop-{life}"),
            **changes,
        )
        file = self._folder / f"plan-{life}.json"
        file.write_bytes(msgspec.json.encode(plan))
        self.server = Server(
            [sys.executable, "-m", "bandit_router.bench.chaos.traffic", str(file)],
            log=self._folder / "log.txt",
            env=environment({FOLDER: str(self._folder / "state"), _OUTBOX: str(self.outbox)}),
        )
        self.server.start()

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.server is not None and self.server.running()

    def served(self) -> int:
        """Events acknowledged in this life."""
        return lines_in(self.acks[-1])[0]

    def unlogged(self) -> int:
        """Decisions of this life that were served without a log."""
        return lines_in(self.acks[-1])[1]

    def wait_serving(self, events: int = 3, timeout_s: float = 30.0) -> None:
        """Wait until it has acknowledged so many events in this life."""
        try:
            wait_until(lambda: self.served() >= events, timeout_s, f"router {self.name} serves")
        except TimeoutError as error:
            state = "it runs" if self.running else "it has ended"
            raise TimeoutError(f"{error}; {state}; its log:\n{self.log()}") from None

    def relay_pid(self) -> int | None:
        """The process that sends what is in the outbox, or None while there is none."""
        group = None if self.server is None else self.server.group
        if group is None:
            return None
        for pid in (int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal()):
            with contextlib.suppress(OSError):
                if os.getpgid(pid) == group:
                    command = Path(f"/proc/{pid}/cmdline").read_bytes()
                    if _RELAY in command:
                        return pid
        return None

    def kill(self) -> None:
        """``kill -9``; nothing happens when it does not run."""
        if self.server is not None:
            self.server.kill()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Let it close its edge and end."""
        (self._folder / f"stop-{self._lives}").touch()
        wait_until(lambda: not self.running, timeout_s, f"router {self.name} ends")

    def log(self) -> str:
        """The end of what it wrote to stderr."""
        return _tail(self._folder / "log.txt")


class LearnerProcess:
    """``bandit-router learn`` as a process, with a folder of its own: a machine of its own.

    Attributes:
        folder: its stores and snapshots.
        server: the process.
    """

    def __init__(self, site: Site, name: str) -> None:
        self.name, self.folder = name, site.folder / name
        self._log = site.folder / f"{name}.log"
        self.server = Server(
            [*command_line(), "learn", "--config", str(site.config)],
            log=self._log,
            env=environment({FOLDER: str(self.folder)}),
        )

    @property
    def stores(self) -> list[Path]:
        """The databases of its apps."""
        return sorted((self.folder / "apps").rglob("*.db"))

    def start(self) -> None:
        """Start it; returns at once."""
        self.server.start()

    def kill(self) -> None:
        """``kill -9``."""
        self.server.kill()

    def log(self) -> str:
        """The end of what it wrote to stderr."""
        return _tail(self._log)


class Site:
    """Processes and files of one installation; ends all of its processes when it is left.

    Attributes:
        folder: everything is below it.
        config: the configuration file.
        settings: what it says.
        given: what was acknowledged to a scenario that sends by itself.
        reference: stores of the undisturbed reader, by file name, once it has read.
    """

    def __init__(self, folder: Path, bootstrap: str, prefix: str, **options: float | str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.config = write_config(
            folder / "bandit-router.toml", bootstrap=bootstrap, prefix=prefix, **options
        )
        self.settings: Settings = load_settings(self.config)
        self.routers: list[Router] = []
        self.learners: list[LearnerProcess] = []
        self.given = Acknowledged()
        self.reference: dict[str, Path] = {}

    def make_topics(self, *, replication: int = 1) -> None:
        """Make the topics that are missing.

        Raises:
            TransportError: one cannot be made.
        """
        connection = make_connection(self.settings.events)
        states = init_topics(connection, replication=replication, retention_hours=24)
        wrong = [state for state in states if state.wrong]
        if wrong:
            raise TransportError(f"topics: {wrong}")

    def router(self, name: str = "router", *, seed: int = 1, **plan: float) -> Router:
        """A router process; not started."""
        made = Router(
            self,
            name,
            TrafficPlan(config=str(self.config), acks="", stop="", seed=seed, **plan),
        )
        self.routers.append(made)
        return made

    def learner(self, name: str = "learner") -> LearnerProcess:
        """A learner process; not started."""
        made = LearnerProcess(self, name)
        self.learners.append(made)
        return made

    def acknowledged(self) -> Acknowledged:
        """What all routers had acknowledged in all their lives, or what is given."""
        if self.given.count:
            return self.given
        return read_acks(path for router in self.routers for path in router.acks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for each in (*self.routers, *self.learners):
            each.kill()


def command_line() -> list[str]:
    """How to run ``bandit-router`` with this interpreter."""
    return [sys.executable, "-m", "bandit_router.cli.app"]


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """This process's, without its own settings, with single-threaded linear algebra."""
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith("BANDIT_ROUTER_")}
    paths = [_PACKAGE_PARENT, os.environ.get("PYTHONPATH", "")]
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        **dict.fromkeys(_ONE_THREAD, "1"),
        **more,
    }


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-2000:] if path.exists() else ""
