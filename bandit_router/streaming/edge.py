"""A router over Kafka: decides with the last good snapshot, and logs to the outbox.

A request touches two things: the policy in memory and the outbox file. What is in the outbox a
relay sends, in a process of its own; new snapshots come from the follower's thread. Neither is ever
waited for. Without a log there is no exploration: when the outbox takes nothing (full, disk full,
locked), the safe model serves, and the decision says so; when it takes events again, drawing goes
on.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, Self

import msgspec

from bandit_router.adapters.kafka.client import CHANGES, DECISIONS, OUTCOMES
from bandit_router.adapters.kafka.relay_process import RelayProcess
from bandit_router.adapters.outbox import Outbox, Outgoing
from bandit_router.assigning import Assigner, open_assigner
from bandit_router.bootstrap import make_connection, make_featurizer
from bandit_router.config import Settings
from bandit_router.eligibility import Eligibility
from bandit_router.errors import ConfigError, InputError, StorageError
from bandit_router.events import Outcome, clean_text, encode
from bandit_router.features.featurizer import Featurizer
from bandit_router.learner import Learner
from bandit_router.live import check_values, configured_policy, recipe_of
from bandit_router.loop import MemorySink
from bandit_router.rollout.variants import Assignment
from bandit_router.router import FixedState, Router
from bandit_router.snapshot import Recipe
from bandit_router.snapshot.probe import probe
from bandit_router.store_ops import fresh_loop
from bandit_router.streaming.following import Served, open_follower
from bandit_router.types import Context, Decision

OUTBOX_UNAVAILABLE = "outbox_unavailable"
"""The rule of a decision that could not be logged, so that nothing was drawn."""

REMEMBERED = 100_000
"""Decisions whose app is remembered for their outcomes."""

_NOT_LOGGED = ""


class Companion(Protocol):
    """What runs beside the requests: the relay, the follower."""

    def status(self) -> dict[str, Any]:
        """How it stands."""
        ...

    def close(self) -> None:
        """End it."""
        ...


@dataclass(frozen=True)
class _Serving:
    """What an app's requests are decided with, and what it was made from."""

    router: Router
    snapshot_id: str
    learn_seq: int
    epoch: int
    since: float


class Edge:
    """Decides and logs for the apps of the settings. Any thread may call it.

    It has the surface of :class:`~bandit_router.live.Live`, without what needs the learner's store:
    nobody here knows what becomes of an outcome. Make it with :func:`open_edge`; it is a context
    manager.

    A large app is split into shards ``NAME/0``, ``NAME/1``...: a unit always meets the same one, a
    request without ``unit_id`` that of its event id. An outcome belongs to the shard of its
    decision. Of the last :data:`REMEMBERED` decisions it is known here; outcomes of others, or of
    decisions that another process has made, must carry ``Decision.app`` as their ``app``.

    Args:
        settings: who decides, with what.
        featurizer: gives the features.
        recipe: what the untrained policy is made from, which serves until there is a snapshot.
        outbox: takes the events; it is closed with the edge.
        eligibility: masks before the pmf; None for none.
        assigner: the rollout, closed with the edge; None: the bandit serves everybody.

    Attributes:
        app: the name in the settings.
        apps: it, or its shards.
    """

    def __init__(
        self,
        settings: Settings,
        featurizer: Featurizer,
        recipe: Recipe,
        outbox: Outbox,
        *,
        eligibility: Eligibility | None = None,
        assigner: Assigner | None = None,
    ) -> None:
        self.app, self.apps = settings.app.name, settings.apps
        self._settings, self._featurizer = settings, featurizer
        self._eligibility = eligibility
        self._rules = settings.join_rules
        self._safe_model = settings.app.safe_model
        self._outbox = outbox
        self._lock = threading.Lock()
        self._recent: OrderedDict[str, str] = OrderedDict()
        self._counts: Counter[str] = Counter()
        self._unusable = 0
        self._alarm = ""
        self._companions: dict[str, Companion] = {}
        self._resources = ExitStack()
        self._resources.callback(outbox.close)
        self._assigner = assigner
        self._flag_lock = threading.Lock()
        if assigner is not None:
            self._resources.callback(assigner.close)
        self._serving: dict[str, _Serving] = {}
        for app in self.apps:
            learner = fresh_loop(
                msgspec.structs.replace(recipe, app=app), MemorySink(), configured_policy
            ).learner
            # Also loads what the first evaluation of a process loads: .3 s that no request waits.
            probe(learner.policy, learner.catalog, recipe.dimension, recipe.quality_value_usd)
            self._serve(app, learner, "", 0, 0)

    def attach(self, name: str, companion: Companion) -> None:
        """Show a companion's status under ``name``, and close it first when the edge is closed."""
        self._companions[name] = companion
        self._resources.callback(companion.close)

    def swap(self, app: str, served: Served) -> None:
        """Decide with a new state from the next request on: one assignment, nobody waits."""
        self._serve(app, served.learner, served.snapshot_id, served.learn_seq, served.epoch)

    def app_of(self, context: Context) -> str:
        """The app, or shard, that decides a request."""
        shards = self._settings.events.shards
        if shards == 1:
            return self.apps[0]
        unit = context.unit_id or context.event_id
        digest = hashlib.blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return self.apps[int.from_bytes(digest, "big") % shards]

    def decide(
        self,
        context: Context,
        *,
        forced: str | None = None,
        quality_value_usd: float | None = None,
    ) -> Decision:
        """Draw a model, and put the decision into the outbox. When it returns, both are done.

        When the outbox takes nothing, ``app.safe_model`` serves, or the first eligible model where
        that is not eligible: forced, not logged, not learned from, with the rule
        ``outbox_unavailable``.

        With a rollout the variant of the request's unit serves. A change of its flag is in the
        outbox before the first decision that was made under it.

        Args:
            context, forced, quality_value_usd: as :meth:`Router.decide` takes them.

        Raises:
            InputError: a decision of that event_id was made here lately, or a value is wrong.
            DecisionError: no model is eligible.
        """
        app = self.app_of(context)
        assignment = None if self._assigner is None else self._assigner.assign(context)
        with self._lock:
            if self._recent.get(clean_text(context.event_id)):
                raise InputError(f"there is a decision {context.event_id!r:.80} already")
            router = self._serving[app].router
            decision = router.decide(
                context, forced=forced, quality_value_usd=quality_value_usd, assignment=assignment
            )
            payload = encode(decision)
            self._remember(decision.event_id, app)
        try:
            self._log_flag_changes()
            self._outbox.put([Outgoing(DECISIONS, app, payload)])
        except StorageError as error:
            with self._lock:
                return self._unlogged(context, router, decision, error, assignment)
        with self._lock:
            self._counts["decisions"] += 1
            self._alarm = ""
        return decision

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Put outcomes into the outbox, all or none. When it returns, they will be delivered.

        Whether there is such a decision, only the learner knows. Outcomes of a decision that was
        not logged have nothing to be joined with: they are counted and dropped.

        Raises:
            InputError: a metric is unknown, a value out of its range, or the app is not one of this
                router's; nothing was taken.
            StorageError: the outbox takes nothing; nothing was taken.
        """
        records = []
        dropped = 0
        for outcome in outcomes:
            check_values(outcome, self._rules)
            app = self._app_of_outcome(outcome)
            if app == _NOT_LOGGED:
                dropped += 1
                continue
            if outcome.app != app:
                outcome = msgspec.structs.replace(outcome, app=app)  # noqa: PLW2901 - as it is sent
            records.append(Outgoing(OUTCOMES, app, encode(outcome)))
        try:
            if records:
                self._outbox.put(records, reserve=True)
        except StorageError as error:
            with self._lock:
                self._counts["refused_outcomes"] += len(records)
                self._alarm = str(error)
            raise
        with self._lock:
            self._counts["outcomes"] += len(records)
            self._counts["outcomes_of_unlogged"] += dropped

    def status(self) -> dict[str, Any]:
        """How it stands, for metrics and people.

        ``alarm``: why the safe model serves, or "". ``counts``: ``decisions`` logged, ``outcomes``
        taken, ``refused_outcomes``, ``unlogged_decisions``, ``outcomes_of_unlogged``, and
        ``unusable_evaluations`` of a policy with a damaged state. ``outbox``: the backlog in events
        and bytes, and the age of the oldest, seconds. ``apps``: for each the snapshot it decides
        with, and for how long, seconds. ``rollout``: the flag (:meth:`Assigner.status`), or None.
        ``relay`` and ``follower``: theirs.
        """
        names = (
            "decisions",
            "outcomes",
            "refused_outcomes",
            "unlogged_decisions",
            "outcomes_of_unlogged",
        )
        now = time.monotonic()
        unusable = self._unusable + sum(
            serving.router.counts["unusable_evaluations"] for serving in self._serving.values()
        )
        return {
            "alarm": self._alarm,
            "counts": {
                **{name: self._counts[name] for name in names},
                "unusable_evaluations": unusable,
            },
            "outbox": self._outbox_status(),
            "apps": {app: _status_of(serving, now) for app, serving in self._serving.items()},
            "rollout": None if self._assigner is None else self._assigner.status(),
            **{name: companion.status() for name, companion in self._companions.items()},
        }

    def close(self) -> None:
        """Stop following, let the relay send what it can in a few seconds, close the outbox."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _serve(
        self, app: str, learner: Learner, snapshot_id: str, learn_seq: int, epoch: int
    ) -> None:
        settings, catalog, pacer = self._settings, learner.catalog, learner.pacer
        given = settings.policy.quality_value_usd
        paced = pacer is not None and pacer.target_cost_usd is not None
        router = Router(
            learner.policy,
            self._featurizer,
            catalog,
            salt=settings.app.salt,
            quality_value_usd=(lambda: pacer.quality_value_usd) if paced else (lambda: given),
            eligibility=self._eligibility,
            app=app,
            state=FixedState(catalog, learn_seq=learn_seq, snapshot_id=snapshot_id),
            # A model may have been removed since the settings were written.
            safe_model=self._safe_model if self._safe_model in catalog else None,
            log_prompts=settings.app.log_prompts,
        )
        before = self._serving.get(app)
        self._serving[app] = _Serving(router, snapshot_id, learn_seq, epoch, time.monotonic())
        if before is not None:
            self._unusable += before.router.counts["unusable_evaluations"]

    def _log_flag_changes(self) -> None:
        """Put what became of the flag into the outbox; what cannot be put is kept for next time."""
        if self._assigner is None:
            return
        with self._flag_lock:
            changes = self._assigner.changes(self.apps)
            if not changes:
                return
            try:
                self._outbox.put(
                    [Outgoing(CHANGES, change.app, encode(change)) for change in changes]
                )
            except StorageError:
                self._assigner.put_back(changes)
                raise

    def _remember(self, event_id: str, app: str) -> None:
        self._recent[event_id] = app
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)

    def _unlogged(
        self,
        context: Context,
        router: Router,
        decision: Decision,
        error: StorageError,
        assignment: Assignment | None,
    ) -> Decision:
        """What serves instead of a draw that could not be logged. A pin is no draw: it stays."""
        self._counts["unlogged_decisions"] += 1
        self._alarm = str(error)
        self._remember(decision.event_id, _NOT_LOGGED)
        rules = (*decision.rules, OUTBOX_UNAVAILABLE)
        if decision.slice != "forced":
            safe = self._safe_model
            decision = router.decide(
                context,
                features=decision.features,
                forced=safe if safe in decision.eligible else decision.eligible[0],
                quality_value_usd=decision.quality_value_usd,
                assignment=assignment,
            )
        return msgspec.structs.replace(decision, rules=rules)

    def _app_of_outcome(self, outcome: Outcome) -> str:
        """The app of an outcome's decision; ``_NOT_LOGGED`` when that was not logged."""
        if outcome.app != self.app and outcome.app not in self.apps:
            raise InputError(
                f"the outcome of {outcome.event_id!r:.80} is of app {outcome.app!r:.80}; this "
                f"router decides for {self.app!r}"
            )
        known = self._recent.get(clean_text(outcome.event_id))
        if known is not None:
            return known
        if outcome.app not in self.apps:
            raise InputError(
                f"the decision {outcome.event_id!r:.80} is not remembered here: its outcomes must "
                f"carry its app, one of {self.apps[0]} to {self.apps[-1]}"
            )
        return outcome.app

    def _outbox_status(self) -> dict[str, Any]:
        try:
            return msgspec.structs.asdict(self._outbox.backlog())
        except StorageError as error:
            return {"problem": str(error)}


def _status_of(serving: _Serving, now: float) -> dict[str, Any]:
    return {
        "snapshot_id": serving.snapshot_id,
        "learn_seq": serving.learn_seq,
        "epoch": serving.epoch,
        "age_s": now - serving.since,
    }


def open_edge(
    settings: Settings, *, embed: bool = True, eligibility: Eligibility | None = None
) -> Edge:
    """The router of the settings, deciding at once; Kafka need not be there yet.

    Args:
        embed: False where every context brings its embedding.
        eligibility: masks before the pmf; None for none.

    Raises:
        ConfigError: ``events.transport`` is not ``kafka``, the settings do not fit together, or the
            rollout's flag has no good value.
        InputError: ``events.outbox`` is another kind of file.
        StorageError: the outbox cannot be opened, is damaged, or another router has it.
        DependencyError: the encoder or the policy's package is missing.
    """
    events = settings.events
    if events.transport != "kafka":
        raise ConfigError(
            'events.transport is "sqlite": one process decides and learns on the store. For '
            'routers and learners apart set it to "kafka"'
        )
    featurizer = make_featurizer(settings.features, embed=embed)
    recipe = recipe_of(settings, featurizer)
    outbox = Outbox.open(
        events.outbox,
        max_events=events.outbox_max_events,
        max_bytes=events.outbox_max_bytes,
        synchronous="FULL" if settings.store.synchronous == "full" else "NORMAL",
    )
    with ExitStack() as failing:
        failing.callback(outbox.close)
        assigner = open_assigner(settings)
        edge = Edge(
            settings, featurizer, recipe, outbox, eligibility=eligibility, assigner=assigner
        )
        failing.pop_all()
        failing.callback(edge.close)
        relay = RelayProcess(events.outbox, make_connection(events))
        relay.start()
        edge.attach("relay", relay)
        follower = open_follower(settings, recipe, on_swap=edge.swap)
        follower.start()
        edge.attach("follower", follower)
        failing.pop_all()
    return edge
