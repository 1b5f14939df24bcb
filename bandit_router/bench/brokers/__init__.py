"""Brokers of one's own for benches and tests, on loopback: Tansu, Apache Kafka, and a bad network.

Tansu and Apache Kafka have ``name``, ``bootstrap``, ``kill``, ``restart``, ``pause`` and
``resume``. A killed Tansu has forgotten everything, its topics too; a killed Kafka node has what it
acknowledged.
"""

from __future__ import annotations

from bandit_router.bench.brokers.kraft import KafkaCluster, why_no_kafka
from bandit_router.bench.brokers.proxy import FaultProxy, Mode
from bandit_router.bench.brokers.tansu import Tansu, why_no_tansu

__all__ = ["FaultProxy", "KafkaCluster", "Mode", "Tansu", "why_no_kafka", "why_no_tansu"]
