"""Recompute a stored decision, and say what drew it."""

from __future__ import annotations

import msgspec

from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.errors import InputError, SnapshotError
from bandit_router.loop import MemorySink
from bandit_router.policy.base import sample, uniforms
from bandit_router.rollout.variants import uniform, would_be
from bandit_router.store_ops.resume import SALT, PolicyMaker, fresh_loop, policy_of, relearned
from bandit_router.types import Decision, Evaluation


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """What one model looked like to the policy, in units of score and USD."""

    model: str
    score: float
    cost_usd: float
    utility: float
    probability: float
    logged_probability: float


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A stored decision beside its recomputation.

    Attributes:
        decision: as it was logged.
        snapshot_id: the snapshot that the recomputation started from.
        relearned_rows: training rows applied after it.
        models: per eligible model, as recomputed.
        pmf_identical: the recomputed pmf equals the logged one in every bit.
        predictions_identical: so do the recomputed scores and costs, where they were logged.
        draw_identical: drawing from it again gives the same action from the same slice; in the
            variant ``shadow`` the action that the bandit would have drawn.
        drawn_by: what chose the action, in words.
    """

    decision: Decision
    snapshot_id: str
    relearned_rows: int
    models: tuple[ModelView, ...]
    pmf_identical: bool
    predictions_identical: bool
    draw_identical: bool
    drawn_by: str

    @property
    def identical(self) -> bool:
        """The decision is what its inputs say it must have been."""
        return self.pmf_identical and self.predictions_identical and self.draw_identical


def explain(
    store: SqliteStore,
    event_id: str,
    *,
    key: bytes | None = None,
    make: PolicyMaker = policy_of,
) -> Explanation:
    """Recompute a stored decision from the snapshot before it and the training rows in between.

    Raises:
        InputError: there is no such decision, the store does not know its salt, or its training
            log does not reach up to the decision.
        SnapshotError: no snapshot at or before the decision verifies.
    """
    decision = store.decision(event_id)
    if decision is None:
        raise InputError(f"{store.path} has no decision {event_id!r:.80}")
    salt = store.get_meta(SALT)
    if salt is None:
        raise InputError(f"{store.path} does not say with which salt its decisions were drawn")
    start = next(store.snapshots(at_most=decision.learn_seq, key=key), None)
    if start is None:
        raise SnapshotError(f"{store.path} has no usable snapshot from before the decision")
    learner = fresh_loop(start.manifest.recipe, MemorySink(), make).learner
    learner.load(start.learner)
    relearned(store, learner, decision.learn_seq)
    evaluation = learner.policy.evaluate(
        decision.features, decision.eligible, decision.quality_value_usd
    )
    shadowed = would_be(decision)
    if decision.slice == "explore" and decision.variant == "explore":
        evaluation = uniform(evaluation)
    pmf = tuple(evaluation.pmf.tolist())
    if shadowed is not None:
        same_pmf = pmf == decision.pmf and evaluation.epsilon == decision.epsilon
        same_draw = decision.eligible[sample(evaluation, salt, event_id)[0]] == shadowed
    elif decision.slice == "forced":
        same_pmf = same_draw = decision.pmf == (1.0,) and decision.eligible == (decision.action,)
    else:
        same_pmf = pmf == decision.pmf and evaluation.epsilon == decision.epsilon
        index, part = sample(evaluation, salt, event_id)
        same_draw = (decision.eligible[index], part) == (decision.action, decision.slice)
    return Explanation(
        decision=decision,
        snapshot_id=start.id,
        relearned_rows=decision.learn_seq - start.manifest.learn_seq,
        models=_views(decision, evaluation),
        pmf_identical=same_pmf,
        predictions_identical=(
            decision.predicted_score in ((), tuple(evaluation.score.tolist()))
            and decision.predicted_cost_usd in ((), tuple(evaluation.cost_usd.tolist()))
        ),
        draw_identical=same_draw,
        drawn_by=drawn_by(decision, salt),
    )


def _views(decision: Decision, evaluation: Evaluation) -> tuple[ModelView, ...]:
    return tuple(
        ModelView(
            model=model,
            score=float(evaluation.score[i]),
            cost_usd=float(evaluation.cost_usd[i]),
            utility=float(evaluation.utility[i]),
            probability=float(evaluation.pmf[i]),
            logged_probability=decision.pmf[i],
        )
        for i, model in enumerate(decision.eligible)
    )


def drawn_by(decision: Decision, salt: str) -> str:
    """What chose the action of a decision, in words; ``salt`` is the one it was drawn with."""
    action, k = decision.action, len(decision.eligible)
    if decision.slice == "forced":
        why = ", ".join(decision.rules) or "no rule was logged"
        shadowed = would_be(decision)
        beside = "" if shadowed is None else f"; the bandit would have drawn {shadowed}"
        return f"{action} was not drawn but forced ({why}); nothing is learned from it{beside}"
    part, point = uniforms(salt, decision.event_id)
    drawn = f"{action} was drawn with probability {decision.propensity:.4f}"
    if decision.slice == "explore":
        return (
            f"{drawn}, by the exploration share: its number {part:.4f} is below epsilon "
            f"{decision.epsilon:.4f}, so each of the {k} eligible models was equally likely"
        )
    return (
        f"{drawn}, by the policy's own share: its number {part:.4f} is not below epsilon "
        f"{decision.epsilon:.4f}, and {point:.4f} falls on this model in the cumulated pmf"
    )
