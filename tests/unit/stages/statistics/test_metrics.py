import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from stages.statistics.bootstrap import (
    aurc,
    average_precision_draws,
    binary_draws,
    drawn_weights,
    interval,
    risk_draws,
    roc_draws,
)
from stages.statistics.metrics import (
    BINARY,
    Cases,
    auc,
    auc_estimate,
    binary_figures,
    bootstrap,
    expected_calibration_error,
    probability_bins,
    rate,
    sensitivity,
    share,
    specificity,
)


def test_auc_is_the_share_of_rightly_ordered_pairs():
    labels = np.array([0, 0, 1, 1], np.float32)
    scores = np.array([0.1, 0.4, 0.35, 0.8], np.float32)
    assert auc(labels, scores) == 0.75


def test_auc_leaves_unknown_labels_out():
    labels = np.array([0, 1, np.nan], np.float32)
    assert auc(labels, np.array([0.1, 0.9, 0.5], np.float32)) == 1.0


def test_an_undefined_figure_is_none_and_says_why():
    estimate = auc_estimate(np.zeros(3, np.float32), np.zeros(3, np.float32), ["a", "b", "c"])
    assert estimate.value is None
    assert "positive" in estimate.note
    assert rate(0, 0).value is None


def test_wilson_interval_of_nine_in_ten():
    # Computed by hand: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.959964
    estimate = rate(9, 10)
    assert (estimate.low, estimate.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)


def test_bootstrap_draws_groups_not_pictures():
    # Ten copies of each picture in one group carry no more information than one.
    values = np.random.default_rng(0).random(30)
    single = bootstrap(lambda rows: float(values[rows].mean()), [str(i) for i in range(30)])
    copies = np.repeat(values, 10)
    groups = [str(i) for i in range(30) for _ in range(10)]
    grouped = bootstrap(lambda rows: float(copies[rows].mean()), groups)
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.15)


def test_sensitivity_and_specificity_count_their_own_class_only():
    labels = np.array([1, 1, 1, 0, 0], np.float32)
    calls = np.array([True, True, False, True, False])
    assert sensitivity(labels, calls).value == pytest.approx(2 / 3)
    assert specificity(labels, calls).value == 0.5


def test_none_of_many_is_not_certainly_none():
    groups = [str(i // 2) for i in range(40)]
    none = share(np.zeros(40, bool), groups)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == rate(0, 20).high > 0.1
    assert share(np.ones(40, bool), groups).low == rate(20, 20).low
    assert share(np.zeros(0, bool), []).value is None


def test_a_share_of_some_has_an_interval_around_it():
    hits = np.arange(40) % 4 == 0
    estimate = share(hits, [str(i) for i in range(40)])
    assert estimate.low < estimate.value == 0.25 < estimate.high


# ------------------------------------------------------------------- a yes-or-no stage as a whole


def cases(labels, scores, calls=None, groups=None) -> Cases:
    scores = np.array(scores, float)
    groups = [str(i) for i in range(len(scores))] if groups is None else groups
    return Cases(
        np.array(labels, bool),
        scores,
        scores >= 0.5 if calls is None else np.array(calls, bool),
        np.array(groups, dtype=str),
    )


def random_cases(count=200, seed=1) -> Cases:
    random = np.random.default_rng(seed)
    labels = random.random(count) < 0.3
    scores = np.clip(random.normal(0.3 + 0.3 * labels, 0.2), 0, 1).round(2)  # ties
    return cases(labels, scores, groups=[str(i // 3) for i in range(count)])


def test_figures_of_six_cases_by_hand():
    six = cases([1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.2, 0.7, 0.1, 0.1])
    value = {name: e.value for name, e in binary_figures(six, (0.1,)).items()}
    assert value["auc"] == pytest.approx(8 / 9)
    assert value["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert value["accuracy"] == value["balanced_accuracy"] == pytest.approx(4 / 6)
    assert (value["sensitivity"], value["specificity"]) == pytest.approx((2 / 3, 2 / 3))
    assert (value["ppv"], value["npv"]) == pytest.approx((2 / 3, 2 / 3))
    assert value["kappa"] == pytest.approx(1 / 3)
    assert value["brier"] == pytest.approx((0.01 + 0.04 + 0.64 + 0.49 + 0.01 + 0.01) / 6)
    # Bins: 0.1 twice, 0.2, 0.7, 0.8, 0.9, each with the gap of its sum.
    assert value["ece"] == pytest.approx((0.2 + 0.8 + 0.7 + 0.2 + 0.1) / 6)
    # Bayes: 2/3 of 10 % found, 1/3 of 90 % false alarms.
    assert value["ppv_at_0.1"] == pytest.approx((0.1 * 2 / 3) / (0.1 * 2 / 3 + 0.9 / 3))
    assert value["npv_at_0.1"] == pytest.approx((0.9 * 2 / 3) / (0.9 * 2 / 3 + 0.1 / 3))


def test_draws_are_the_figures_of_repeated_cases():
    some = random_cases()
    bins = np.eye(10, dtype=bool)[probability_bins(some.scores)]
    weights = next(drawn_weights(some.groups.tolist(), 5, seed=3))
    draws = binary_draws(some.labels, some.scores, some.calls, weights, bins, (0.2,))
    for i, times in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(len(some)), times)
        repeated = some[rows]
        for name, figure in BINARY.items():
            assert draws[name][i] == pytest.approx(figure(repeated)), name
    once = binary_draws(some.labels, some.scores, some.calls, weights[:1] * 0 + 1, bins, (0.2,))
    for name, estimate in binary_figures(some, (0.2,)).items():
        assert once[name][0] == pytest.approx(estimate.value), name
        assert estimate.low < estimate.value < estimate.high, name


def test_groups_are_drawn_whole():
    weights = np.concatenate(list(drawn_weights(["a", "a", "b", "c"], 300, seed=0)))
    assert weights.shape == (300, 4)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 0] + weights[:, 2] + weights[:, 3] == 3).all()
    assert weights[:, 2].mean() == pytest.approx(1, abs=0.15)


def test_many_cases_are_drawn_in_blocks_that_make_up_the_draws():
    groups = [str(i) for i in range(300_000)]
    blocks = list(drawn_weights(groups, 8, seed=0))
    assert len(blocks) > 1
    assert sum(len(block) for block in blocks) == 8


@pytest.mark.parametrize(
    ("labels", "calls", "undefined"),
    [
        (
            [0, 0, 0], [1, 0, 0],
            {
                "auc": "both", "average_precision": "both", "balanced_accuracy": "both",
                "kappa": "both", "sensitivity": "no positive", "ppv_at_0.5": "no positive",
                "npv_at_0.5": "no positive",
            },
        ),
        (
            [1, 1], [1, 1],
            {
                "auc": "both", "average_precision": "both", "balanced_accuracy": "both",
                "kappa": "both", "specificity": "no negative", "npv": "called negative",
                "ppv_at_0.5": "no negative", "npv_at_0.5": "no negative",
            },
        ),
        ([1, 0], [0, 0], {"ppv": "called positive", "ppv_at_0.5": "called positive"}),
        ([1, 0], [1, 1], {"npv": "called negative", "npv_at_0.5": "called negative"}),
    ],
)  # fmt: skip
def test_undefined_figures_are_none_with_a_reason(labels, calls, undefined):
    figures = binary_figures(cases(labels, [0.5] * len(labels), calls), (0.5,))
    for name, estimate in figures.items():
        assert (estimate.value is None) == (name in undefined), name
        if name in undefined:
            assert undefined[name] in estimate.note
            assert (estimate.low, estimate.high) == (None, None)


def test_no_cases_leave_every_figure_undefined():
    figures = binary_figures(cases([], []), (0.5,))
    assert list(figures) == [*BINARY, "ppv_at_0.5", "npv_at_0.5"]
    assert {(e.value, e.note) for e in figures.values()} == {(None, "no cases")}


def test_one_group_has_no_interval():
    one = cases([1, 1, 0, 0], [0.9, 0.2, 0.8, 0.1], groups=["a"] * 4)
    for name in ("auc", "sensitivity", "accuracy", "ece"):
        estimate = binary_figures(one)[name]
        assert estimate.value is not None
        assert (estimate.low, estimate.high) == (None, None)
        assert "no interval" in estimate.note


def test_a_perfect_proportion_has_the_interval_of_as_many_groups():
    labels, groups = [1, 0] * 10, [str(i // 4) for i in range(20)]
    figures = binary_figures(cases(labels, np.array(labels) * 0.8 + 0.1, groups=groups))
    assert figures["sensitivity"] == figures["accuracy"] == rate(5, 5)


def test_ece_has_ten_bins_of_equal_width():
    edges = np.array([0.0, 0.05, 0.1, 0.95, 1.0])
    assert probability_bins(edges).tolist() == [0, 0, 1, 9, 9]
    labels = np.array([False, True, True, True])
    assert expected_calibration_error(labels, np.array([0.1, 0.15, 0.6, 0.9])) == pytest.approx(
        (abs(0.25 - 1) + 0.4 + 0.1) / 4
    )


def test_the_roc_of_a_draw_is_scikit_learns():
    some = random_cases()
    weights = next(drawn_weights(some.groups.tolist(), 1, seed=5))
    false, true = roc_draws(some.labels, some.scores, weights)
    wanted = sklearn_metrics.roc_curve(
        some.labels, some.scores, sample_weight=weights[0], drop_intermediate=False
    )
    assert np.interp(wanted[0], false[0], true[0]) == pytest.approx(
        np.interp(wanted[0], wanted[0], wanted[1])
    )
    assert sklearn_metrics.auc(false[0], true[0]) == pytest.approx(
        sklearn_metrics.roc_auc_score(some.labels, some.scores, sample_weight=weights[0])
    )


def test_average_precision_of_one_class_is_as_undefined_as_its_auc():
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    draws = average_precision_draws(np.array([True, False]), np.array([0.9, 0.1]), weights)
    assert np.isnan(draws[:2]).all()
    assert draws[2] == 1.0


def test_risk_is_the_error_rate_of_the_surest():
    errors = np.array([False, True, False, True])
    confidence = np.array([3.0, 2.0, 1.0, 1.0])
    coverage, risk = risk_draws(errors, confidence, np.ones((1, 4)))
    assert coverage[0].tolist() == [0.25, 0.5, 1.0]  # the last two are equally sure
    assert risk[0].tolist() == [0.0, 0.5, 0.5]
    assert aurc(coverage, risk)[0] == pytest.approx(0.25 * 0 + 0.25 * 0.5 + 0.5 * 0.5)


def test_the_interval_leaves_undefined_draws_out():
    assert interval(np.array([np.nan, np.nan])) is None
    assert interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
