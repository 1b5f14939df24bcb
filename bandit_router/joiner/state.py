"""The joiner's state as bytes."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from bandit_router.errors import SnapshotError
from bandit_router.events import Completion, ErrorOutcome, Escalation, Feedback, Outcome
from bandit_router.joiner.clock import ClockState
from bandit_router.joiner.pending import Pending
from bandit_router.joiner.rules import JoinRules
from bandit_router.types import Decision


class PendingState(msgspec.Struct, array_like=True):
    """One open decision."""

    deadline: float
    decision: Decision
    keys: list[str]
    answers: list[Completion | ErrorOutcome]
    escalations: list[Escalation]
    feedback: list[Feedback]
    ratings: list[tuple[float, str, float]]
    disputable: bool

    @classmethod
    def of(cls, pending: Pending) -> PendingState:
        """The state of ``pending``."""
        return cls(
            pending.deadline,
            pending.decision,
            pending.keys,
            pending.answers,
            pending.escalations,
            pending.feedback,
            pending.ratings,
            pending.disputable,
        )

    def pending(self) -> Pending:
        """The open decision that has this state."""
        pending = Pending(self.decision, self.deadline)
        pending.keys = self.keys
        pending.answers = self.answers
        pending.escalations = self.escalations
        pending.feedback = self.feedback
        pending.ratings = self.ratings
        pending.disputable = self.disputable
        return pending


class Early(msgspec.Struct, array_like=True):
    """Outcomes that came before their decision. ``deadline`` is in stream time."""

    event_id: str
    deadline: float
    outcomes: list[Outcome]


class Closed(msgspec.Struct, array_like=True):
    """A closed decision, remembered until ``deadline`` (stream time) to tell duplicates.

    ``keys`` identifies the outcomes that it had.
    """

    event_id: str
    deadline: float
    keys: tuple[str, ...]


class JoinerState(msgspec.Struct, kw_only=True):
    """Everything a joiner knows. Order matters: it is the order in which things will close."""

    rules: JoinRules
    clock: ClockState
    counts: dict[str, int]
    open: list[PendingState]
    early: list[Early]
    closed: list[Closed]
    ahead: list[tuple[float, str]]

    def encode(self) -> bytes:
        """The state as bytes; equal states give equal bytes."""
        return _encoder.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> JoinerState:
        """The inverse of :meth:`encode`. Raises SnapshotError on anything else."""
        try:
            return _decoder.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise SnapshotError(f"not a joiner's state: {error}") from error


def _array_to_bytes(value: Any) -> bytes:
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return value.astype("<f8", copy=False).tobytes()
    raise TypeError(f"a {type(value).__name__} has no place in a joiner's state")


def _bytes_to_array(kind: type, value: Any) -> Any:
    if kind is np.ndarray and isinstance(value, bytes):
        return np.frombuffer(value, dtype="<f8").astype(np.float64)
    raise ValueError(f"cannot make a {kind.__name__} of a {type(value).__name__}")


_encoder = msgspec.msgpack.Encoder(enc_hook=_array_to_bytes)
_decoder = msgspec.msgpack.Decoder(JoinerState, dec_hook=_bytes_to_array)
