"""The chart of estimated regret: its band, and the true regret beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bandit_router.report.page import Figure
from bandit_router.report.plot import X_RANGE, Y_RANGE, Plot, Scale, linear
from bandit_router.report.regret_curve import RegretCurve

ESTIMATED, TRUE = "s0", "ink"


def estimated_regret(
    who: str, curve: RegretCurve, marks: Sequence[tuple[float, str]] = ()
) -> Figure:
    """Cumulative regret against the best single model so far, estimated and true.

    Args:
        who: whose regret.
        marks: (query, text) of things that happened, in order.
    """
    x = curve.rows.tolist()
    value, lower, upper, true = (
        part * curve.rows for part in (curve.value, curve.lower, curve.upper, curve.true)
    )
    title = f"Estimated regret of {who}"
    note = what_the_band_means(curve)
    plot = Plot(
        title,
        note,
        Scale(0.0, float(x[-1]), *X_RANGE),
        linear([0.0, *(float(f(v)) for v in (lower, upper, true) for f in (min, max))], *Y_RANGE),
        "queries seen",
        "reward behind the best single model",
    )
    plot.band(_points(x, lower), _points(x, upper), ESTIMATED)
    plot.line([(0.0, 0.0), (float(x[-1]), 0.0)], "soft thin")
    plot.line(_points(x, value), ESTIMATED)
    plot.line(_points(x, true), f"{TRUE} dashed")
    plot.marks_x(marks)
    plot.strips(x, [_tip(curve, place) for place in range(len(x))])
    some = np.unique(np.linspace(0, len(x) - 1, min(9, len(x))).astype(int)).tolist()
    rows = [
        (name, *(f"{series[i]:.4f}" for i in some))
        for name, series in (
            ("estimated", curve.value),
            ("lower", curve.lower),
            ("upper", curve.upper),
            ("true", curve.true),
        )
    ]
    return Figure(
        name="estimated-regret",
        title=title,
        note=note,
        chart=plot.svg(),
        headers=("regret per query, after", *(f"{x[i]:,}" for i in some)),
        rows=rows,
        legend=((ESTIMATED, "estimated from the log, with its band"), (TRUE, "true (dashed)")),
    )


def what_the_band_means(curve: RegretCurve) -> str:
    """One paragraph for people."""
    return (
        "Reward behind the single model that is best so far; above 0 the policy loses. The line "
        "and its band know only what the policy logged: the outcome of the model it asked, and "
        "with which probability it had asked each. With probability at least "
        f"{1.0 - curve.alpha:.0%} the band holds the truth after every query at once, however "
        "often one looks and although the best model is picked by looking; it only takes "
        "the logged probabilities to be right and the largest cost of an answer to be known. "
        "Dashed: the truth, which only a log of every model's outcomes can tell, for what the "
        "policy's probabilities earn on average over its draws."
    )


def _tip(curve: RegretCurve, place: int) -> str:
    rows = int(curve.rows[place])
    return (
        f"after {rows:,} queries, per query\nestimated: {curve.value[place]:+.4f}\n"
        f"band: {curve.lower[place]:+.4f} to {curve.upper[place]:+.4f}\n"
        f"true: {curve.true[place]:+.4f}"
    )


def _points(x: Sequence[float], y: np.ndarray) -> list[tuple[float, float]]:
    return list(zip(x, y.tolist(), strict=True))
