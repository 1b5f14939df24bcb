"""The scenarios of ``bandit-router bench chaos`` as tests run them: on a fixture's broker."""

from __future__ import annotations

from pathlib import Path

from support.brokers import Broker

from bandit_router.bench.brokers import FaultProxy, KafkaCluster
from bandit_router.bench.chaos.finding import Finding
from bandit_router.bench.chaos.rig import KAFKA, TANSU, Rig, Running

SESSION_S = 2.0
"""Short, so that a killed learner's partitions soon move."""


def rig_on(broker: Broker, folder: Path, proxy: FaultProxy | None = None) -> Rig:
    """The fixture's broker; what a scenario does to it, it mends."""
    kind = KAFKA if isinstance(broker.process, KafkaCluster) else TANSU
    running = Running(broker.name, broker.bootstrap, broker.process, proxy)
    return Rig(folder / "chaos", kind, running, session_timeout_s=SESSION_S)


def assert_survived(finding: Finding) -> None:
    """Nothing lost, nothing doubled, nothing different, and something was at stake."""
    assert finding.survived, finding
    assert finding.injected > 0
    assert finding.acknowledged > 0
