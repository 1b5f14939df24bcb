"""An experiment in one process: units are decided, answered and judged as a test says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from bandit_router.cli import app as cli
from bandit_router.config import load_settings
from bandit_router.events import Completion, ErrorOutcome, Escalation, Feedback, Outcome
from bandit_router.live import Live, open_live
from bandit_router.types import Context, Decision

CONFIG = """
[app]
name = "shop"
[policy]
name = "fixed:new"
quality_value_usd = 0.02
[joiner]
window_s = 50.0
slack_s = 1.0
[rollout]
flags = "flags.json"
incumbent = "old"
[store]
path = "log.db"
[[models]]
model = "old"
expected_cost_usd = 0.001
[[models]]
model = "new"
expected_cost_usd = 0.001
"""

Answer = Callable[[Decision, np.random.Generator], list[Outcome]]


def written(folder: Path, more: str = "") -> Path:
    """A configuration file; ``more`` goes before its models."""
    file = folder / "config.toml"
    file.write_text(CONFIG.replace("[[models]]", more + "\n[[models]]", 1))
    return file


def call(config: Path, *words: str, code: int = 0) -> dict:
    """A command as a person would call it."""
    result = CliRunner().invoke(cli.app, [*words, "--config", str(config), "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.output)


def opened(config: Path) -> Live:
    return open_live(load_settings(config), embed=False)


def query(number: int, unit_id: str = "") -> Context:
    vector = np.zeros(384, dtype=np.float32)
    vector[number % 384] = 1.0
    return Context(
        event_id=f"e{number}",
        ts=float(number),
        prompt="?",
        embedding=vector,
        unit_id=unit_id or f"user-{number}",
    )


def answered(decision: Decision, cost_usd: float = 0.001, attempt: int = 1) -> Completion:
    return Completion(
        event_id=decision.event_id,
        ts=decision.ts,
        app="shop",
        model=decision.action,
        cost_usd=cost_usd,
        attempt=attempt,
    )


def judged(decision: Decision, value: float) -> Feedback:
    return Feedback(
        event_id=decision.event_id,
        ts=decision.ts,
        app="shop",
        metric="score",
        value=value,
        feedback_id="f",
    )


def failed(decision: Decision) -> ErrorOutcome:
    return ErrorOutcome(
        event_id=decision.event_id, ts=decision.ts, app="shop", model=decision.action
    )


def retried(decision: Decision) -> list[Outcome]:
    """A first attempt that failed, and a second one by the same model."""
    step = Escalation(
        event_id=decision.event_id,
        ts=decision.ts,
        app="shop",
        from_model=decision.action,
        to_model=decision.action,
        reason="timeout",
        cost_usd=0.0,
        attempt=1,
    )
    return [step, answered(decision, attempt=2)]


def good(chance: dict[str, float], cost: dict[str, float] | None = None) -> Answer:
    """Right with a chance, at a cost, by the model that served."""

    def outcomes(decision: Decision, rng: np.random.Generator) -> list[Outcome]:
        spent = (cost or {}).get(decision.action, 0.001)
        value = float(rng.random() < chance[decision.action])
        return [answered(decision, spent), judged(decision, value)]

    return outcomes


def traffic(router: Live, numbers: range, answer: Answer, seed: int = 0) -> list[Decision]:
    """One request of a new unit after the other, each answered at once."""
    rng = np.random.default_rng(seed)
    decisions = []
    for number in numbers:
        decision = router.decide(query(number))
        outcomes = answer(decision, rng)
        if outcomes:
            router.record(outcomes)
        decisions.append(decision)
    return decisions
