"""The vocabulary as frozen values. Units stand in the names; nothing here does I/O.

Arrays inside these values are read-only by convention: whoever receives one never writes to it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np

Slice = Literal["policy", "explore", "forced"]
"""Which part of the pmf drew the action: the policy's own share, the epsilon share, or neither."""


class Context(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What is known of a query before any model is called (x).

    Attributes:
        event_id: unique id of the decision to be made (UUIDv7 text in production).
        ts: event time, seconds since the Unix epoch.
        prompt: the query text; any text is fine, including empty.
        app: owner of the policy; one app has one learner.
        unit_id: who is bucketed in experiments (user, conversation, ...).
        tenant: for entitlement, budgets and segments.
        columns: free request metadata (``task``, ``language``, ``tier``, ...).
        embedding: precomputed sentence embedding, shape (e,), or None to let the featurizer embed.
        max_output_tokens: output asked for, when known.
    """

    event_id: str
    ts: float
    prompt: str = ""
    app: str = "default"
    unit_id: str = ""
    tenant: str = ""
    columns: dict[str, str] = {}
    embedding: np.ndarray | None = None
    max_output_tokens: int | None = None


class Features(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The numbers and tokens a policy sees: logged with the decision, never recomputed in replay.

    Attributes:
        dense: shape (d,), float64 holding float32-representable values, all finite.
        ngrams: hashed prompt n-grams, each in [0, 2**18), distinct, ascending.
        columns: normalised context columns (bounded in number and length).
    """

    dense: np.ndarray
    ngrams: tuple[int, ...] = ()
    columns: dict[str, str] = {}


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A policy's view of one context: aligned arrays over the eligible actions, shape (K,).

    Attributes:
        pmf: probabilities; sum to 1 within 1e-9; each at least ``epsilon / K``.
        epsilon: the share of the uniform distribution mixed into ``pmf``.
        score: predicted mean score in [0, 1].
        cost_usd: predicted mean cost in USD, > 0.
        utility: ``score - cost_usd / quality_value_usd`` (plus further terms), in units of score.
    """

    pmf: np.ndarray
    epsilon: float
    score: np.ndarray
    cost_usd: np.ndarray
    utility: np.ndarray


class Decision(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One logged choice. ``pmf`` is the distribution that was sampled, aligned with ``eligible``.

    ``propensity == pmf[eligible.index(action)]`` unless ``slice == "forced"``, where it is 1 and
    ``learn`` is False. In the variant ``shadow`` the pmf is what would have been drawn from, and
    what served is forced (:mod:`bandit_router.rollout.variants`). ``learn_seq`` and ``snapshot_id``
    name the exact policy state: the stored snapshot, plus the training rows after it up to and
    including ``learn_seq``.
    """

    event_id: str
    ts: float
    features: Features
    featurizer_id: str
    eligible: tuple[str, ...]
    pmf: tuple[float, ...]
    action: str
    propensity: float
    slice: Slice
    quality_value_usd: float
    epsilon: float
    predicted_score: tuple[float, ...]
    predicted_cost_usd: tuple[float, ...]
    snapshot_id: str
    learn_seq: int
    app: str = "default"
    unit_id: str = ""
    tenant: str = ""
    variant: str = "bandit"
    learn: bool = True
    rules: tuple[str, ...] = ()
    prompt_digest: str = ""
    prompt: str | None = None


class Interaction(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A decision joined with its outcomes: what a policy learns from.

    Attributes:
        score: of the answer finally delivered, in [0, 1]; None when no feedback came in the
            attribution window (the cost is still learned).
        cost_usd: everything spent until the answer was delivered, rescue included; None if unknown.
        latency_s: wall time of the answer, seconds; None if unknown.
        escalations: reasons of failed attempts, in order.
        ts: event time of the decision, seconds since the Unix epoch.
        closed_ts: event time at which the joiner closed the interaction.
    """

    event_id: str
    ts: float
    closed_ts: float
    features: Features
    eligible: tuple[str, ...]
    pmf: tuple[float, ...]
    action: str
    propensity: float
    slice: Slice
    quality_value_usd: float
    score: float | None
    cost_usd: float | None
    latency_s: float | None = None
    escalations: tuple[str, ...] = ()
    learn: bool = True
    app: str = "default"
    unit_id: str = ""
    tenant: str = ""
    variant: str = "bandit"


JsonDict = dict[str, Any]
