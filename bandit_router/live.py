"""The embedded live loop: settings and a SQLite store in, decisions and learning out.

The laws are those of :mod:`bandit_router.store_ops`: what a store holds is a function of its recipe
and its log. An event is durable before anything is learned from it, and one process at a time
learns, so that a store can be opened again after any crash and goes on as if nothing had happened.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal, Self

import msgspec

from bandit_router.adapters.file_lock import exclusive
from bandit_router.adapters.sqlite import SqliteStore
from bandit_router.assigning import Assigner, open_assigner
from bandit_router.bootstrap import make_featurizer, make_policy
from bandit_router.config import Settings
from bandit_router.errors import ConfigError, InputError, StorageError
from bandit_router.events import Change, Event, Feedback, Outcome, Row
from bandit_router.features.featurizer import Featurizer
from bandit_router.joiner import JoinRules
from bandit_router.loop import DeadLetter, Loop, Rejected, Sink
from bandit_router.models import Catalog
from bandit_router.policy.base import Policy
from bandit_router.reward import Metric
from bandit_router.router import Router
from bandit_router.snapshot import Recipe, is_signed
from bandit_router.store_ops import SALT, catalog_changes, resume
from bandit_router.store_ops.guarding import open_guard
from bandit_router.types import Context, Decision, Interaction

Status = Literal["learned", "joined", "waiting", "refused"]


_FLAG_LOGGED = "rollout_flag"
"""The store's note of the flag's version that was logged last."""

_GUARD_EVERY = 32
"""Events between two looks at the guardrails."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the outcomes of one decision.

    Attributes:
        status: ``learned``; ``joined``, which is kept but not learned from; ``waiting`` for what
            is still missing; or ``refused``.
        waits_for: what an open decision still needs (see ``Joiner.waits_for``).
        refused: why an outcome or the joined interaction was set aside, one reason each.
        interaction: the joined interaction, or None.
        learn_seq: its training row; 0 without one.
    """

    event_id: str
    status: Status
    waits_for: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    interaction: Interaction | None = None
    learn_seq: int = 0


class Live:
    """Decides and learns on one store. Make it with :func:`open_live`; it is a context manager.

    Attributes:
        app: owner of the policy; outcomes must carry it.
        router: decides without logging; :meth:`decide` is what logs too.
        loop: joins and learns.
        store: the event log.
    """

    def __init__(
        self,
        settings: Settings,
        store: SqliteStore,
        loop: Loop,
        featurizer: Featurizer,
        resources: ExitStack,
        assigner: Assigner | None = None,
    ) -> None:
        self.app = settings.app.name
        self.store = store
        self.loop = loop
        self._effects = _Effects(loop.sink)
        loop.sink = self._effects
        self._rules = loop.joiner.rules
        self._resources = resources
        self._pacer = loop.learner.pacer
        self._given_value_usd = settings.policy.quality_value_usd
        self._has_rollout = settings.incumbent is not None
        self._assigner = assigner
        self._knows_flag = False
        self._guard = open_guard(settings, store, self.app, lambda change: self._take([change]))
        self._guarded = loop.offset
        self.router = Router(
            loop.learner.policy,
            featurizer,
            loop.learner.catalog,
            salt=settings.app.salt,
            quality_value_usd=lambda: self.quality_value_usd,
            app=self.app,
            state=loop.learner,
            safe_model=settings.app.safe_model,
            log_prompts=settings.app.log_prompts,
        )

    @property
    def quality_value_usd(self) -> float:
        """V for the next decision, USD: as configured, or as the budget pacer has turned it."""
        if self._pacer.target_cost_usd is None:
            return self._given_value_usd
        return self._pacer.quality_value_usd

    def decide(
        self,
        context: Context,
        *,
        forced: str | None = None,
        quality_value_usd: float | None = None,
    ) -> Decision:
        """Draw a model, and log the decision. When it returns, the decision is durable.

        With a rollout the variant of the request's unit serves. A change of its flag is in the log
        before the first decision that was made under it.

        Args:
            context, forced, quality_value_usd: as :meth:`Router.decide` takes them.

        Raises:
            InputError: the log has a decision of that event_id already, or a value is wrong.
            DecisionError: no model is eligible.
            StorageError: the log could not be written; nothing was decided.
        """
        if self.store.decision(context.event_id) is not None:
            raise InputError(f"{self.store.path} has a decision {context.event_id!r:.80} already")
        assignment = None if self._assigner is None else self._assigner.assign(context)
        if assignment is None and self._has_rollout:
            raise InputError("this store was opened without its rollout, for feedback alone")
        decision = self.router.decide(
            context, forced=forced, quality_value_usd=quality_value_usd, assignment=assignment
        )
        if self._guard is not None and self.loop.offset - self._guarded >= _GUARD_EVERY:
            self.commit()
        self._log_flag_changes()
        self._take([decision])
        return decision

    def status(self) -> dict[str, Any]:
        """The router's ``counts``, ``rollout`` (of the assigner), ``guardrails`` (of the guard)."""
        return {
            "counts": dict(self.router.counts),
            "rollout": None if self._assigner is None else self._assigner.status(),
            "guardrails": None if self._guard is None else self._guard.status(),
        }

    def decision(self, event_id: str) -> Decision:
        """The logged decision of that id. Raises InputError when there is none."""
        decision = self.store.decision(event_id)
        if decision is None:
            raise InputError(
                f"{self.store.path} has no decision {event_id!r:.80}; "
                "`bandit-router route TEXT --log` logs one and prints its event id"
            )
        return decision

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Log outcomes of stored decisions, all or none; join and learn from them.

        Raises:
            InputError: an outcome is of no stored decision, of an unknown metric or out of range;
                nothing was logged.
            StorageError: the log could not be written; nothing was logged.
        """
        for outcome in outcomes:
            self._check(outcome)
        self._take(outcomes)

    def report(self, event_id: str, outcomes: Sequence[Outcome]) -> Receipt:
        """As :meth:`record`, of one decision; says what became of them.

        Raises:
            InputError, StorageError: as :meth:`record`.
        """
        self.record(outcomes)
        waits_for = self.loop.joiner.waits_for(event_id)
        reasons = tuple(r.reason for r in self._effects.rejected if _event_id(r.item) == event_id)
        for learn_seq, row in self._effects.rows:
            if isinstance(row, Interaction) and row.event_id == event_id:
                return Receipt(
                    event_id=event_id,
                    status="learned" if row.learn else "joined",
                    refused=reasons,
                    interaction=row,
                    learn_seq=learn_seq,
                )
        return Receipt(
            event_id=event_id,
            status="refused" if waits_for is None else "waiting",
            waits_for=waits_for or (),
            refused=reasons,
        )

    def commit(self) -> None:
        """Store the rows learned so far, and look at the guardrails.

        What is not committed is learned again from the log.

        Raises:
            StorageError: it failed; nothing is lost, and it may be called again.
        """
        self.loop.sink.commit()
        if self._guard is not None:
            self._guarded = self.loop.offset
            self._guard.look(self._guarded)

    def close(self) -> None:
        """Commit, and give the store back."""
        with self._resources:
            self.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _log_flag_changes(self) -> None:
        """Log what became of the flag. A retriable failure keeps it for the next decision."""
        if self._assigner is None:
            return
        # The start of a process is no change: the store knows what was logged last. A crash in
        # between logs the same change again, which says nothing false.
        known = self.store.get_meta(_FLAG_LOGGED) if not self._knows_flag else None
        changes = self._assigner.changes([self.app], known=known)
        self._knows_flag = True
        if not changes:
            return
        try:
            self._take(changes)
            self.store.set_meta(_FLAG_LOGGED, str(changes[-1].data.get("version", "")))
        except StorageError:
            self._assigner.put_back(changes)
            raise

    def _check(self, outcome: Outcome) -> None:
        """Refuse before it is logged what could never be joined."""
        self.decision(outcome.event_id)
        check_values(outcome, self._rules)

    def _take(self, events: Sequence[Event]) -> None:
        """Append, then feed. After a failed commit the events have been taken all the same."""
        offsets = self.store.append(events)
        self._effects.clear()
        if offsets and offsets[0] > max(self.loop.offset, 0) + 1:
            self.loop.run(self.store)  # somebody else has appended: their events come first
            return
        failure: StorageError | None = None
        for offset, event in zip(offsets, events, strict=True):
            try:
                self.loop.feed(event, offset)
            except StorageError as error:
                failure = error
        if failure is not None and not failure.retriable:
            raise failure  # a retriable one is mended by the next commit


def open_live(
    settings: Settings,
    *,
    embed: bool = True,
    create: bool = True,
    wait_s: float = 10.0,
    deciding: bool = True,
) -> Live:
    """The live loop of the settings, where its store stopped.

    A store remembers its salt and what its policy was made from. Without a budget the quality value
    is no part of that: it may be another one each time, and acts at once. Models that the settings
    add, drop or price anew are logged as changes, and learned from then on.

    Args:
        embed: False where every context brings its embedding, or none is decided.
        create: make the store when it is missing.
        wait_s: how long to wait for another process that has the store, seconds.
        deciding: False where nothing is decided: the rollout's flag is not asked.

    Raises:
        ConfigError: the store was made with other settings, the settings do not fit together, or
            the rollout's flag has no good value.
        InputError: there is no store, or it is no store.
        StorageError: the store cannot be read or written, or another process is learning on it.
        SnapshotError: its stored state does not load.
        DependencyError: the encoder or the policy's package is missing.
    """
    featurizer = make_featurizer(settings.features, embed=embed)
    recipe, key = recipe_of(settings, featurizer), settings.snapshot_key
    path = settings.store.path
    with ExitStack() as resources:
        synchronous: Literal["FULL", "NORMAL"] = (
            "FULL" if settings.store.synchronous == "full" else "NORMAL"
        )
        store = SqliteStore.open(path, create=create, synchronous=synchronous)
        resources.enter_context(store)
        lock = path.with_name(path.name + ".lock")
        resources.enter_context(exclusive(lock, str(path), wait_s=wait_s))
        recipe = settled(store, recipe, key)
        _settle_salt(store, settings.app.salt)
        loop = resume(
            store,
            recipe,
            snapshot_every=settings.snapshots.every,
            keep_snapshots=settings.snapshots.keep,
            key=key,
            make=configured_policy,
        )
        changes = catalog_changes(
            loop.learner.catalog, settings.catalog, ts=time.time(), app=settings.app.name
        )
        if changes:
            store.append(changes)
            loop.run(store)
        assigner = open_assigner(settings) if deciding else None
        if assigner is not None:
            resources.callback(assigner.close)
        return Live(settings, store, loop, featurizer, resources.pop_all(), assigner)


def recipe_of(settings: Settings, featurizer: Featurizer) -> Recipe:
    """What the settings make an empty learner and joiner from.

    Raises:
        ConfigError: a policy option is a list or a table.
    """
    chosen = settings.policy
    for name, value in chosen.options.items():
        if not isinstance(value, str | bool | int | float | None):
            raise ConfigError(f"policy.options.{name}: {value!r:.80} is no number, text or boolean")
    return Recipe(
        app=settings.app.name,
        policy=chosen.name,
        options=dict(chosen.options),
        seed=chosen.seed,
        dimension=featurizer.dimension,
        featurizer_id=featurizer.featurizer_id,
        catalog=tuple(settings.catalog),
        quality_value_usd=chosen.quality_value_usd,
        target_cost_usd=chosen.budget_usd_per_query,
        rules=settings.join_rules,
    )


_KEYS = {
    "app": "app.name",
    "policy": "policy.name",
    "options": "policy.options",
    "seed": "policy.seed",
    "dimension": "features.components",
    "featurizer_id": "[features]",
    "quality_value_usd": "policy.quality_value_usd",
    "target_cost_usd": "policy.budget_usd_per_query",
    "rules": "[joiner]",
}
"""Where in the configuration each field of a recipe that cannot change comes from."""


def settled(store: SqliteStore, recipe: Recipe, key: bytes | None) -> Recipe:
    """``recipe`` as the store has it. Raises ConfigError when the store was made from another."""
    count = len(store.snapshot_ids())
    if count == 0:
        return recipe
    newest = next(store.snapshots(key=key), None)
    if newest is None:
        under = "" if key is None else " with snapshots.hmac_key"
        raise ConfigError(
            f"{store.path}: none of its {count} snapshots verifies{under}; give the key that the "
            "store was made with, or set store.path to a new file"
        )
    if key is None and is_signed(newest):
        raise ConfigError(
            f"{store.path}: its snapshots are signed; give their key as "
            "BANDIT_ROUTER_SNAPSHOTS__HMAC_KEY, or set store.path to a new file"
        )
    stored = newest.manifest.recipe
    # What became of the models since then is in the log; what is to become of them will be.
    recipe = msgspec.structs.replace(recipe, catalog=stored.catalog)
    if stored.target_cost_usd is None and recipe.target_cost_usd is None:
        value = stored.quality_value_usd  # scalarised last: nothing was learned by it
        recipe = msgspec.structs.replace(recipe, quality_value_usd=value)
    differing = stored.differences(recipe)
    if differing:
        what = "; ".join(_difference(name, stored, recipe) for name in differing)
        raise ConfigError(
            f"{store.path} was made with other settings: {what}. Put the old ones back, or set "
            "store.path to a new file"
        )
    return recipe


def _difference(name: str, stored: Recipe, configured: Recipe) -> str:
    old, new = getattr(stored, name), getattr(configured, name)
    if name == "rules":
        fields = [f for f in old.__struct_fields__ if getattr(old, f) != getattr(new, f)]
        return f"{_KEYS[name]} {', '.join(fields)}"
    return f"{_KEYS[name]} ({old!r:.80} stored, {new!r:.80} configured)"


def _settle_salt(store: SqliteStore, salt: str) -> None:
    """Store the salt in a new store. Raises ConfigError when its draws were made with another."""
    stored = store.get_meta(SALT)
    if stored == salt:
        return
    if store.last_offset() == 0:
        store.set_meta(SALT, salt)
        return
    has = "an unknown one" if stored is None else repr(stored)
    raise ConfigError(
        f"{store.path}: app.salt is {salt!r:.80}, but its draws were made with {has:.80}, without "
        "which they cannot be explained. Put the old one back, or set store.path to a new file"
    )


def configured_policy(recipe: Recipe) -> Policy:
    """The untrained policy of a recipe. Raises ConfigError where the settings are to blame."""
    return make_policy(
        recipe.policy,
        Catalog(recipe.catalog),
        dimension=recipe.dimension,
        seed=recipe.seed,
        **recipe.options,
    )


def check_values(outcome: Outcome, rules: JoinRules) -> None:
    """Refuse feedback that the joiner would set aside.

    Raises:
        InputError: its metric is unknown, or has no such value.
    """
    if not isinstance(outcome, Feedback):
        return
    metric = rules.metrics.get(outcome.metric)
    if metric is None:
        known = ", ".join(sorted(rules.metrics))
        raise InputError(f"metric {outcome.metric!r:.80} is not one of [joiner]: {known}")
    if metric.score(outcome.value) is None:
        raise InputError(
            f"{outcome.value!r} is no value of the metric {outcome.metric!r:.80}, which "
            f"takes {_values_of(metric)}"
        )


def _values_of(metric: Metric) -> str:
    """The values that a metric takes, in words."""
    if metric.kind == "float":
        low, high = sorted((metric.low, metric.high))
        return f"{low:g} to {high:g}"
    return "0 or 1" if metric.kind == "bool" else "-1, 0 or 1"


def _event_id(item: object) -> str | None:
    return getattr(item, "event_id", None)


class _Effects:
    """A sink that remembers what the latest events gave, and passes everything on."""

    def __init__(self, sink: Sink) -> None:
        self.rows: list[tuple[int, Row]] = []
        self.rejected: list[Rejected] = []
        self._sink = sink
        self.commit = sink.commit

    def clear(self) -> None:
        """Forget what earlier events gave."""
        self.rows, self.rejected = [], []

    def put(
        self,
        offset: int,
        event: Event | DeadLetter | None,
        first_seq: int,
        rows: Sequence[Row],
        rejected: Sequence[Rejected],
        changes: Sequence[Change],
    ) -> None:
        """See :class:`~bandit_router.loop.Sink`."""
        self.rows += enumerate(rows, start=first_seq)
        self.rejected += rejected
        self._sink.put(offset, event, first_seq, rows, rejected, changes)
