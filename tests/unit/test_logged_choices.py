"""What no estimator may use is refused, with a message that says where and why."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from support.logs import hand_log, made_log

from bandit_router.errors import InputError
from bandit_router.ope.evaluation import Question, measure, survey
from bandit_router.ope.frozen import Frozen
from bandit_router.ope.logged import check
from bandit_router.ope.propensities import PropensityCheck
from bandit_router.ope.support import Support
from bandit_router.ope.targets import Preferred, Uniform, fixed


def with_cell(name: str, row: int, value, column: int | None = None):
    log = hand_log()
    array = getattr(log, name).astype(type(value), copy=True)
    array[row if column is None else (row, column)] = value
    return dataclasses.replace(log, **{name: array})


BAD = [
    (with_cell("propensity", 1, 0.0), "interaction 2: propensity 0.0 must be above 0"),
    (with_cell("propensity", 1, -0.25), "interaction 2: propensity -0.25 must be above 0"),
    (with_cell("propensity", 1, 1.5), "interaction 2: propensity 1.5 must be above 0 and at most"),
    (with_cell("propensity", 1, math.nan), "interaction 2: propensity nan must be above 0"),
    (with_cell("propensity", 1, 0.3), "interaction 2: propensity 0.3 is not the pmf's entry"),
    (with_cell("pmf", 2, 0.7, 0), "interaction 3: pmf 1.2 is its sum, which must be 1"),
    (with_cell("pmf", 2, -0.1, 0), "interaction 3: pmf .* has an entry that is no probability"),
    (with_cell("pmf", 2, math.nan, 0), "interaction 3: pmf .* has an entry that is no probability"),
    (with_cell("action", 3, 2), "interaction 4: action 2 is none of the 2 models"),
    (with_cell("action", 3, -1), "interaction 4: action -1 is none of the 2 models"),
    (
        with_cell("eligible", 0, False, 1),
        "interaction 1: pmf .* gives a model a share that was not",
    ),
    (with_cell("score", 0, 1.01), r"interaction 1: score 1.01 must be in \[0, 1\]"),
    (with_cell("score", 0, -0.01), r"interaction 1: score -0.01 must be in \[0, 1\]"),
    (with_cell("score", 0, math.inf), r"interaction 1: score inf must be in \[0, 1\]"),
    (
        with_cell("cost_usd", 0, -1.0),
        "interaction 1: cost_usd -1.0 must be finite and not negative",
    ),
    (with_cell("cost_usd", 0, math.inf), "interaction 1: cost_usd inf must be finite"),
    (
        with_cell("quality_value_usd", 0, 0.0),
        "interaction 1: quality_value_usd 0.0 must be above 0",
    ),
    (with_cell("quality_value_usd", 0, math.nan), "interaction 1: quality_value_usd nan must be"),
    (with_cell("features", 3, math.nan, 0), "interaction 4: features .* are not finite"),
]


@pytest.mark.parametrize(("log", "message"), BAD, ids=[message[:45] for _, message in BAD])
def test_a_bad_row_is_named(log, message):
    with pytest.raises(InputError, match=f"^{message}"):
        check(log)
    with pytest.raises(InputError, match=f"^{message}"):
        survey(Question(log.models), 1, [log])


def test_a_good_log_and_unknown_outcomes_are_not_complained_about():
    check(hand_log())
    check(with_cell("score", 0, math.nan))
    check(with_cell("cost_usd", 0, math.nan))


def test_an_action_that_was_masked_is_refused():
    log = dataclasses.replace(
        hand_log(),
        eligible=np.array([[False, True], [True, True], [True, True], [True, True]]),
        pmf=np.array([[0.0, 1.0], [0.75, 0.25], [0.5, 0.5], [0.75, 0.25]]),
    )
    with pytest.raises(InputError, match="interaction 1: action 0 was not eligible"):
        check(log)


@pytest.mark.parametrize("name", ["propensity", "score", "pmf", "features"])
def test_arrays_of_different_lengths_are_refused(name):
    log = dataclasses.replace(hand_log(), **{name: getattr(hand_log(), name)[:3]})
    with pytest.raises(InputError, match=f"{name} has shape .* where the log has 4 rows, 2 models"):
        check(log)


def test_features_of_another_length_are_refused():
    with pytest.raises(InputError, match="1 features where the log began with 2"):
        survey(Question(("a", "b")), 2, [hand_log()])


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_quality_value_out_of_range_is_refused(value):
    with pytest.raises(InputError, match=r"quality value .* must be finite and above 0, in USD"):
        Question(("a",), quality_value_usd=value)


def test_an_unknown_estimator_is_refused():
    with pytest.raises(InputError, match="unknown estimator 'mle'; there are: ips, snips, dr"):
        Question(("a",), ("mle",))


def one_sided():
    """A log in which the second model never had a chance from row 3 on."""
    log = hand_log()
    pmf = log.pmf.copy()
    pmf[2:] = [1.0, 0.0]
    action = np.array([0, 1, 0, 0])
    return dataclasses.replace(log, pmf=pmf, action=action, propensity=pmf[np.arange(4), action])


def test_missing_support_is_a_refusal_that_names_the_share_the_model_and_the_row():
    log = one_sided()
    fitted = survey(Question(log.models), 1, [log]).finish()
    a, b = measure(fitted, [fixed("a", ("a", "b")), fixed("b", ("a", "b"))], [log])
    assert a.support.refusal(a.estimators["score"]["ips"].moments) is None
    message = b.support.refusal(b.estimators["score"]["ips"].moments)
    assert message.startswith(
        "fixed:b cannot be estimated from this log: 50.00% of its choices had no chance there "
        "(first 'b' at interaction 3)"
    )
    assert b.support.share_off == 0.5


def test_support_merges_to_the_earliest_example():
    log, target = one_sided(), np.tile([0.0, 1.0], (4, 1))
    parts = []
    for rows in ([3], [0, 1], [2]):
        support = Support("b", log.models)
        support.add(log.take(np.array(rows)), target[rows])
        parts.append(support)
    merged = parts[0] + parts[1] + parts[2]
    assert (merged.n, merged.share_off, merged.example) == (4, 0.5, (3, "b"))


def test_a_target_that_nothing_matched_is_refused():
    log = hand_log().take(np.array([0, 3]))
    fitted = survey(Question(log.models), 1, [log]).finish()
    [sums] = measure(fitted, [fixed("b", ("a", "b"))], [log])
    message = sums.support.refusal(sums.estimators["score"]["ips"].moments)
    assert "none of 2 interactions chose what it may choose" in message


def test_a_policy_cannot_be_asked_about_rows_without_contexts():
    with pytest.raises(InputError, match="p: the log was read without the features"):
        Frozen("p", policy=None).probabilities(hand_log())


def test_a_fixed_model_that_is_masked_gives_way_to_the_cheapest():
    made = made_log(6).log
    eligible = made.eligible.copy()
    eligible[:3, 2] = False
    log = dataclasses.replace(made, eligible=eligible)
    chosen = fixed("large", ("small", "middle", "large")).probabilities(log).argmax(axis=1)
    assert chosen.tolist() == [0, 0, 0, 2, 2, 2]
    assert (Uniform().probabilities(log)[:, 2] == [0, 0, 0, 1 / 3, 1 / 3, 1 / 3]).all()


def test_a_target_without_a_price_for_any_eligible_model_is_refused():
    with pytest.raises(InputError, match="interaction 1 has no eligible model that has a price"):
        Preferred("cheapest", ()).probabilities(hand_log())


# -- propensities that did not draw ---------------------------------------------------------------


def complaint(log) -> str | None:
    found = PropensityCheck(log.models)
    found.add(log)
    return found.problem()


@pytest.mark.parametrize("seed", range(20))
def test_true_propensities_are_not_complained_about(seed):
    assert complaint(made_log(4000, seed).log) is None


def shifted_index(log):
    """The action's index is off by one."""
    return dataclasses.replace(log, action=(log.action + 1) % 3)


def swapped_pmf(log):
    """Two entries of the pmf changed places before it was logged."""
    return dataclasses.replace(log, pmf=log.pmf[:, [2, 1, 0]])


def before_the_mask(log):
    """The pmf is from before a mask took the middle model out, so that another one was drawn."""
    action = np.where(log.action == 1, 2, log.action)
    return dataclasses.replace(log, action=action)


def fallback_under_the_old_propensity(log):
    """When the large model fails, the small one answers, under the pmf that chose the large."""
    fails = (np.arange(len(log)) % 4 == 0) & (log.action == 2)
    return dataclasses.replace(log, action=np.where(fails, 0, log.action))


@pytest.mark.parametrize(
    "mutation",
    [shifted_index, swapped_pmf, before_the_mask, fallback_under_the_old_propensity],
    ids=lambda mutation: mutation.__name__,
)
def test_propensities_that_did_not_draw_are_noticed(mutation):
    log = made_log(4000).log
    if mutation in (shifted_index, swapped_pmf):  # a symmetric log would hide them
        keep = log.pmf[:, 0] > log.pmf[:, 2]
        log = log.take(keep)
    message = complaint(mutation(log))
    assert message is not None
    assert "the propensities are not those that drew the actions" in message


def test_the_check_of_the_propensities_merges():
    log = shifted_index(made_log(4000).log.take(np.arange(3000)))
    whole, parts = PropensityCheck(log.models), []
    whole.add(log)
    for rows in np.array_split(np.arange(3000), 3):
        part = PropensityCheck(log.models)
        part.add(log.take(rows))
        parts.append(part)
    assert (parts[2] + parts[0] + parts[1]).problem() == whole.problem()
