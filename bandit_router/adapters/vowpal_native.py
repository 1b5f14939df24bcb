"""Native Vowpal Wabbit contextual bandits (``cb_explore_adf``) as policies to compare with.

``vw-epsilon`` explores by epsilon-greedy, ``vw-squarecb`` by inverse gap weighting (Foster &
Rakhlin 2020). Each model is an action with two features, its identity and its log price, which VW
crosses with the dense features, a constant and the context columns (as hashed tokens). The cost VW
minimises is ``-(score - cost / quality value)``, clipped to -1..1; its regression is ``mtr``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bandit_router.adapters.vowpal import Namespaces, VowpalWorkspace, token_index
from bandit_router.errors import SnapshotError
from bandit_router.models import Catalog
from bandit_router.policy.base import dense_of, mix_uniform
from bandit_router.policy.baselines import TALLY_SHAPE
from bandit_router.policy.tally import Tally, pack, unpack
from bandit_router.types import Evaluation, Features, Interaction

# VW's defaults throughout. On folds 0 and 1 of three logs (nine quality values in all, 10 seeds)
# the mean regret was .079 for vw-epsilon and .059 for vw-squarecb; epsilon .02, learning rate 2,
# --clip_p .05, --gamma_scale 300 and 1000 came to .072 to .074 and .062 to .066: inside the noise.
_COMMON = ("--cb_explore_adf", "--cb_type", "mtr", "--interactions", "as", "--interactions", "ac")
_CONSTANT = token_index("constant")
_PRICE = token_index("log_price")


class _VowpalPolicy:
    """What both policies share: the examples, the cost label and the state.

    Args:
        catalog: the models and their prices.
        dimension: number of dense features.
        seed: VW's random seed.
    """

    name: str
    epsilon = 0.0
    options: tuple[str, ...] = ()

    def __init__(self, catalog: Catalog, *, dimension: int, seed: int = 0) -> None:
        self._dimension = dimension
        self._workspace = VowpalWorkspace(
            (*_COMMON, *self.options, "--random_seed", str(seed % 2**31))
        )
        self._tally = Tally(Catalog(()))
        self.set_catalog(catalog)

    def evaluate(
        self, features: Features, eligible: Sequence[str], quality_value_usd: float
    ) -> Evaluation:
        """See :class:`~bandit_router.policy.base.Policy`."""
        rows = self._tally.rows(eligible)
        actions = [self._actions[row] for row in rows.tolist()]
        pmf = np.array(self._workspace.predict_actions(self._shared(features), actions))
        score, cost = self._tally.scores(rows), self._tally.costs_usd(rows)
        return Evaluation(
            pmf=mix_uniform(self._own_share(pmf), self.epsilon),
            epsilon=self.epsilon,
            score=score,
            cost_usd=cost,
            utility=score - cost / quality_value_usd,
        )

    def _own_share(self, pmf: np.ndarray) -> np.ndarray:
        """VW's pmf less its uniform share, so that this is mixed in again without rounding."""
        return np.maximum(pmf - self.epsilon / len(pmf), 0.0)

    def learn(self, interaction: Interaction) -> None:
        """One VW update; needs both the score and the cost."""
        shared = self._shared(interaction.features)
        self._tally.add(interaction)
        score, cost = interaction.score, interaction.cost_usd
        if not interaction.learn or score is None or cost is None:
            return
        known = [m for m in interaction.eligible if m in self._tally.index]
        if interaction.action not in known:
            return
        reward = score - cost / interaction.quality_value_usd
        self._workspace.learn_actions(
            shared,
            [self._actions[self._tally.index[m]] for m in known],
            chosen=known.index(interaction.action),
            cost=-min(max(reward, -1.0), 1.0),
            probability=interaction.propensity,
        )

    def _shared(self, features: Features) -> Namespaces:
        dense = [(i, v) for i, v in enumerate(dense_of(features, self._dimension).tolist())]
        dense.append((_CONSTANT, 1.0))
        columns = [(token_index(f"{k}={v}"), 1.0) for k, v in features.columns.items()]
        return {"s": dense, "c": columns} if columns else {"s": dense}

    def set_catalog(self, catalog: Catalog) -> None:
        """Take a changed catalog. A new model shares the price's weights with the others."""
        self._tally.set_catalog(catalog)
        centre = float(np.log(self._tally.price).mean()) if len(catalog) else 0.0
        self._actions: list[Namespaces] = [
            {
                "a": [
                    (token_index(f"model={spec.model}"), 1.0),
                    (_PRICE, (math.log(spec.prior_cost_usd()) - centre) / 3.0),
                ]
            }
            for spec in catalog
        ]

    def dump(self) -> bytes:
        """The state as bytes."""
        return pack(
            self.name,
            self._tally.catalog,
            {"tally": self._tally.counts},
            vw=self._workspace.save(),
        )

    def load(self, state: bytes) -> None:
        """Replace the state. Raises SnapshotError when the bytes do not fit."""
        catalog, arrays, extra = unpack(self.name, state, {"tally": TALLY_SHAPE})
        if not isinstance(extra.get("vw"), bytes):
            raise SnapshotError(f"a saved state of {self.name!r} lacks its VW model")
        self._workspace.load(extra["vw"])
        self.set_catalog(catalog)
        self._tally.counts = arrays["tally"]


class VowpalEpsilon(_VowpalPolicy):
    """Epsilon-greedy over VW's regression, epsilon .05 (VW's default)."""

    name = "vw-epsilon"
    epsilon = 0.05
    options = ("--epsilon", "0.05")


class VowpalSquareCb(_VowpalPolicy):
    """Inverse gap weighting over VW's regression; no uniform share is mixed in."""

    name = "vw-squarecb"
    options = ("--squarecb",)

    def _own_share(self, pmf: np.ndarray) -> np.ndarray:
        return pmf
