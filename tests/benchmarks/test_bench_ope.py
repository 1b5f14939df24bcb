"""The benches of off-policy evaluation: runs join to the whole, and what is measured is named."""

from __future__ import annotations

import numpy as np
import pytest

from bandit_router.bench.ope_accuracy import Accuracy
from bandit_router.bench.ope_report import _joined, accuracy_figures, accuracy_grid
from bandit_router.bench.ope_speed import evaluation_figures


def made(estimator: str, errors, *, variance: float, covered: float = 1.0) -> Accuracy:
    return Accuracy(
        target="best",
        estimator=estimator,
        truth=0.5,
        errors=np.array(errors),
        variance=variance,
        covered=covered,
        covered_normal=0.5,
        width=0.2,
    )


def test_runs_that_were_made_apart_join_to_the_whole():
    one, other = (
        made("ips", [0.1, -0.2], variance=0.04),
        made("ips", [0.4], variance=0.01, covered=0),
    )
    [both] = _joined([one], [other])
    assert both.errors.tolist() == [0.1, -0.2, 0.4]
    assert both.variance == pytest.approx(0.03)
    assert both.covered == pytest.approx(2 / 3)
    assert both.bias_in_standard_errors == pytest.approx(0.1 / np.sqrt(0.03 / 3))


def test_a_bias_or_a_doubly_robust_that_errs_more_misses_its_target():
    good = {
        "log": [
            made("ips", [0.1, -0.1, 0.01], variance=0.02),
            made("dr", [0.05, -0.04, 0.0], variance=0.01),
        ]
    }
    assert [figure.verdict for figure in accuracy_figures(good)] == ["ok"] * 4
    bad = {
        "log": [
            made("ips", [0.6, 0.5, 0.55], variance=0.02),
            made("dr", [0.6, 0.5, 0.5], variance=0.03, covered=0.9),
        ]
    }
    assert [figure.verdict for figure in accuracy_figures(bad)] == ["missed"] * 4
    assert len(accuracy_grid(good).rows) == 2


def test_speed_is_measured_in_processes_of_their_own():
    seconds, memory, ratio = evaluation_figures(3000)
    assert (seconds.unit, memory.unit, ratio.unit) == ("s", "MB", "x")
    assert min(seconds.value, memory.value, ratio.value) > 0.0
    assert seconds.at_most is None  # the target is that of a million
