"""The result of `bench calibration` as tables, as figures with targets and as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from bandit_router.bench import calibration_experiments as experiments
from bandit_router.bench.calibration import CalibrationResult, Coverage
from bandit_router.bench.calibration_runs import ALPHA, MARKS, PEERS
from bandit_router.bench.figures import Figure
from bandit_router.bench.grid import Grid, figure_grid, number

SCHEMA = "bandit_router.bench.calibration/1"
WIDTH_AT_MOST, FALSE_ROLLBACKS_AT_MOST = 1.6, 0.01
_IS_AN_INTERVAL = 0.93
ROLLED_BACK_AT_LEAST, MEDIAN_AT_MOST = 0.99, 500.0
_COVERAGE = (
    "Missed: runs in which the truth was outside the 95 % bounds at any row, looking at every row; "
    "'at most' is the one-sided 95 % binomial (Clopper-Pearson) bound on that rate. Width: of the "
    "bounds after so many rows, in units of reward. Over normal: over the width of the fixed-time "
    "95 % normal interval with the true variance; 'it covers' is how often the usual one, with the "
    "estimated variance, covers at the end. Where that is less than 93 %, too few draws tell for "
    "any normal interval, and there is no target. Over one bet: over the fixed-time interval that "
    "the bet that turned out best gives. vw cs, vw el: width of vw-estimators' confidence sequence "
    "and of its fixed-time empirical-likelihood interval, over ours, on one of the logs."
)
_RUNS = (
    "Real logs: the default policy decides 10,000 queries of folds 2 to 4, drawn with replacement, "
    "reward at the log's middle quality value; logs are drawn from its pmfs with new seeds, 250 to "
    "a pass. The scale of the sequences is from folds 0 and 1. Worlds: the logging policy learns "
    "within each run; half-way through the best action loses .4. Truth: on these very queries."
)
_EXPERIMENTS = (
    f"Experiments: {experiments.UNITS:,} units at most, a look after every unit. Rollback: "
    "evidence of 1 / alpha against 'worse by at most "
    f"{-100.0 * experiments.GUARD.limit:g} points', alpha {experiments.GUARD.alpha:g}."
)
LEGEND = (_COVERAGE, _RUNS, _EXPERIMENTS)


def upper_bound(missed: int, runs: int) -> float:
    """One-sided 95 % Clopper-Pearson bound on a rate."""
    from scipy.stats import beta

    return 1.0 if missed == runs else float(beta.ppf(0.95, missed + 1, runs - missed))


def figures(result: CalibrationResult) -> list[Figure]:
    """Everything that has a target."""
    found = _coverage_figures(result) + _width_figures(result)
    found += _false_figures(result.tests) + _harm_figures(result.tests)
    return found


def _coverage_figures(result: CalibrationResult) -> list[Figure]:
    kinds = {f"{c.world}, {c.what}": (c.misses, len(c.covered.missed)) for c in result.coverage}
    for chance, means in result.means.items():
        kinds[f"mean of Bernoulli({chance:g})"] = means.missed["mixture of bets"]
    bounds = {name: upper_bound(*counts) for name, counts in kinds.items()}
    worst = max(bounds, key=bounds.__getitem__)
    missed, runs = kinds[worst]
    note = f"of {len(kinds)} kinds, the worst: {worst}, {missed} of {runs}"
    name = "miscoverage at any row, upper bound"
    return [Figure(name, bounds[worst], "", at_most=ALPHA, note=note)]


def _width_figures(result: CalibrationResult) -> list[Figure]:
    found = [
        Figure(
            f"width over fixed-time, mean of Bernoulli({chance:g})",
            means.ratios["mixture of bets"],
            "x",
            at_most=WIDTH_AT_MOST,
            note=f"{result.plan.rows:,} rows",
        )
        for chance, means in result.means.items()
    ]
    return found + [_width_figure(own) for own in result.coverage if own.normal]


def _width_figure(own: Coverage) -> Figure:
    covers = _normal_covers(own)
    return Figure(
        f"width over fixed-time, {own.world}: {own.what}",
        _over_normal(own),
        "x",
        at_most=WIDTH_AT_MOST if covers >= _IS_AN_INTERVAL else None,
        note=f"normal, true variance; with the estimated one it covers {covers:.0%}",
    )


def _false_figures(tests: dict[str, list[tuple[int, int]]]) -> list[Figure]:
    verdicts = {t.name: _rate(tests[t.name], 0) for t in experiments.AA_TESTS}
    every = (*experiments.AA_TESTS, *experiments.MARGIN_TESTS)
    rollbacks = {t.name: _rate(tests[t.name], 1) for t in every}
    worst, back = max(verdicts, key=verdicts.__getitem__), max(rollbacks, key=rollbacks.__getitem__)
    return [
        Figure("A/A false verdicts", verdicts[worst], "", at_most=ALPHA, note=f"worst: {worst}"),
        Figure(
            "false rollbacks",
            rollbacks[back],
            "",
            at_most=FALSE_ROLLBACKS_AT_MOST,
            note=f"worst: {back}",
        ),
    ]


def _harm_figures(tests: dict[str, list[tuple[int, int]]]) -> list[Figure]:
    rates = {t.name: _rate(tests[t.name], 1) for t in experiments.HARM_TESTS}
    medians = {t.name: _median(t, tests[t.name]) for t in experiments.HARM_TESTS}
    least, slowest = min(rates, key=rates.__getitem__), max(medians, key=medians.__getitem__)
    return [
        Figure(
            "20 points worse: rolled back",
            rates[least],
            "",
            at_least=ROLLED_BACK_AT_LEAST,
            note=f"worst: {least}",
        ),
        Figure(
            "20 points worse: median decisions until then",
            medians[slowest],
            "",
            at_most=MEDIAN_AT_MOST,
            note=f"worst: {slowest}",
        ),
    ]


def grids(result: CalibrationResult) -> list[Grid]:
    """The tables, most important first."""
    return [
        figure_grid("Targets", figures(result)),
        _coverage_grid(result),
        _mean_grid(result),
        _test_grid(result),
    ]


def _coverage_grid(result: CalibrationResult) -> Grid:
    headers = ("log or world", "what", "runs", "missed", "at most")
    headers += (*(f"width {mark:,}" for mark in MARKS), "over normal", "it covers", "over one bet")
    rows = tuple(_coverage_row(own) for own in result.coverage)
    return Grid("Coverage at every row", (*headers, "vw cs", "vw el"), rows, texts=(1,))


def _coverage_row(own: Coverage) -> tuple[str, ...]:
    runs = len(own.covered.missed)
    row = (own.world, own.what, f"{runs:,}", str(own.misses))
    row += (f"{upper_bound(own.misses, runs):.3f}",)
    if not own.normal:
        return (*row, *[""] * (len(MARKS) + 5))
    widths = np.mean(own.covered.widths, axis=0)
    row += tuple(number(own.span * width) for width in widths[0])
    row += ("",) * (len(MARKS) - widths.shape[1])
    row += (number(_over_normal(own)), f"{_normal_covers(own):.2f}")
    row += (number(float(widths[0, -1] / widths[1, -1])),)
    return row + tuple(_peer(own, name) for name in PEERS)


def _peer(own: Coverage, name: str) -> str:
    pairs = own.peers.get(name)
    return number(float(np.mean([theirs / ours for theirs, ours in pairs]))) if pairs else ""


def _over_normal(own: Coverage) -> float:
    widths = np.mean([filled[0, -1] for filled in own.covered.widths])
    return float(widths / np.mean(own.normal))


def _normal_covers(own: Coverage) -> float:
    return float(np.mean([abs(filled[3, -1]) <= 1.96 for filled in own.covered.widths]))


def _mean_grid(result: CalibrationResult) -> Grid:
    rows = []
    for chance, means in result.means.items():
        for name, ratio in means.ratios.items():
            missed, runs = means.missed[name]
            bound = f"{upper_bound(missed, runs):.3f}"
            rows.append((f"{chance:g}", name, f"{runs:,}", str(missed), bound, number(ratio)))
    headers = ("mean", "sequence", "runs", "missed", "at most", "over normal")
    title = f"Mean of {result.plan.rows:,} independent observations"
    return Grid(title, headers, tuple(rows), texts=(1,))


def _test_grid(result: CalibrationResult) -> Grid:
    rows = []
    every = (*experiments.AA_TESTS, *experiments.MARGIN_TESTS, *experiments.HARM_TESTS)
    for test in every:
        done = result.tests[test.name]
        back = np.array([rollback for _, rollback in done if rollback > 0]) * test.decisions
        times = ("", "") if len(back) < len(done) / 2 else _times(back)
        rates = (f"{_rate(done, 0):.3f}", f"{_rate(done, 1):.3f}")
        rows.append((test.name, f"{len(done):,}", *rates, *times))
    headers = ("experiment", "runs", "verdicts", "rollbacks", "median decisions", "99 % by")
    return Grid("Experiments", headers, tuple(rows))


def _times(back: np.ndarray) -> tuple[str, str]:
    return number(float(np.median(back))), number(float(np.quantile(back, 0.99)))


def _rate(done: list[tuple[int, int]], which: int) -> float:
    return sum(run[which] > 0 for run in done) / len(done)


def _median(test: experiments.Test, done: list[tuple[int, int]]) -> float:
    """Median decisions until a rollback, those that never came counted as the last unit."""
    units = [back if back > 0 else experiments.UNITS for _, back in done]
    return float(np.median(units)) * test.decisions


def to_builtins(result: CalibrationResult, seconds: float) -> dict[str, Any]:
    """Everything as plain values."""
    plan = result.plan
    return {
        "schema": SCHEMA,
        "seconds": seconds,
        "parts": result.seconds,
        "runs": plan.runs,
        "rows": plan.rows,
        "seed0": plan.seed0,
        "folds": list(plan.folds),
        "tuning_folds": list(plan.tuning_folds),
        "notes": result.notes,
        "figures": [figure.to_builtins() for figure in figures(result)],
        "coverage": [_coverage_builtins(own) for own in result.coverage],
        "means": {
            f"{chance:g}": {
                name: {"ratio": ratio, "missed": means.missed[name][0], "of": means.missed[name][1]}
                for name, ratio in means.ratios.items()
            }
            for chance, means in result.means.items()
        },
        "experiments": {
            name: {"verdicts": _rate(done, 0), "rollbacks": _rate(done, 1), "runs": len(done)}
            for name, done in result.tests.items()
        },
    }


def _coverage_builtins(own: Coverage) -> dict[str, Any]:
    runs = len(own.covered.missed)
    found: dict[str, Any] = {
        "world": own.world,
        "what": own.what,
        "runs": runs,
        "missed": own.misses,
        "at_most": upper_bound(own.misses, runs),
    }
    if own.normal:
        widths = own.span * np.mean([filled[0] for filled in own.covered.widths], axis=0)
        found["width"] = dict(zip(map(str, MARKS), widths.tolist(), strict=False))
        found["over_normal"] = _over_normal(own)
        found["normal_covers"] = _normal_covers(own)
        found["peers_over_ours"] = {
            name: [theirs / ours for theirs, ours in pairs] for name, pairs in own.peers.items()
        }
    return found
