"""Events for tests: single ones with defaults, and whole seeded streams."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from bandit_router.events import Completion, Escalation, Event, Feedback
from bandit_router.models import Catalog, ModelSpec
from bandit_router.router import Router
from bandit_router.types import Context, Decision, Features

MODELS = ("a", "b", "c")
SALT = "test-salt"
DIMENSION = 4


def catalog(models: tuple[str, ...] = MODELS) -> Catalog:
    """Models of which each is dearer than the one before."""
    return Catalog(
        ModelSpec(model=model, expected_cost_usd=0.001 * 4.0**i) for i, model in enumerate(models)
    )


def features(seed: int = 0) -> Features:
    """A standard normal context of :data:`DIMENSION` dimensions."""
    dense = np.random.default_rng(seed).standard_normal(DIMENSION).astype(np.float32)
    return Features(dense=dense.astype(np.float64))


def decision(event_id: str = "d", ts: float = 0.0, **fields: Any) -> Decision:
    """A valid decision for ``b`` among a, b and c."""
    defaults: dict[str, Any] = {
        "features": features(),
        "featurizer_id": "test",
        "eligible": MODELS,
        "pmf": (0.25, 0.5, 0.25),
        "action": "b",
        "propensity": 0.5,
        "slice": "policy",
        "quality_value_usd": 0.05,
        "epsilon": 0.02,
        "predicted_score": (0.5, 0.6, 0.7),
        "predicted_cost_usd": (0.001, 0.004, 0.016),
        "snapshot_id": "",
        "learn_seq": 0,
    }
    return Decision(event_id=event_id, ts=ts, **(defaults | fields))


def completion(event_id: str = "d", ts: float = 1.0, **fields: Any) -> Completion:
    """The drawn model answered."""
    defaults = {"model": "b", "cost_usd": 0.004, "latency_s": 0.8}
    return Completion(event_id=event_id, ts=ts, **(defaults | fields))


def feedback(event_id: str = "d", ts: float = 2.0, **fields: Any) -> Feedback:
    """Somebody liked the answer."""
    defaults = {"metric": "score", "value": 1.0, "source": "test", "feedback_id": "f"}
    return Feedback(event_id=event_id, ts=ts, **(defaults | fields))


def escalation(event_id: str = "d", ts: float = 0.5, **fields: Any) -> Escalation:
    """The drawn model failed, the dearest takes over."""
    defaults = {"from_model": "b", "to_model": "c", "reason": "invalid_json", "cost_usd": 0.004}
    return Escalation(event_id=event_id, ts=ts, **(defaults | fields))


class NoFeaturizer:
    """Stands where a featurizer stands; these tests give the features."""

    featurizer_id = "test"

    def features(self, context: Context) -> Features:
        raise AssertionError(f"{context.event_id} came without features")


def router_for(learner: Any, **options: Any) -> Router:
    """A router over the learner's policy, pacer and state."""
    return Router(
        learner.policy,
        NoFeaturizer(),
        learner.catalog,
        salt=SALT,
        quality_value_usd=lambda: learner.pacer.quality_value_usd,
        state=learner,
        **options,
    )


def outcomes(chosen: Decision, seed: int) -> list[Event]:
    """What comes back for a decision, drawn from its seed: answers, escalations, feedback twice."""
    rng = random.Random(seed)
    i = MODELS.index(chosen.action)
    ts, event_id = chosen.ts, chosen.event_id
    found: list[Event] = []
    served, attempt = chosen.action, 1
    if rng.random() < 0.2 and served != "c":
        found.append(
            escalation(event_id, ts + 0.2, from_model=served, to_model="c", cost_usd=0.001 * 4.0**i)
        )
        served, attempt, i = "c", 2, 2
    cost = 0.001 * 4.0**i * rng.uniform(0.5, 2.0)
    found.append(completion(event_id, ts + 0.5, model=served, cost_usd=cost, attempt=attempt))
    if rng.random() < 0.9:
        score = 1.0 if rng.random() < 0.4 + 0.25 * i else 0.0
        judged = feedback(event_id, ts + rng.uniform(1.0, 8.0), value=score)
        found += [judged] * rng.choice((1, 1, 2))
    return found
