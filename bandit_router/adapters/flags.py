"""OpenFeature: the embedded provider over a watched flag file, and any other one.

The embedded provider evaluates with ``openfeature-flagd-core``, whose ``fractional`` hashes the
flag's name and the unit (murmur3 of their CBOR form) and takes the buckets in the order in which
the file lists them. Units keep their buckets only as long as that hash stays the same, which a test
holds.
"""

from __future__ import annotations

import importlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec
from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.tools.flagd.core import FlagdCore
from openfeature.evaluation_context import EvaluationContext
from openfeature.event import EventDetails, ProviderEvent, ProviderEventDetails
from openfeature.exception import GeneralError, OpenFeatureError, TypeMismatchError
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider import AbstractProvider, FeatureProvider, Metadata
from openfeature.provider.no_op_provider import NoOpProvider

from bandit_router.adapters.flag_file import read_bytes
from bandit_router.errors import ConfigError
from bandit_router.rollout.flag_document import FlagState, flag_state, parse

POLL_S = 0.25
"""The file is read so often, so that a change acts far within 2 s on any file system, network
mounts and replaced links included."""

_PROBES = 32
_DECIDING = {
    True: ("state", "variants", "defaultVariant", "targeting"),
    False: ("state", "variants"),
}
"""The keys of a flag that decide, by whether it is on."""

_DOMAINS = itertools.count()


class FileProvider(AbstractProvider):
    """An OpenFeature provider over a flagd-format JSON file, with the last good content kept.

    Args:
        path: the file; it must be good at the start.
        flag: the flag whose changes are watched; other flags of the file are not evaluated.
        poll_s: seconds between two looks.

    Raises:
        ConfigError: the file is missing or broken, or lacks the flag or one of its variants.
    """

    def __init__(self, path: Path, flag: str, *, poll_s: float = POLL_S) -> None:
        super().__init__()
        self._path, self._flag, self._poll_s = path, flag, poll_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._content = b""
        self._problem = ""
        self._counts: Counter[str] = Counter()
        self._changes: list[dict[str, Any]] = []
        content = read_bytes(path)
        self._state, self._core = self._understood(content)
        self._content = content
        self._note(None)

    def get_metadata(self) -> Metadata:
        """The provider's name."""
        return Metadata(name="bandit-router-file")

    def initialize(self, evaluation_context: EvaluationContext) -> None:  # noqa: ARG002 - its API
        """Begin to watch the file."""
        self._thread = threading.Thread(target=self._watch, name="flag-file", daemon=True)
        self._thread.start()

    def shutdown(self) -> None:
        """Stop watching. May be called again."""
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout=2.0)

    def refresh(self) -> None:
        """Look at the file now. What is not good is counted, and the last good content kept."""
        with self._lock:
            try:
                content = read_bytes(self._path)
                if content == self._content and not self._problem:
                    return
                state, core = self._understood(content)
            except ConfigError as error:
                if str(error) != self._problem:
                    self._counts["refused_files"] += 1
                self._problem = str(error)
                return
            self._content, self._problem = content, ""
            changed = state.version != self._state.version
            before, self._state = self._state, state
            if changed:
                # Noted before it is used: no decision made under it can be logged before it.
                self._note(before)
            self._core = core
        if changed:
            self._counts["changes"] += 1
            self.emit_provider_configuration_changed(
                ProviderEventDetails(flags_changed=[self._flag])
            )

    def changes(self) -> list[dict[str, Any]]:
        """What the flag has become since the last call, oldest first; the start is the first."""
        if not self._changes:
            return []
        with self._lock:
            noted, self._changes = self._changes, []
        return noted

    def put_back(self, changes: list[dict[str, Any]]) -> None:
        """Give changes back that could not be logged."""
        with self._lock:
            self._changes[:0] = changes

    def status(self) -> dict[str, Any]:
        """``problem``: why the file is not used as it is, or ""; then the last good one is."""
        with self._lock:
            return {
                "file": str(self._path),
                "enabled": self._state.enabled,
                "percent": self._state.percent,
                "version": self._state.version,
                "problem": self._problem,
                "changes": self._counts["changes"],
                "refused_files": self._counts["refused_files"],
            }

    def variant_of(self, unit_id: str) -> str:
        """The variant of a unit by the file alone, without attributes of a request."""
        return self._core.resolve_string_value(
            self._flag, "static", EvaluationContext(unit_id, {})
        ).value

    def resolve_string_details(
        self,
        flag_key: str,
        default_value: str,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        """The variant of a unit. What else a targeting may raise is OpenFeature's error too."""
        try:
            return self._core.resolve_string_value(flag_key, default_value, evaluation_context)
        except OpenFeatureError:
            raise
        except Exception as error:
            raise GeneralError(str(error) or repr(error)) from error

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,  # noqa: ARG002, FBT001 - OpenFeature's signature
        evaluation_context: EvaluationContext | None = None,  # noqa: ARG002
    ) -> NoReturn:
        """Always an error: the flag is a string."""
        raise TypeMismatchError(f"flag {flag_key!r} is a string: the name of a variant")

    resolve_integer_details = resolve_boolean_details
    resolve_float_details = resolve_boolean_details
    resolve_object_details = resolve_boolean_details

    def _watch(self) -> None:
        while not self._stop.wait(self._poll_s):
            self.refresh()

    def _understood(self, content: bytes) -> tuple[FlagState, FlagdCore]:
        """The state and an evaluator of a file's content, tried on a few units."""
        where = str(self._path)
        document = parse(content, where)
        state = flag_state(document, self._flag, where)
        definition = document["flags"][self._flag]
        # What does not decide cannot do harm: other flags, other keys, and when it is off the rest.
        given = {key: definition[key] for key in _DECIDING[state.enabled] if key in definition}
        evaluators = document.get("$evaluators") if state.enabled else None
        core = FlagdCore()
        try:
            core.set_flags({"flags": {self._flag: given}, "$evaluators": evaluators})
            for number in range(_PROBES):
                core.resolve_string_value(
                    self._flag, "static", EvaluationContext(f"probe-{number}", {})
                )
        except Exception as error:  # a targeting can fail in any way
            raise ConfigError(
                f"{where}: flag {self._flag!r} cannot be evaluated: {str(error) or repr(error)}"
            ) from error
        return state, core

    def _note(self, before: FlagState | None) -> None:
        now = self._state
        moved = None
        if before is not None and before.enabled and now.enabled:
            moved = before.split and now.split and before.split.moved(now.split)
        self._changes.append(
            {
                "flag": self._flag,
                "ts": time.time(),
                "enabled": now.enabled,
                "percent": now.percent,
                "version": now.version,
                "previous": None if before is None else before.version,
                "moved": moved,
                "why": now.why,
            }
        )


class Answer(msgspec.Struct, frozen=True):
    """What a flag says of a unit: a value, or why there is none."""

    value: str
    disabled: bool = False
    error: str = ""


class Flags:
    """Asks one string flag of an OpenFeature provider, under a domain of its own.

    Raises:
        ConfigError: the provider does not start.
    """

    def __init__(self, provider: FeatureProvider, flag: str) -> None:
        self.flag = flag
        self._provider = provider
        self._domain = f"bandit-router-{next(_DOMAINS)}"
        self._noted: list[dict[str, Any]] = []
        try:
            api.set_provider_and_wait(provider, self._domain)
        except Exception as error:  # a foreign provider may raise anything
            self.close()
            raise ConfigError(f"the OpenFeature provider does not start: {error}") from error
        self._client: OpenFeatureClient = api.get_client(self._domain)
        if not isinstance(provider, FileProvider):
            self._client.add_handler(ProviderEvent.PROVIDER_CONFIGURATION_CHANGED, self._on_change)

    def ask(self, unit_id: str, attributes: Mapping[str, str]) -> Answer:
        """The flag's value for a unit. Never raises."""
        details = self._client.get_string_details(
            self.flag, "static", EvaluationContext(unit_id, dict(attributes))
        )
        if details.error_code is not None:
            return Answer("", error=f"{details.error_code}: {details.error_message}")
        return Answer(details.value, disabled=details.reason == Reason.DISABLED)

    def changes(self) -> list[dict[str, Any]]:
        """What has changed since the last call, as data of ``flag_changed``, with its ``ts``."""
        if isinstance(self._provider, FileProvider):
            return self._provider.changes()
        noted, self._noted = self._noted, []
        return noted

    def put_back(self, changes: list[dict[str, Any]]) -> None:
        """Give changes back that could not be logged."""
        if isinstance(self._provider, FileProvider):
            self._provider.put_back(changes)
        else:
            self._noted = changes + self._noted

    def status(self) -> dict[str, Any]:
        """The provider, its state, and for a file what it says."""
        own = self._provider.status() if isinstance(self._provider, FileProvider) else {}
        return {
            "flag": self.flag,
            "provider": self._provider.get_metadata().name,
            "provider_status": self._client.get_provider_status().name,
        } | own

    def close(self) -> None:
        """Give the provider up."""
        if isinstance(self._provider, FileProvider):
            self._provider.shutdown()
        api.set_provider(NoOpProvider(), self._domain)  # the registry shuts the old one down

    def _on_change(self, details: EventDetails) -> None:
        if details.flags_changed is None or self.flag in details.flags_changed:
            self._noted.append(
                {
                    "flag": self.flag,
                    "ts": time.time(),
                    "provider": details.provider_name,
                    "message": details.message or "",
                }
            )


def make_provider(spec: str, options: Mapping[str, Any]) -> FeatureProvider:
    """The provider that ``module:factory`` gives, called with ``options``.

    Raises:
        ConfigError: there is no such factory, or it fails.
    """
    module, _, name = spec.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"rollout.provider {spec!r}: {error}") from error
    try:
        return factory(**options)
    except Exception as error:  # a foreign factory may raise anything
        raise ConfigError(f"rollout.provider {spec!r}: {error}") from error
