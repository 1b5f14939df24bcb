"""What a router demands of a snapshot before it serves with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from bandit_router.bootstrap import policy_options
from bandit_router.budget import BudgetPacer
from bandit_router.errors import BanditRouterError, SnapshotError
from bandit_router.learner import Learner
from bandit_router.models import Catalog
from bandit_router.snapshot import Recipe, Snapshot, probe, unpack
from bandit_router.snapshot.announcement import MAX_PUBLISHED_BYTES
from bandit_router.store_ops import policy_of

SIZE_RATIO = 8
SIZE_SLACK_BYTES = 6 * 1024 * 1024
"""A learner's state that differs from the last good one by more than both is refused.

An untrained default policy over four models has 64 kB. What grows with use is the sparse expert:
2**18 weights of 16 bytes and 65,536 counts of 9 make 4.8 MB, which a router that was away for long
may find all at once: that fits. A hundred times the untrained state, 6.4 MB, does not. Beyond that
a state grows with the square of the number of models: 4 may become 11 at once.
"""
MAX_MODELS = 256
"""A recipe with more is refused before a policy is made for it: memory grows with the square."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """A restored state that requests are served with.

    Attributes:
        snapshot_id: where it came from.
        learn_seq: the last training row in it.
        epoch: the claim under which it was published.
        learner: policy, catalog and pacer. Nothing is learned with it.
        state_bytes: size of the learner's state.
    """

    snapshot_id: str
    learn_seq: int
    epoch: int
    learner: Learner = field(repr=False)
    state_bytes: int


class Acceptance:
    """Verifies snapshots of one app and restores them.

    Args:
        recipe: the router's own: what its features fit, and which policy it takes.
        key: what snapshots must be signed with; None takes unsigned ones too.
    """

    def __init__(self, recipe: Recipe, *, key: bytes | None = None) -> None:
        self._recipe, self._key = recipe, key
        self._allowed = {recipe.policy: policy_options(recipe.policy)}

    def verified(self, data: bytes, *, last: Served | None = None) -> Snapshot:
        """The snapshot in a container, with everything checked that can be before it is restored.

        Args:
            data: the container.
            last: what is served now; a state of a size far from it is refused.

        Raises:
            SnapshotError: it must not be served.
        """
        snapshot = unpack(data, key=self._key, max_bytes=MAX_PUBLISHED_BYTES, allowed=self._allowed)
        theirs, mine = snapshot.manifest.recipe, self._recipe
        if theirs.app != mine.app:
            raise SnapshotError(
                f"snapshot {snapshot.id} is of app {theirs.app!r:.80}, not of {mine.app!r:.80}",
                reason="wrong_app",
            )
        fits = (theirs.featurizer_id, theirs.dimension) == (mine.featurizer_id, mine.dimension)
        if not fits:
            raise SnapshotError(
                f"snapshot {snapshot.id} was learned on features of {theirs.featurizer_id!r:.80}, "
                f"{theirs.dimension} numbers; this router makes {mine.featurizer_id!r:.80}, "
                f"{mine.dimension}: give both the same section [features]",
                reason="wrong_features",
            )
        if max(len(theirs.catalog), len(snapshot.manifest.catalog)) > MAX_MODELS:
            raise SnapshotError(
                f"snapshot {snapshot.id} has more than {MAX_MODELS} models", reason="size"
            )
        if last is not None:
            _check_size(snapshot, last)
        return snapshot

    def restored(self, snapshot: Snapshot, *, epoch: int) -> Served:
        """A verified snapshot's learner, probed. The joiner's state is left alone: routers join
        nothing.

        Raises:
            SnapshotError: the state does not load, or its policy is not fit to serve.
        """
        recipe = snapshot.manifest.recipe
        try:
            pacer = BudgetPacer(recipe.quality_value_usd, recipe.target_cost_usd)
            learner = Learner(policy_of(recipe), Catalog(recipe.catalog), pacer)
            learner.load(snapshot.learner)
        except SnapshotError:
            raise
        except BanditRouterError as error:
            raise SnapshotError(f"snapshot {snapshot.id} does not load: {error}") from error
        except Exception as error:  # a policy of another package may raise anything
            raise SnapshotError(
                f"snapshot {snapshot.id} does not load: {type(error).__name__}: {error}"
            ) from error
        if learner.learn_seq != snapshot.manifest.learn_seq or not len(learner.catalog):
            raise SnapshotError(
                f"snapshot {snapshot.id} holds the state of row {learner.learn_seq}, "
                f"{len(learner.catalog)} models"
            )
        probe(learner.policy, learner.catalog, recipe.dimension, pacer.quality_value_usd)
        learner.snapshot_id = snapshot.id
        return Served(
            snapshot_id=snapshot.id,
            learn_seq=learner.learn_seq,
            epoch=epoch,
            learner=learner,
            state_bytes=len(snapshot.learner),
        )


def _check_size(snapshot: Snapshot, last: Served) -> None:
    new, old = len(snapshot.learner), last.state_bytes
    small, large = sorted((new, old))
    if large - small > SIZE_SLACK_BYTES and large > SIZE_RATIO * small:
        raise SnapshotError(
            f"snapshot {snapshot.id}: a state of {new} bytes after one of {old}; if the learner "
            "has really changed so much, remove the router's stored snapshot and start it again",
            reason="size",
        )
