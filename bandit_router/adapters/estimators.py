"""What is taken from the package ``vw-estimators``: intervals, and estimators to compare with.

The package adds rows one at a time in Python. Its empirical-likelihood interval depends on a few
sums alone, so here it is given ours, which are exact and come from any number of processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

from bandit_router.errors import DependencyError, InputError
from bandit_router.ope.dr import DoublyRobust
from bandit_router.ope.estimate import Estimator
from bandit_router.ope.moments import Moments

METHOD = "empirical likelihood (Cressie-Read)"


def interval(estimator: Estimator, alpha: float = 0.05) -> tuple[float, float]:
    """An interval for the target's value at a fixed n, from an estimator's sums.

    Karampatziakis, Langford & Mineiro (2020), "Empirical likelihood for contextual bandits": the
    values that some distribution of (weight, outcome) with mean weight 1 could have, which is not
    too unlikely given the sums. Asymptotic in n, for rows that are independent given the past; may
    not be looked at repeatedly. It stays honest where few rows carry the weight, and a normal
    interval is far too narrow. Needs outcomes between known limits; for costs see
    :data:`~bandit_router.ope.evaluation.COST_MARGIN`.

    For doubly robust it is that of the mean weighted residual, moved by the models' part and
    widened by as many standard errors as that part adds to the residual's: with many rows it is
    the normal interval, with few matching ones the residual's rules. Nothing outside the outcomes'
    own limits is in it.

    Args:
        estimator: with at least one row.
        alpha: 1 - coverage.

    Raises:
        InputError: there are no rows, or ``alpha`` is not between 0 and 1.
        DependencyError: the package is not installed.
    """
    if not 0.0 < alpha < 1.0:
        raise InputError(f"alpha {alpha!r} must be between 0 and 1")
    if estimator.moments.n == 0:
        raise InputError("no interval from an empty log")
    low, high = _cressie_read(estimator.moments, alpha)
    if not isinstance(estimator, DoublyRobust):
        return low, high
    direct, correction = estimator.direct, estimator.correction
    more = max(estimator.estimate().standard_error - correction.standard_error, 0.0)
    below, above = msgspec.structs.replace(direct, standard_error=more).normal_interval(alpha)
    least, largest = estimator.outcome_range
    return max(low + below, least), min(high + above, largest)


def _cressie_read(moments: Moments, alpha: float) -> tuple[float, float]:
    from scipy.stats import f

    low, high = moments.outcome_range
    if low == high:
        return low, high
    weight_low, weight_high = moments.weight_range
    if weight_low == weight_high == 1.0:
        # On-policy: no weight varies, and what is left is the t interval of a mean.
        w, _, wr, _, wrr = moments.sums()
        variance = max(wrr - wr * wr / w, 0.0) / max(w - 1.0, 1.0)
        reach = math.sqrt(f.isf(alpha, 1, max(w - 1.0, 1.0)) * variance / w)
        return max(wr / w - reach, low), min(wr / w + reach, high)
    module = _module("estimators.bandits.cressieread")
    # The package wants limits on both sides of the mean weight, which is 1.
    estimate = module.IntervalImpl(
        min(weight_low, 1.0 - 1e-9), max(weight_high, 1.0 + 1e-9), low, high, False
    )
    estimate.n = float(moments.n)
    (
        estimate.sumw,
        estimate.sumwsq,
        estimate.sumwr,
        estimate.sumwsqr,
        estimate.sumwsqrsq,
    ) = moments.sums()
    found = estimate.get(alpha)
    return float(found[0]), float(found[1])


def row_by_row(
    name: str, rows: Iterable[tuple[float, float, float]]
) -> float | tuple[float, float]:
    """What the package itself makes of rows, one at a time.

    Args:
        name: ``ips``, ``snips`` (values), ``gaussian``, ``cressieread`` (intervals) or ``cs``
            (a confidence sequence). The last three want outcomes in [0, 1].
        rows: (logged probability, outcome, target's probability) of each row.

    Raises:
        InputError: it has no such estimator.
        DependencyError: the package is not installed.
    """
    if name in ("ips", "snips"):
        one = _module(f"estimators.bandits.{name}").Estimator()
    elif name in ("gaussian", "cressieread", "cs"):
        one = _module(f"estimators.bandits.{name}").Interval()
    else:
        raise InputError(f"vw-estimators has no estimator {name!r} that is compared with")
    for logged, outcome, target in rows:
        one.add_example(logged, outcome, target)
    found = one.get()
    return found if isinstance(found, float) else (float(found[0]), float(found[1]))


def _module(name: str):  # noqa: ANN202 -- a module
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DependencyError(
            "the package 'vw-estimators' is not installed: pip install vw-estimators==0.2.2"
        ) from error
