"""Laws of every off-policy estimator: right by hand, unbiased, tighter with more, mergeable."""

from __future__ import annotations

import numpy as np
import pytest
from support.logs import hand_log, made_log

from bandit_router.adapters.estimators import interval, row_by_row
from bandit_router.errors import InputError
from bandit_router.ope.evaluation import ESTIMATORS, OUTCOMES, Question, measure, survey
from bandit_router.ope.targets import AsLogged, Mixed, Preferred, Uniform, fixed
from bandit_router.ope.terms import Terms, terms

ORDER = ("small", "middle", "large")
TARGETS = (
    fixed("large", ORDER),
    Preferred("cheapest", ORDER),
    Uniform(),
    AsLogged(),
    Mixed("mixed", ((0.3, fixed("middle", ORDER)), (0.7, Uniform()))),
)
FOLDINGS = ("crossed", "past")

every_estimator = pytest.mark.parametrize("name", ESTIMATORS)
every_folding = pytest.mark.parametrize("folding", FOLDINGS)


def evaluated(parts, folding="crossed", targets=TARGETS, value=None):
    """Both passes over the parts of a log, merged."""
    question = Question(parts[0].models, quality_value_usd=value, folding=folding)
    surveys = [survey(question, parts[0].features.shape[1], [part]) for part in parts]
    fitted = sum(surveys[1:], surveys[0]).finish()
    measured = [measure(fitted, targets, [part]) for part in parts]
    return [sum(sums[1:], sums[0]) for sums in zip(*measured, strict=True)]


def hand_terms(model: int, prediction: np.ndarray | None = None) -> Terms:
    log = hand_log()
    target = np.zeros((4, 2))
    target[:, model] = 1.0
    return terms(log, target, log.score, (0.0, 1.0), prediction)


@pytest.mark.parametrize(
    ("name", "model", "value"),
    [
        # always a: weights 2, 0, 0, 4/3 on scores 1, 1, 0, 0
        ("ips", 0, 2.0 / 4.0),
        ("snips", 0, 2.0 / (2.0 + 4.0 / 3.0)),
        # always b: weights 0, 4, 2, 0
        ("ips", 1, 4.0 / 4.0),
        ("snips", 1, 4.0 / 6.0),
    ],
)
def test_values_are_those_on_paper(name, model, value):
    estimator = ESTIMATORS[name]()
    estimator.add(hand_terms(model))
    assert estimator.estimate().value == pytest.approx(value, rel=1e-15)


def test_doubly_robust_is_that_on_paper():
    # predictions .5 for a and .25 for b: .5 + (2 (1 - .5) + 4/3 (0 - .5)) / 4 for always a
    estimator = ESTIMATORS["dr"]()
    estimator.add(hand_terms(0, np.tile([0.5, 0.25], (4, 1))))
    assert estimator.estimate().value == pytest.approx(0.5 + (1.0 - 2.0 / 3.0) / 4.0, rel=1e-15)


def test_doubly_robust_without_a_model_is_ips():
    with_zeros, ips = ESTIMATORS["dr"](), ESTIMATORS["ips"]()
    for estimator in (with_zeros, ips):
        estimator.add(hand_terms(1))
    assert with_zeros.estimate() == ips.estimate()


def test_doubly_robust_with_perfect_predictions_does_not_depend_on_what_was_chosen():
    made = made_log(300)
    target = fixed("large", ORDER).probabilities(made.log)
    estimator = ESTIMATORS["dr"]()
    estimator.add(terms(made.log, target, made.log.score, (0.0, 1.0), made.scores))
    assert estimator.estimate().value == pytest.approx(made.scores[:, 2].mean(), abs=1e-12)


@every_folding
@every_estimator
def test_the_logging_policy_gets_what_was_logged(name, folding):
    log = made_log(3000).log
    [sums] = evaluated([log], folding, [AsLogged()])
    found = sums.estimators["score"][name].estimate()
    assert found.value == pytest.approx(log.score.mean(), abs=3.0 * found.standard_error)
    if name != "dr":
        assert found.value == pytest.approx(log.score.mean(), rel=1e-12)


@every_folding
@every_estimator
def test_estimates_are_within_their_standard_errors_of_the_truth(name, folding):
    standardised = []
    for seed in range(40):
        made = made_log(600, seed)
        results = evaluated([made.log], folding, TARGETS[:3])
        for target, sums in zip(TARGETS, results, strict=False):
            truth = (target.probabilities(made.log) * made.scores).sum(axis=1).mean()
            found = sums.estimators["score"][name].estimate()
            standardised.append((found.value - truth) / found.standard_error)
    mean = np.mean(standardised)
    # 120 errors of which three share a log: their mean has a standard deviation below .16
    assert abs(mean) < 0.5
    assert np.mean(np.abs(standardised) < 1.96) > 0.88


@every_estimator
def test_more_data_is_tighter(name):
    errors, widths = [], []
    for n in (500, 2000, 8000, 32000):
        sums = evaluated([made_log(n, seed=3).log])[0]
        estimator = sums.estimators["score"][name]
        errors.append(estimator.estimate().standard_error)
        low, high = interval(estimator)
        widths.append(high - low)
    for values in (errors, widths):
        ratios = np.array(values[1:]) / np.array(values[:-1])
        assert (ratios < 0.75).all(), ratios  # four times the rows: about a half


@every_folding
@pytest.mark.parametrize("seed", range(3))
def test_parts_merged_equal_the_whole_in_every_bit_in_any_order_and_division(seed, folding):
    log = made_log(2500, seed).log
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, len(log), 6))
    parts = [log.take(rows) for rows in np.split(rng.permutation(len(log)), cuts)]
    whole, merged = evaluated([log], folding), evaluated(parts, folding)
    for one, other in zip(whole, merged, strict=True):
        assert one.support.share_off == other.support.share_off
        for outcome in OUTCOMES:
            for name in ESTIMATORS:
                a, b = (sums.estimators[outcome][name] for sums in (one, other))
                assert a.estimate() == b.estimate()
                assert interval(a) == interval(b)
                assert a.moments.sums() == b.moments.sums()


@every_estimator
def test_an_empty_log_has_no_estimate(name):
    with pytest.raises(InputError, match="the log is empty"):
        ESTIMATORS[name]().estimate()
    with pytest.raises(InputError, match="no interval from an empty log"):
        interval(ESTIMATORS[name]())


@every_estimator
def test_a_part_without_rows_changes_nothing(name):
    log = made_log(400).log
    parts = [log, log.take(np.zeros(len(log), dtype=bool))]
    with_empty, without = evaluated(parts)[0], evaluated([log])[0]
    assert with_empty.estimators["score"][name].estimate() == (
        without.estimators["score"][name].estimate()
    )


def test_one_matching_row_tells_nothing_of_the_spread():
    estimator = ESTIMATORS["snips"]()
    log = hand_log().take(np.array([0, 2]))
    target = np.tile([1.0, 0.0], (2, 1))
    estimator.add(terms(log, target, log.score, (0.0, 1.0)))
    assert estimator.estimate().standard_error == np.inf


def test_no_matching_row_has_no_self_normalised_mean():
    estimator = ESTIMATORS["snips"]()
    log = hand_log().take(np.array([2]))
    estimator.add(terms(log, np.array([[1.0, 0.0]]), log.score, (0.0, 1.0)))
    with pytest.raises(InputError, match="none of 1 rows chose what the target may choose"):
        estimator.estimate()


def rows_of(log, target):
    rows = np.arange(len(log))
    chosen = target[rows, log.action]
    return list(zip(log.propensity.tolist(), log.score.tolist(), chosen.tolist(), strict=True))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@pytest.mark.parametrize("name", ["ips", "snips"])
def test_values_are_those_of_vw_estimators(name, target):
    log = made_log(500).log
    [sums] = evaluated([log], targets=[target])
    expected = row_by_row(name, rows_of(log, target.probabilities(log)))
    assert sums.estimators["score"][name].estimate().value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("target", TARGETS[:3], ids=lambda target: target.name)
def test_intervals_are_those_of_vw_estimators(target):
    log = made_log(500).log
    [sums] = evaluated([log], targets=[target])
    rows = rows_of(log, target.probabilities(log))
    ips = sums.estimators["score"]["ips"]
    assert ips.estimate().normal_interval() == pytest.approx(row_by_row("gaussian", rows), rel=1e-6)
    ips.moments.weight_range = (0.0, np.inf)  # what the package assumes when it is told nothing
    assert interval(ips) == pytest.approx(row_by_row("cressieread", rows), abs=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, float("nan")])
def test_alpha_is_between_0_and_1(alpha):
    ips = evaluated([made_log(50).log])[0].estimators["score"]["ips"]
    with pytest.raises(InputError, match=r"alpha .* must be between 0 and 1"):
        interval(ips, alpha)
    with pytest.raises(InputError, match=r"alpha .* must be between 0 and 1"):
        ips.estimate().normal_interval(alpha)
