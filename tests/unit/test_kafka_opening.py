"""Clients of kafka-python that cannot be made leave no thread and no file behind."""

from __future__ import annotations

import gc
import logging
import threading
import time
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.opening import open_client
from bandit_router.bench.brokers.processes import free_port


def files() -> int:
    gc.collect()  # a socket that could not connect is left to it
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("kind", [KafkaAdminClient, KafkaConsumer, KafkaProducer])
def test_no_thread_and_no_file_stays_of_a_client_that_found_no_broker(kind, caplog):
    caplog.set_level(
        logging.CRITICAL, logger="kafka"
    )  # what is logged keeps its error, that its socket
    nowhere = Connection(bootstrap_servers=(f"127.0.0.1:{free_port()}",), timeout_s=0.2)
    options = nowhere.admin_options() if kind is KafkaAdminClient else nowhere.options()
    before = threading.active_count(), files()
    start = time.monotonic()
    for _ in range(3):
        with pytest.raises(KafkaError, match="Unable to bootstrap"):
            open_client(kind, options)
    assert time.monotonic() - start < 5
    assert threading.active_count() <= before[0]
    assert files() <= before[1]
