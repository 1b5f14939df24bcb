"""Why no broker can be used: one connection by hand, step by step, and the first step that fails.

kafka-python tries again until its time is up and then says that it could not bootstrap, whatever
the reason: a refused password, an untrusted certificate, a port that speaks TLS. It also leaves the
sockets of such attempts open, so it is better not asked.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from bandit_router.adapters.kafka.client import Connection

_METADATA, _SASL_HANDSHAKE, _API_VERSIONS, _SASL_AUTHENTICATE = 3, 17, 18, 36
_UNSUPPORTED_MECHANISM, _ILLEGAL_STATE = 33, 34
_TLS_ALERT = 21
_MAX_ANSWER_BYTES = 10_000_000
_DEFAULT_PORT = 9092


class Cause(NamedTuple):
    """Why a broker cannot be used.

    Attributes:
        problem: what is wrong, with the broker's address.
        mend: what to do about it.
        retriable: True when it can go away by itself.
        certain: False for a guess, which counts only when kafka-python fails too.
    """

    problem: str
    mend: str
    retriable: bool = False
    certain: bool = True


class _FailedError(Exception):
    """A step found the cause."""

    def __init__(
        self, problem: str, mend: str, *, retriable: bool = False, certain: bool = True
    ) -> None:
        super().__init__(problem)
        self.mend, self.retriable, self.certain = mend, retriable, certain


def why_unusable(connection: Connection) -> Cause | None:
    """The first cause found at any of the servers; None when every step works at one of them.

    Takes at most ``timeout_s`` for each step at each server. Passwords are in no text.
    """
    cause = None
    for server in connection.bootstrap_servers:
        try:
            _try(server, connection.security, connection.timeout_s)
        except _FailedError as failure:
            problem = f"{server}: {failure}"
            found = Cause(problem, failure.mend, failure.retriable, failure.certain)
            cause = cause if cause is not None and found.retriable else found
        else:
            return None
    return cause


def _try(server: str, security: Mapping[str, Any], timeout_s: float) -> None:
    """Connect, speak TLS if that is set, greet, log in or ask for metadata."""
    protocol = security.get("security_protocol", "PLAINTEXT")
    tls, sasl = protocol.endswith("SSL"), protocol.startswith("SASL")
    host, port = _address(server)
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(_connected(host, port, timeout_s))
        if tls:
            wire = stack.enter_context(_secured(wire, host, security))
        if _ask(wire, _API_VERSIONS, 0) is None:
            raise _FailedError(
                "answers no greeting of Kafka's protocol" + ("" if tls else "; it may speak TLS"),
                "check the address" if tls else "check the address and events.security_protocol",
                certain=False,
            )
        if sasl:
            _log_in(wire, host, security)
        if _ask(wire, _METADATA, 1, struct.pack(">i", 0)) is None and not sasl:
            secured = "SASL_SSL" if tls else "SASL_PLAINTEXT"
            raise _FailedError(
                "closes the connection before a login",
                f'set events.security_protocol = "{secured}", a mechanism, user and password',
                certain=False,
            )


def _address(server: str) -> tuple[str, int]:
    host, separator, port = server.rpartition(":")
    if not separator or not port.isdigit():
        return server.strip("[]"), _DEFAULT_PORT
    return host.strip("[]"), int(port)


def _connected(host: str, port: int, timeout_s: float) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout=timeout_s)
    except socket.gaierror as error:
        raise _FailedError("no such host", "check events.bootstrap_servers") from error
    except OSError as error:
        what = "does not answer" if isinstance(error, TimeoutError) else (error.strerror or "")
        mend = "start the broker, or check events.bootstrap_servers"
        raise _FailedError(what.lower() or str(error), mend, retriable=True) from error


def _secured(wire: socket.socket, host: str, security: Mapping[str, Any]) -> ssl.SSLSocket:
    """``wire`` with TLS on it, as kafka-python makes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = security.get("ssl_check_hostname", True)
    for key in ("ssl_cafile", "ssl_certfile"):
        try:
            if security.get(key) and key == "ssl_cafile":
                context.load_verify_locations(security[key])
            elif security.get(key):
                context.load_cert_chain(security[key], security.get("ssl_keyfile"))
            elif key == "ssl_cafile":
                context.load_default_certs()
        except (OSError, ssl.SSLError) as error:
            text = f"{security[key]} cannot be used: {error.strerror or error}"
            raise _FailedError(text, f"check events.{key}") from error
    try:
        return context.wrap_socket(wire, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise _FailedError(
            f"its certificate is not trusted: {error.verify_message}",
            "set events.ssl_cafile to the certificate of the authority that signed it",
        ) from error
    except OSError as error:  # ssl.SSLError is one
        raise _FailedError(
            f"does not speak TLS with us ({error.strerror or error})",
            "check events.security_protocol and events.ssl_certfile",
        ) from error


def _log_in(wire: socket.socket, host: str, security: Mapping[str, Any]) -> None:
    """SASL, by kafka-python's own mechanisms."""
    from kafka.net.sasl import get_sasl_mechanism

    name = security.get("sasl_mechanism") or ""
    if not name or not security.get("sasl_plain_username"):
        raise _FailedError(
            "a login needs a mechanism and a user",
            "set events.sasl_mechanism, events.sasl_username and events.sasl_password",
        )
    _shake_hands(wire, name)
    options = {"sasl_plain_password": "", **security}
    mechanism = get_sasl_mechanism(name)(host=host, **options)
    while not mechanism.is_done():
        token = mechanism.auth_bytes()
        answer = _ask(wire, _SASL_AUTHENTICATE, 0, struct.pack(">i", len(token)) + token)
        if answer is None or struct.unpack_from(">h", answer)[0]:
            said = "" if answer is None else f": {_text(answer, 2)[0]}"
            raise _FailedError(
                f"refuses user {security['sasl_plain_username']!r} by {name}{said}",
                "check events.sasl_username and BANDIT_ROUTER_EVENTS__SASL_PASSWORD",
            )
        _, after = _text(answer, 2)
        try:
            mechanism.receive(answer[after + 4 :])
        except (ValueError, KeyError) as error:
            raise _FailedError(
                f"its answer to {name} proves no knowledge of the password",
                "check that the address is your broker's",
            ) from error


def _shake_hands(wire: socket.socket, mechanism: str) -> None:
    encoded = mechanism.encode()
    answer = _ask(wire, _SASL_HANDSHAKE, 1, struct.pack(">h", len(encoded)) + encoded)
    code = _ILLEGAL_STATE if answer is None else struct.unpack_from(">h", answer)[0]
    if code == _UNSUPPORTED_MECHANISM:
        (count,) = struct.unpack_from(">i", answer, 2)
        place, offered = 6, []
        for _ in range(count):
            text, place = _text(answer, place)
            offered.append(text)
        raise _FailedError(
            f"has no {mechanism}; it has {', '.join(offered)}", "set events.sasl_mechanism to one"
        )
    if code:
        raise _FailedError(
            "asks for no login here", 'set events.security_protocol = "PLAINTEXT" (or "SSL")'
        )


def _ask(wire: socket.socket, api: int, version: int, body: bytes = b"") -> bytes | None:
    """The answer to one request without its header; None when the connection ends instead.

    Raises:
        _FailedError: there is no answer in time, or it is in TLS.
    """
    client = b"bandit-router"
    request = struct.pack(">hhih", api, version, 1, len(client)) + client + body
    try:
        wire.sendall(struct.pack(">i", len(request)) + request)
        size = _read(wire, 4)
        if size[0] == _TLS_ALERT:
            raise _FailedError("speaks TLS", 'set events.security_protocol = "SSL" or "SASL_SSL"')
        (length,) = struct.unpack(">i", size)
        return _read(wire, length)[4:] if 4 <= length <= _MAX_ANSWER_BYTES else None
    except TimeoutError as error:
        mend = "see what the broker is busy with, or check events.bootstrap_servers"
        raise _FailedError("accepts a connection and is silent", mend, retriable=True) from error
    except OSError:
        return None


def _read(wire: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = wire.recv(count - len(data))
        if not piece:
            raise ConnectionResetError
        data += piece
    return bytes(data)


def _text(answer: bytes, place: int) -> tuple[str, int]:
    """The string at ``place``, "" for null, and where the next field begins."""
    (length,) = struct.unpack_from(">h", answer, place)
    end = place + 2 + max(length, 0)
    return answer[place + 2 : end].decode(errors="replace"), end
