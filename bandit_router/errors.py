"""Every error this package raises on purpose, in one tree.

    BanditRouterError
    ├── InputError              the caller's input is wrong; retrying cannot help (CLI exit 2)
    │   ├── ConfigError         a configuration file, key or combination of keys
    │   ├── LogFormatError      an outcome table or interaction log: names file, row and column
    │   ├── CatalogError        an unknown, duplicate or unpriced model
    │   ├── UnknownPolicyError  a policy name that is not registered
    │   └── EventError          an event that cannot be decoded or breaks the schema
    ├── PolicyError             a policy failed in the midst of learning a row
    ├── DecisionError           no decision can be made (no eligible model, non-finite utilities)
    ├── SnapshotError           a snapshot that must not be loaded (hash, HMAC, options, probe)
    ├── StorageError            the log or the snapshot store failed; a retry can help
    │   └── OutboxFullError     too much waits to be sent; nothing is taken until some of it is
    ├── TransportError          the message broker cannot be reached or refused; a retry can help
    ├── FencedError             another learner has taken over; this one must stop
    └── DependencyError         an optional package or a shipped artefact is missing or damaged

Foreign exceptions are translated at the border (``adapters/``) into the most specific class here,
with ``raise ... from``. ``retriable`` says whether the same call can succeed later unchanged.
"""

from __future__ import annotations


class BanditRouterError(Exception):
    """Base of every deliberate error of this package.

    ``retriable`` (class attribute): True when the same call, unchanged, may succeed later.
    """

    retriable: bool = False


class InputError(BanditRouterError, ValueError):
    """The input is wrong: what was wrong, where, and how to mend it stand in the message."""


class ConfigError(InputError):
    """A configuration file, key, value or combination of keys is wrong."""


class LogFormatError(InputError):
    """A log file breaks its format.

    Args:
        message: what is wrong and how to mend it.
        path: the file, when known.
        row: 1-based data row (header not counted), when known.
        column: the column, when known.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        row: int | None = None,
        column: str | None = None,
    ) -> None:
        where = [path or ""]
        if row is not None:
            where.append(f"row {row}")
        if column is not None:
            where.append(f"column {column!r}")
        prefix = ", ".join(part for part in where if part)
        super().__init__(f"{prefix}: {message}" if prefix else message)
        self.path, self.row, self.column = path, row, column


class CatalogError(InputError):
    """A model is unknown, listed twice, or has no usable price."""


class UnknownPolicyError(InputError):
    """No policy has that name."""


class EventError(InputError):
    """An event cannot be decoded, has an unknown schema version, or breaks a field's range.

    Args:
        message: what is wrong.
        reason: a short stable token for counters and dead letters (``undecodable``,
            ``unknown_version``, ``oversize``, ``null``, ``invalid``).
    """

    def __init__(self, message: str, *, reason: str = "invalid") -> None:
        super().__init__(message)
        self.reason = reason


class PolicyError(BanditRouterError):
    """A policy failed in the midst of learning a row; what state it is in nobody knows.

    Go on from an earlier state, and refuse that row (``Learner.refused``).

    Args:
        message: what happened.
        row: names the row, as :func:`bandit_router.learner.row_name` does.
    """

    def __init__(self, message: str, *, row: str = "") -> None:
        super().__init__(message)
        self.row = row


class DecisionError(BanditRouterError):
    """No decision can be made for this context."""


class SnapshotError(BanditRouterError):
    """A snapshot failed verification and was not loaded.

    Args:
        message: what is wrong.
        reason: a short stable token for counters: ``damaged``, ``truncated``, ``size``,
            ``unsigned``, ``bad_hmac``, ``unknown_version``, ``bad_option``, ``wrong_features``,
            ``bad_pmf``, ``old_epoch``, ``old_state``, ``wrong_app``, ``symlink`` or ``unusable``.
    """

    def __init__(self, message: str, *, reason: str = "damaged") -> None:
        super().__init__(message)
        self.reason = reason


class StorageError(BanditRouterError):
    """The event log or snapshot store failed (locked, disk full, unreadable)."""

    retriable = True


class OutboxFullError(StorageError):
    """The outbox has no room: more waits to be sent than it may hold."""


class TransportError(BanditRouterError):
    """The message broker cannot be reached, or refused; ``retriable`` says whether to try again."""

    retriable = True


class FencedError(BanditRouterError):
    """Another learner has taken over an app: what this one would write is void."""


class DependencyError(BanditRouterError):
    """An optional package or a shipped artefact is missing or damaged."""
