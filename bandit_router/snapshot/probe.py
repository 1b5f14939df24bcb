"""Is a restored policy fit to serve? Asked with contexts of our own, before any request is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from bandit_router.errors import SnapshotError
from bandit_router.events import PMF_TOLERANCE
from bandit_router.models import Catalog
from bandit_router.policy.base import Policy
from bandit_router.router import UNUSABLE
from bandit_router.types import Evaluation, Features

_SEED = 20_240_229
_EXTREME = 100.0  # far beyond any standardised feature, and within what every policy must take
_NGRAM_BITS = 18
_FLOOR_SLACK = 1e-12


def probe(
    policy: Policy,
    catalog: Catalog,
    dimension: int,
    quality_value_usd: float,
    n: int = 32,
) -> None:
    """Ask a policy about ``n`` seeded contexts and check every answer.

    The first contexts are the edges: all zeros, all large, alternating; the others are normal
    draws, with n-grams and columns in some. Every second one has a random part of the catalog as
    eligible models, the others all of it.

    Args:
        policy: changes nothing of it.
        catalog: the models it knows, at least one.
        dimension: length of the features it was made for.
        quality_value_usd: USD, > 0.
        n: how many contexts.

    Raises:
        SnapshotError: it raised, or an answer is no pmf with the stated share of exploration, or
            has a score or cost that is not finite. ``reason`` is ``bad_pmf``, or ``unusable``
            where it failed in another way than for want of a pmf.
    """
    for number, (features, eligible) in enumerate(_contexts(catalog, dimension, n)):
        try:
            answer = policy.evaluate(features, eligible, quality_value_usd)
            problem = _problem(answer, len(eligible))
        except Exception as error:  # whatever it is, it would have met a request
            raise SnapshotError(
                f"probe {number}: the policy failed: {type(error).__name__}: {error}",
                reason="bad_pmf" if isinstance(error, UNUSABLE) else "unusable",
            ) from error
        if problem is not None:
            raise SnapshotError(f"probe {number}: {problem}", reason="bad_pmf")


def _contexts(catalog: Catalog, dimension: int, n: int) -> Iterator[tuple[Features, Sequence[str]]]:
    rng = np.random.default_rng(_SEED)
    signs = np.where(np.arange(dimension) % 2, -1.0, 1.0)
    edges = [np.zeros(dimension), np.full(dimension, _EXTREME), signs * _EXTREME, -signs]
    names = catalog.names
    for number in range(n):
        normal = rng.standard_normal(dimension).astype(np.float32).astype(np.float64)
        ngrams = np.unique(rng.integers(0, 1 << _NGRAM_BITS, 16)).tolist()
        columns = {"probe": f"value{number}", "task": "probe"}
        part = [name for name in names if rng.random() < 0.5] or [names[number % len(names)]]
        yield (
            Features(
                dense=edges[number] if number < len(edges) else normal,
                ngrams=tuple(ngrams) if number % 3 else (),
                columns=columns if number % 4 == 1 else {},
            ),
            part if number % 2 else names,
        )


def _problem(answer: Evaluation, k: int) -> str | None:
    """What is wrong with an answer about ``k`` models, or None."""
    arrays = (answer.pmf, answer.score, answer.cost_usd)
    if any(array.shape != (k,) for array in arrays):
        return f"shapes {[array.shape for array in arrays]} for {k} eligible models"
    if not all(np.isfinite(array).all() for array in arrays):
        return "a probability, score or cost is not finite"
    pmf, epsilon = answer.pmf.tolist(), answer.epsilon
    if not 0.0 <= epsilon <= 1.0 or min(answer.cost_usd.tolist()) < 0.0:
        return f"epsilon is {epsilon!r}, or a cost is negative"
    if abs(math.fsum(pmf) - 1.0) > PMF_TOLERANCE or min(pmf) < 0.0:
        return f"{pmf!r:.200} is no pmf"
    if min(pmf) < epsilon / k - _FLOOR_SLACK:
        return f"a probability of {min(pmf)!r} is below epsilon / K = {epsilon / k!r}"
    return None
