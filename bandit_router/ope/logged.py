"""Logged choices as arrays: what every off-policy estimator reads, checked before it is used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bandit_router.errors import InputError
from bandit_router.types import Features

PMF_TOLERANCE = 1e-6
"""By how much a logged pmf may miss 1, and a propensity its own entry of the pmf (relatively)."""


@dataclass(frozen=True)
class Logged:
    """n interactions over K models, in order.

    Attributes:
        models: the K model ids that the columns stand for.
        position: (n,) int64, the row's place in its log, for messages and for past-only fits.
        action: (n,) column of the model that was chosen.
        propensity: (n,) with which probability.
        pmf: (n, K) of all models; 0 where not eligible.
        eligible: (n, K) bool.
        score: (n,) in [0, 1], NaN where no feedback came.
        cost_usd: (n,) USD, NaN where unknown.
        quality_value_usd: (n,) what one fully good answer was worth, USD, > 0.
        features: (n, d) what was known of the query.
        fold_key: (n,) uint32, a hash of who asked (or of the event), which divides the log for
            cross-fitting whatever parts it is read in.
        contexts: the features as a policy takes them, where a policy is to be asked.
    """

    models: tuple[str, ...]
    position: np.ndarray
    action: np.ndarray
    propensity: np.ndarray
    pmf: np.ndarray
    eligible: np.ndarray
    score: np.ndarray
    cost_usd: np.ndarray
    quality_value_usd: np.ndarray
    features: np.ndarray
    fold_key: np.ndarray
    contexts: Sequence[Features] | None = None

    def __len__(self) -> int:
        return len(self.action)

    def take(self, rows: np.ndarray) -> Logged:
        """The given rows (indices or a mask)."""
        index = np.flatnonzero(rows) if rows.dtype == bool else rows
        picked = {
            name: getattr(self, name)[index]
            for name in self.__dataclass_fields__
            if name not in ("models", "contexts")
        }
        contexts = self.contexts
        if contexts is not None:
            contexts = [contexts[i] for i in index.tolist()]
        return Logged(models=self.models, contexts=contexts, **picked)

    def over(self, models: Sequence[str]) -> Logged:
        """The same rows with these models as columns, which must include all it has.

        Raises:
            InputError: ``models`` lacks one of them.
        """
        wanted = tuple(models)
        if wanted == self.models:
            return self
        missing = [model for model in self.models if model not in wanted]
        if missing:
            raise InputError(f"the log has the model {missing[0]!r}, which is not among {wanted}")
        places = np.array([wanted.index(model) for model in self.models], dtype=np.intp)
        pmf = np.zeros((len(self), len(wanted)))
        eligible = np.zeros(pmf.shape, dtype=bool)
        pmf[:, places], eligible[:, places] = self.pmf, self.eligible
        return replace(self, models=wanted, pmf=pmf, eligible=eligible, action=places[self.action])


def check(log: Logged) -> None:
    """Refuse what no estimator may use.

    Raises:
        InputError: an array has another length, or a row breaks a range; the message names the
            first such row by its ``position``.
    """
    _check_shapes(log)
    rows = np.arange(len(log))
    known = (log.action >= 0) & (log.action < len(log.models))
    _refuse(~known, log, "action", log.action, f"is none of the {len(log.models)} models")
    _refuse(
        ~((log.propensity > 0.0) & (log.propensity <= 1.0)),
        log,
        "propensity",
        log.propensity,
        "must be above 0 and at most 1",
    )
    with np.errstate(invalid="ignore"):
        bad = ~((log.pmf >= 0.0) & (log.pmf <= 1.0 + PMF_TOLERANCE)).all(axis=1)
    _refuse(bad, log, "pmf", log.pmf, "has an entry that is no probability")
    total = log.pmf.sum(axis=1)
    _refuse(np.abs(total - 1.0) > PMF_TOLERANCE, log, "pmf", total, "is its sum, which must be 1")
    masked = ((log.pmf > 0.0) & ~log.eligible).any(axis=1)
    _refuse(masked, log, "pmf", log.pmf, "gives a model a share that was not eligible")
    _refuse(~log.eligible[rows, log.action], log, "action", log.action, "was not eligible")
    entry = log.pmf[rows, log.action]
    off = np.abs(entry - log.propensity) > PMF_TOLERANCE * log.propensity
    _refuse(off, log, "propensity", log.propensity, "is not the pmf's entry of the action")
    with np.errstate(invalid="ignore"):
        score_off = ~(np.isnan(log.score) | ((log.score >= 0.0) & (log.score <= 1.0)))
        cost_off = ~(np.isnan(log.cost_usd) | ((log.cost_usd >= 0.0) & (log.cost_usd < np.inf)))
        value_off = ~((log.quality_value_usd > 0.0) & (log.quality_value_usd < np.inf))
    _refuse(score_off, log, "score", log.score, "must be in [0, 1]")
    _refuse(cost_off, log, "cost_usd", log.cost_usd, "must be finite and not negative")
    _refuse(value_off, log, "quality_value_usd", log.quality_value_usd, "must be above 0")
    _refuse(~np.isfinite(log.features).all(axis=1), log, "features", log.features, "are not finite")


def _check_shapes(log: Logged) -> None:
    n, k = len(log.action), len(log.models)
    wanted = {"pmf": (n, k), "eligible": (n, k), "features": (n, *log.features.shape[1:])}
    for name in log.__dataclass_fields__:
        if name in ("models", "contexts"):
            continue
        shape = getattr(log, name).shape
        if shape != wanted.get(name, (n,)):
            raise InputError(f"{name} has shape {shape} where the log has {n} rows, {k} models")
    if log.contexts is not None and len(log.contexts) != n:
        raise InputError(f"{len(log.contexts)} contexts for {n} rows")


def _refuse(bad: np.ndarray, log: Logged, name: str, values: np.ndarray, why: str) -> None:
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        shown = repr(np.asarray(values[row]).tolist())
        raise InputError(f"interaction {int(log.position[row])}: {name} {shown:.120} {why}")
