"""Apache Kafka: one or three nodes without ZooKeeper, on loopback, from jars and Java."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.opening import open_client
from bandit_router.bench.brokers.processes import LOOPBACK, Server, free_port

JARS = Path(os.environ.get("KAFKA_JARS") or Path.home() / ".cache" / "bandit-router" / "kafka")
CLUSTER_ID = "YmFuZGl0LXJvdXRlci0wMA"
USER, PASSWORD = "router", "correct-horse-battery"
STORE_PASSWORD = "only-for-tests"  # noqa: S105 - opens a key that lives as long as the test

# A small heap and the quick compiler only: ready in 3 s, and some 250 MB of memory a node.
JAVA = ("java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
QUIET = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)

# Small buffers, and everything that is on a timer often enough for a test to wait for it.
SETTINGS = """
process.roles=broker,controller
controller.listener.names=CONTROLLER
inter.broker.listener.name=INTERNAL
auto.create.topics.enable=false
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.backoff.ms=500
log.cleaner.dedupe.buffer.size=4194304
log.index.size.max.bytes=1048576
log.initial.task.delay.ms=1000
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=500
num.io.threads=4
num.network.threads=2
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=4
"""


def why_no_kafka() -> str | None:
    """Why Apache Kafka cannot be started here, or None when it can."""
    if shutil.which("java") is None:
        return "no java on the PATH"
    if not any(JARS.glob("kafka_2.13-*.jar")):
        return (
            f"no jars of Apache Kafka in {JARS} (KAFKA_JARS names another folder); fetch them: mvn "
            f"-f .ci/kafka-pom.xml dependency:copy-dependencies -DoutputDirectory={JARS}"
        )
    return None


class KafkaCluster:
    """Nodes of Apache Kafka in KRaft mode, each broker and controller, numbered from 1.

    Args:
        folder: where the nodes keep their data and logs.
        nodes: 1 or 3. With 3, topics of the brokers' own have 3 replicas, 2 of them in sync.
        advertised: ports that clients are told to come to, one a node: those of proxies.
        secured: also listen for SASL (PLAIN and SCRAM-SHA-256, as ``USER``) and for TLS.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = 1,
        advertised: Sequence[int] | None = None,
        secured: bool = False,
    ) -> None:
        self.folder, self.secured = folder, secured
        self.ports = {node: free_port() for node in range(1, nodes + 1)}
        self.advertised = dict(zip(self.ports, advertised or self.ports.values(), strict=True))
        self.sasl_port, self.tls_port = free_port(), free_port()
        self.certificate = folder / "broker.pem"
        self._internal = {node: free_port() for node in self.ports}
        self._controllers = {node: free_port() for node in self.ports}
        self._servers: dict[int, Server] = {}

    @cached_property
    def name(self) -> str:
        """Which broker it is, with its version."""
        (jar,) = JARS.glob("kafka_2.13-*.jar")
        return f"Apache Kafka {jar.stem.removeprefix('kafka_2.13-')}"

    @property
    def bootstrap(self) -> str:
        """The addresses of all nodes, with a comma between them."""
        return ",".join(f"{LOOPBACK}:{port}" for port in self.advertised.values())

    def start(self) -> None:
        """Format the nodes' storage, start them and wait until every one serves."""
        if self.secured:
            self._make_certificate()
        self._format()
        for node in self.ports:
            self._servers[node] = Server(
                [*JAVA, *QUIET, "-cp", f"{JARS}/*", "kafka.Kafka", str(self._properties(node))],
                log=self.folder / f"node{node}.log",
                port=self.ports[node],
            )
            self._servers[node].start()
        for node in self.ports:
            self._wait_ready(node)

    def stop(self) -> None:
        """Kill every node."""
        for server in self._servers.values():
            server.kill()

    def kill(self, node: int = 1) -> None:
        """``kill -9`` one node."""
        self._servers[node].kill()

    def restart(self, node: int = 1) -> None:
        """Kill one node if it runs, start it over its data, and wait until it serves again."""
        self.kill(node)
        self._servers[node].start()
        self._wait_ready(node)

    def pause(self, node: int = 1) -> None:
        """Halt one node: its connections stay open, it does not answer."""
        self._servers[node].pause()

    def resume(self, node: int = 1) -> None:
        """Let a halted node go on."""
        self._servers[node].resume()

    def mend(self) -> None:
        """Let halted nodes go on and start killed ones."""
        for node, server in self._servers.items():
            server.resume()
            if not server.running():
                self.restart(node)

    def running(self) -> list[int]:
        """The nodes that run (or are halted)."""
        return [node for node, server in self._servers.items() if server.running()]

    def leader(self, topic: str, partition: int = 0) -> int:
        """The node that leads a partition now; -1 for none."""
        from kafka.admin import KafkaAdminClient

        up = tuple(f"{LOOPBACK}:{self.ports[node]}" for node in self.running())
        admin = open_client(KafkaAdminClient, Connection(bootstrap_servers=up).admin_options())
        with contextlib.closing(admin):
            (found,) = admin.describe_topics([topic])
        return {p["partition_index"]: p["leader_id"] for p in found["partitions"]}[partition]

    def delete_records(self, topic: str, partition: int) -> None:
        """Remove everything that a partition has now, as retention does."""
        from kafka import TopicPartition
        from kafka.admin import KafkaAdminClient

        connection = Connection(bootstrap_servers=tuple(self.bootstrap.split(",")))
        admin = open_client(KafkaAdminClient, connection.admin_options())
        with contextlib.closing(admin):
            admin.delete_records({TopicPartition(topic, partition): -1})

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_ready(self, node: int) -> None:
        self._servers[node].wait_ready(lambda: self._serves(node), 60)

    def _serves(self, node: int) -> bool:
        """Whether the node answers and the cluster counts it among its brokers."""
        from kafka.admin import KafkaAdminClient
        from kafka.errors import KafkaError

        there = Connection(bootstrap_servers=(f"{LOOPBACK}:{self.ports[node]}",), timeout_s=1.0)
        with contextlib.suppress(KafkaError, OSError):
            with contextlib.closing(open_client(KafkaAdminClient, there.admin_options())) as admin:
                brokers = {broker["broker_id"] for broker in admin.describe_cluster()["brokers"]}
            return node in brokers
        return False

    def _format(self) -> None:
        """Make the storage of all nodes, at once: each takes a second of Java's start."""
        scram = ("--add-scram", f"SCRAM-SHA-256=[name={USER},password={PASSWORD}]")
        formatting = [
            subprocess.Popen(  # noqa: S603 - nothing in it comes from outside
                [
                    *(*JAVA, *QUIET, "-cp", f"{JARS}/*", "kafka.tools.StorageTool", "format"),
                    *("-t", CLUSTER_ID, "-c", str(self._write_properties(node))),
                    *(scram if self.secured else ()),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for node in self.ports
        ]
        for process in formatting:
            output, _ = process.communicate(timeout=60)
            if process.returncode:
                raise RuntimeError(f"formatting failed:\n{output.decode(errors='replace')}")

    def _properties(self, node: int) -> Path:
        return self.folder / f"node{node}.properties"

    def _write_properties(self, node: int) -> Path:
        path = self._properties(node)
        path.write_text(SETTINGS + "\n".join(self._own_settings(node)) + "\n")
        return path

    def _own_settings(self, node: int) -> Iterator[str]:
        copies = len(self.ports)
        in_sync = min(copies, 2)
        voters = ",".join(f"{n}@{LOOPBACK}:{port}" for n, port in self._controllers.items())
        listeners = {"INTERNAL": self._internal[node], "CLIENT": self.ports[node]}
        protocols = dict.fromkeys(("CONTROLLER", "INTERNAL", "CLIENT"), "PLAINTEXT")
        if self.secured:
            listeners |= {"SASL": self.sasl_port, "TLS": self.tls_port}
            protocols |= {"SASL": "SASL_PLAINTEXT", "TLS": "SSL"}
            yield from self._security()
        advertised = listeners | {"CLIENT": self.advertised[node]}
        listeners = {"CONTROLLER": self._controllers[node], **listeners}
        yield f"node.id={node}"
        yield f"log.dirs={self.folder / f'node{node}'}"
        yield f"controller.quorum.voters={voters}"
        yield "listeners=" + _addresses(listeners)
        yield "advertised.listeners=" + _addresses(advertised)
        yield "listener.security.protocol.map=" + ",".join(f"{a}:{b}" for a, b in protocols.items())
        yield f"min.insync.replicas={in_sync}"
        for topic in ("offsets.topic", "transaction.state.log"):
            yield f"{topic}.replication.factor={copies}"
        yield f"transaction.state.log.min.isr={in_sync}"

    def _security(self) -> Iterator[str]:
        package = "org.apache.kafka.common.security"
        plain = f'{package}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        scram = f"{package}.scram.ScramLoginModule required;"
        yield "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256"
        yield f"listener.name.sasl.plain.sasl.jaas.config={plain}"
        yield f"listener.name.sasl.scram-sha-256.sasl.jaas.config={scram}"
        yield "ssl.keystore.type=PKCS12"
        yield f"ssl.keystore.location={self.folder / 'broker.p12'}"
        yield f"ssl.keystore.password={STORE_PASSWORD}"
        yield f"ssl.key.password={STORE_PASSWORD}"

    def _make_certificate(self) -> None:
        """A key and a certificate signed by itself, for 127.0.0.1, by Java's keytool."""
        store = ("-keystore", str(self.folder / "broker.p12"), "-storepass", STORE_PASSWORD)
        key = ("-alias", "broker", "-keyalg", "EC", "-groupname", "secp256r1", "-validity", "2")
        names = ("-dname", "CN=broker", "-ext", f"san=ip:{LOOPBACK}", "-ext", "bc=ca:true")
        for command in (
            ("keytool", "-genkeypair", "-storetype", "PKCS12", *store, *key, *names),
            ("keytool", "-exportcert", "-rfc", *store, *key[:2], "-file", str(self.certificate)),
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=60)  # noqa: S603 - same


def _addresses(listeners: dict[str, int]) -> str:
    return ",".join(f"{name}://{LOOPBACK}:{port}" for name, port in listeners.items())
