"""One open decision with the outcomes that have come for it, and how it closes.

The rules of attribution stand here, free of time and of bookkeeping:

* The action is the model we start with. Its score is that of the answer finally delivered, its
  cost is everything spent until then: failed attempts are charged to it.
* When another model served than the drawn one, and no chain of escalations leads from one to the
  other, the propensity does not describe what happened: the interaction is closed with
  ``learn = False``.
"""

from __future__ import annotations

import math

from bandit_router.events import Completion, ErrorOutcome, Escalation, Feedback, Outcome
from bandit_router.joiner.rules import JoinRules
from bandit_router.reward import Rating, aggregate
from bandit_router.types import Decision, Interaction

Answer = Completion | ErrorOutcome


class Pending:
    """A decision waiting for its outcomes. ``deadline`` is in stream time.

    ``keys`` identifies the accepted outcomes, in order of arrival; ``ratings`` are the scores
    among them that count unless they are withdrawn or of another model (``disputable``).
    """

    __slots__ = (
        "answers",
        "deadline",
        "decision",
        "disputable",
        "escalations",
        "feedback",
        "keys",
        "ratings",
    )

    def __init__(self, decision: Decision, deadline: float) -> None:
        self.decision = decision
        self.deadline = deadline
        self.keys: list[str] = []
        self.answers: list[Answer] = []
        self.escalations: list[Escalation] = []
        self.feedback: list[Feedback] = []
        self.ratings: list[Rating] = []
        self.disputable = False

    def add(self, outcome: Outcome, key: str, score: float | None = None) -> None:
        """Keep the outcome, which is new; ``score`` if it is feedback on the score metric."""
        self.keys.append(key)
        kind = type(outcome)
        if kind is Feedback:
            self.feedback.append(outcome)
            if outcome.retracts or outcome.model:
                self.disputable = True
            if score is not None and not outcome.retracts:
                self.ratings.append((outcome.ts, outcome.feedback_id, score))
        elif kind is Escalation:
            self.escalations.append(outcome)
            self.escalations.sort(key=_attempt_of)
        else:
            self.answers.append(outcome)

    def final_answer(self) -> Answer | None:
        """The answer of the latest attempt; a completion before an error of the same attempt."""
        if len(self.answers) == 1:
            return self.answers[0]
        if not self.answers:
            return None
        last = len(self.escalations) + 1
        return max(self.answers, key=lambda a: (a.attempt or last, type(a) is Completion, a.ts))

    def chain(self, answer: Answer) -> tuple[bool, bool]:
        """(no further escalation is to be expected, the chain leads from the action to the answer).

        Without an attempt number the answer itself says nothing of escalations that are still on
        their way, so a chain that does not lead to the answer counts as unfinished.
        """
        action, served, attempt = self.decision.action, answer.model, answer.attempt
        if not self.escalations:
            if attempt is None:
                return served == action, served == action
            return attempt == 1, attempt == 1 and served == action
        model, linked = action, True
        for number, step in enumerate(self._steps(answer), start=1):
            linked = linked and step.from_model == model and step.attempt == number
            model = step.to_model
        linked = linked and model == served
        if attempt is None:
            return linked, linked
        complete = len(self._steps(answer)) == attempt - 1
        return complete, complete and linked

    def superseded(self, answer: Answer) -> bool:
        """Whether another answer is to be expected: the attempt of this one was escalated.

        So it is when an answer was delivered and the user asked again (``user_reask``). From a
        person who takes over (``user_handoff``) no answer is to be expected.
        """
        attempt = answer.attempt
        return attempt is not None and any(
            step.attempt >= attempt and step.reason != "user_handoff" for step in self.escalations
        )

    def _steps(self, answer: Answer) -> list[Escalation]:
        """The escalations before the answer."""
        if answer.attempt is None:
            return self.escalations
        return [step for step in self.escalations if step.attempt < answer.attempt]

    def cost_usd(self, answer: Answer) -> float | None:
        """Everything spent until the answer; None when one part of it is unknown.

        An attempt that was delivered first and escalated later (``user_reask``) has both a
        completion and an escalation: its completion's cost counts, once.
        """
        if not self.escalations and len(self.answers) == 1:
            return answer.cost_usd
        steps = self._steps(answer)
        last = answer.attempt or len(steps) + 1
        spent: dict[float, float | None] = {step.attempt: step.cost_usd for step in steps}
        for other in self.answers:
            number = other.attempt or _attempt_by_model(steps, other.model)
            if number < last:
                spent[number] = other.cost_usd
        spent[last] = answer.cost_usd
        costs = list(spent.values())
        return None if None in costs else math.fsum(costs)  # type: ignore[arg-type]

    def undisputed(self, served: str | None) -> list[Rating]:
        """The ratings that were not withdrawn, and are not of another model than ``served``."""
        if not self.disputable:
            return self.ratings
        out = {f.retracts for f in self.feedback if f.retracts}
        if served is not None:
            out |= {f.feedback_id for f in self.feedback if f.model and f.model != served}
        return [rating for rating in self.ratings if rating[1] not in out]

    def misattributed(self) -> list[Feedback]:
        """Feedback on a model that is known not to have served."""
        answer = self.final_answer()
        if answer is None:
            return []
        return [f for f in self.feedback if f.model and f.model != answer.model]

    def finished(self, rules: JoinRules) -> Interaction | None:
        """The interaction, if its answer and its score are there and nothing is missing."""
        answer = self.final_answer()
        if answer is None or self.superseded(answer):
            return None
        ratings = self.undisputed(answer.model)
        if not ratings and type(answer) is Completion:
            return None
        complete, on_action = self.chain(answer)
        if not complete:
            return None
        closed_ts = max(self.decision.ts, answer.ts)
        for step in self.escalations:
            closed_ts = max(closed_ts, step.ts)
        for rating in ratings:
            closed_ts = max(closed_ts, rating[0])
        return self._interaction(rules, answer, ratings, closed_ts, on_action)

    def missing(self) -> tuple[str, ...]:
        """What :meth:`finished` waits for: ``answer``, ``score``, ``escalation``."""
        answer = self.final_answer()
        waits = {
            "answer": answer is None or self.superseded(answer),
            "score": type(answer) is not ErrorOutcome
            and not self.undisputed(answer.model if answer else None),
            "escalation": answer is not None and not self.chain(answer)[0],
        }
        return tuple(what for what, is_missing in waits.items() if is_missing)

    def expired(self, rules: JoinRules) -> Interaction:
        """The interaction as it stands at the end of its window."""
        answer = self.final_answer()
        on_action = not rules.require_completion
        if answer is not None:
            complete, linked = self.chain(answer)
            on_action = complete and linked
        ratings = self.undisputed(answer.model if answer else None)
        closed_ts = self.decision.ts + rules.window_s
        return self._interaction(rules, answer, ratings, closed_ts, on_action)

    def _interaction(
        self,
        rules: JoinRules,
        answer: Answer | None,
        ratings: list[Rating],
        closed_ts: float,
        on_action: bool,  # noqa: FBT001 - private, always given by position
    ) -> Interaction:
        decision = self.decision
        if ratings:
            score: float | None = aggregate(rules.aggregation, ratings)
        else:
            score = rules.error_score if type(answer) is ErrorOutcome else rules.default_score
        return Interaction(
            event_id=decision.event_id,
            ts=decision.ts,
            closed_ts=closed_ts,
            features=decision.features,
            eligible=decision.eligible,
            pmf=decision.pmf,
            action=decision.action,
            propensity=decision.propensity,
            slice=decision.slice,
            quality_value_usd=decision.quality_value_usd,
            score=score,
            cost_usd=None if answer is None else self.cost_usd(answer),
            latency_s=None if answer is None else answer.latency_s,
            escalations=tuple([step.reason for step in self.escalations]),
            learn=decision.learn and on_action,
            app=decision.app,
            unit_id=decision.unit_id,
            tenant=decision.tenant,
            variant=decision.variant,
        )


def key_of(outcome: Outcome) -> str:
    """What identifies an outcome within its decision."""
    if type(outcome) is Feedback:
        return outcome.feedback_id
    if type(outcome) is Escalation:
        return f"\0escalation:{outcome.attempt}"
    kind = "completion" if type(outcome) is Completion else "error"
    return f"\0{kind}:{outcome.attempt or outcome.model}"


def _attempt_by_model(steps: list[Escalation], model: str) -> float:
    """The attempt that ``model`` made before it was escalated; infinite when it was not."""
    return next((step.attempt for step in steps if step.from_model == model), math.inf)


def _attempt_of(step: Escalation) -> int:
    return step.attempt
