"""Whoever sets TLS or SASL wrongly is told what is wrong, in time, and never the password."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bandit_router.adapters.kafka.admin import describe, init_topics
from bandit_router.adapters.kafka.client import Connection
from bandit_router.bench.brokers.kraft import PASSWORD, USER
from bandit_router.errors import TransportError

pytestmark = pytest.mark.kafka

KEPT = {"replication": 1, "retention_hours": 1}
TIMEOUT_S = 1.0
WRONG = "hunter2-hunter2"
LOGIN = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": USER,
    "sasl_plain_password": PASSWORD,
}
SCRAM = LOGIN | {"sasl_mechanism": "SCRAM-SHA-256"}
TLS = {"security_protocol": "SSL"}


def at(port: int, security: dict, host: str = "127.0.0.1") -> Connection:
    return Connection(
        bootstrap_servers=(f"{host}:{port}",),
        prefix="refusals",
        partitions=1,
        security=security,
        timeout_s=TIMEOUT_S,
    )


def refusal(connection: Connection) -> str:
    """What is said, by both commands alike and in time."""
    texts = []
    for ask in (describe, init_topics):
        start = time.monotonic()
        with pytest.raises(TransportError) as raised:
            ask(connection, **KEPT)
        assert time.monotonic() - start < 4 * TIMEOUT_S
        assert not raised.value.retriable
        texts.append(str(raised.value))
        error: BaseException | None = raised.value
        while error is not None:
            assert WRONG not in f"{error} {error!r}"
            assert PASSWORD not in f"{error} {error!r}"
            error = error.__cause__ or error.__context__
    assert texts[0] == texts[1]
    return texts[0]


@pytest.mark.parametrize("security", [LOGIN, SCRAM], ids=["plain", "scram"])
def test_the_right_password_is_let_in(kafka, security):
    assert describe(at(kafka.process.sasl_port, security), **KEPT).brokers == 1


def test_a_trusted_certificate_is_accepted(kafka):
    security = TLS | {"ssl_cafile": str(kafka.process.certificate)}
    assert describe(at(kafka.process.tls_port, security), **KEPT).brokers == 1


@pytest.mark.parametrize("security", [LOGIN, SCRAM], ids=["plain", "scram"])
def test_a_wrong_password_is_refused(kafka, security):
    text = refusal(at(kafka.process.sasl_port, security | {"sasl_plain_password": WRONG}))
    assert f"refuses user '{USER}' by {security['sasl_mechanism']}" in text
    assert text.endswith("check events.sasl_username and BANDIT_ROUTER_EVENTS__SASL_PASSWORD")


def test_a_mechanism_that_the_broker_has_not_is_answered_by_those_it_has(kafka):
    text = refusal(at(kafka.process.sasl_port, LOGIN | {"sasl_mechanism": "SCRAM-SHA-512"}))
    assert "has no SCRAM-SHA-512; it has PLAIN, SCRAM-SHA-256" in text


def test_a_login_without_a_user_is_refused(kafka):
    text = refusal(at(kafka.process.sasl_port, {**LOGIN, "sasl_plain_username": ""}))
    assert "set events.sasl_mechanism, events.sasl_username and events.sasl_password" in text


def test_no_login_where_one_is_asked_for(kafka):
    text = refusal(at(kafka.process.sasl_port, {}))
    assert 'closes the connection before a login; set events.security_protocol = "SASL_PL' in text


def test_a_login_where_none_is_asked_for(kafka):
    text = refusal(at(kafka.process.ports[1], LOGIN))
    assert 'asks for no login here; set events.security_protocol = "PLAINTEXT"' in text


def test_no_tls_where_it_is_spoken(kafka):
    text = refusal(at(kafka.process.tls_port, {}))
    assert 'speaks TLS; set events.security_protocol = "SSL"' in text


def test_tls_where_it_is_not_spoken(kafka):
    text = refusal(at(kafka.process.ports[1], TLS))
    assert "does not speak TLS with us" in text
    assert "check events.security_protocol" in text


def test_an_untrusted_certificate_is_refused(kafka):
    text = refusal(at(kafka.process.tls_port, TLS))
    assert "its certificate is not trusted: self-signed certificate" in text
    assert "events.ssl_cafile" in text


def test_a_certificate_of_another_host_is_refused(kafka):
    security = TLS | {"ssl_cafile": str(kafka.process.certificate)}
    text = refusal(at(kafka.process.tls_port, security, host="localhost"))
    assert "not valid for 'localhost'" in text


def test_an_authority_file_that_is_missing_is_named(kafka, tmp_path: Path):
    security = TLS | {"ssl_cafile": str(tmp_path / "none.pem")}
    text = refusal(at(kafka.process.tls_port, security))
    assert "none.pem cannot be used: No such file or directory; check events.ssl_cafile" in text


def test_a_host_that_does_not_exist_is_named(kafka):
    text = refusal(at(9092, {}, host="no-such-host.invalid"))
    assert "Kafka at no-such-host.invalid:9092: no such host" in text
