"""A relay whose producer says nothing any more, neither that a record came nor that it failed."""

from __future__ import annotations

from types import SimpleNamespace

from bandit_router.adapters.kafka import relay as module
from bandit_router.adapters.kafka.client import Connection
from bandit_router.adapters.kafka.relay import Relay, RelayLimits
from bandit_router.adapters.outbox import Outbox, Outgoing
from bandit_router.bench.brokers.processes import wait_until

LIMITS = RelayLimits(
    request_timeout_s=0.1, delivery_timeout_s=0.2, first_backoff_s=0.01, acknowledge_s=0.01
)


class Producer:
    """Answers its first ``answers`` records, and is silent then."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.sent: list[bytes] = []

    def send(self, _topic: str, *, value: bytes, **_more: object) -> SimpleNamespace:
        self.sent.append(value)
        return SimpleNamespace(is_done=len(self.sent) <= self.answers, exception=None)


def test_a_producer_that_is_silent_is_replaced_and_everything_from_there_is_sent_again(
    tmp_path, monkeypatch
):
    producers = [Producer(2), Producer(0), Producer(100)]
    waiting, abandoned = iter(producers), []
    monkeypatch.setattr(module, "make_producer", lambda *_, **__: next(waiting))
    monkeypatch.setattr(module, "abandon", abandoned.append)
    values = [b"%d" % number for number in range(5)]
    with Outbox.open(tmp_path / "outbox.db") as outbox:
        outbox.put([Outgoing("decisions", "app", value) for value in values])
        with Relay(outbox.path, Connection(bootstrap_servers=("kafka:1",)), limits=LIMITS) as relay:
            wait_until(lambda: outbox.backlog().events == 0, 5, "all are acknowledged")
            status = relay.status()
    assert [producer.sent for producer in producers] == [values, values[2:], values[2:]]
    assert abandoned == producers
    assert (status["acknowledged"], status["resent"]) == (5, 6)
    assert status["errors"] == {"Transport": 2}
    assert "kafka:1: no word of a record in" in status["last_error"]
