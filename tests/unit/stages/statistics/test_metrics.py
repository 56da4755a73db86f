"""Figures of binary decisions and their intervals by bootstrap and by Wilson."""

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


def test_auc_is_the_share_of_correctly_ordered_pairs():
    labels = np.array([0, 0, 1, 1], np.float32)
    scores = np.array([0.1, 0.4, 0.35, 0.8], np.float32)
    assert auc(labels, scores) == 0.75


def test_auc_ignores_unknown_labels():
    labels = np.array([0, 1, np.nan], np.float32)
    assert auc(labels, np.array([0.1, 0.9, 0.5], np.float32)) == 1.0


def test_undefined_figure_is_none_with_a_reason():
    estimate = auc_estimate(np.zeros(3, np.float32), np.zeros(3, np.float32), ["a", "b", "c"])
    assert estimate.value is None
    assert "positive" in estimate.note
    assert rate(0, 0).value is None


def test_wilson_interval_of_nine_in_ten():
    # (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.959964
    estimate = rate(9, 10)
    assert (estimate.low, estimate.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)


def test_bootstrap_draws_groups_instead_of_pictures():
    # Ten copies of a picture in one group give the same information as one.
    values = np.random.default_rng(0).random(30)
    single = bootstrap(lambda rows: float(values[rows].mean()), [str(i) for i in range(30)])
    copies = np.repeat(values, 10)
    groups = [str(i) for i in range(30) for _ in range(10)]
    grouped = bootstrap(lambda rows: float(copies[rows].mean()), groups)
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.15)


def test_sensitivity_and_specificity_use_one_class_each():
    labels = np.array([1, 1, 1, 0, 0], np.float32)
    calls = np.array([True, True, False, True, False])
    assert sensitivity(labels, calls).value == pytest.approx(2 / 3)
    assert specificity(labels, calls).value == 0.5


def test_share_of_0_or_1_has_a_wilson_interval_of_the_groups():
    groups = [str(i // 2) for i in range(40)]
    none = share(np.zeros(40, bool), groups)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == rate(0, 20).high > 0.1
    assert share(np.ones(40, bool), groups).low == rate(20, 20).low
    assert share(np.zeros(0, bool), []).value is None


def test_interval_contains_the_share():
    hits = np.arange(40) % 4 == 0
    estimate = share(hits, [str(i) for i in range(40)])
    assert estimate.low < estimate.value == 0.25 < estimate.high


# ---------------------------------------------------------------------- binary figures


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


def test_figures_of_six_cases():
    six = cases([1, 1, 1, 0, 0, 0], [0.9, 0.8, 0.2, 0.7, 0.1, 0.1])
    value = {name: e.value for name, e in binary_figures(six, (0.1,)).items()}
    assert value["auc"] == pytest.approx(8 / 9)
    assert value["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert value["accuracy"] == value["balanced_accuracy"] == pytest.approx(4 / 6)
    assert (value["sensitivity"], value["specificity"]) == pytest.approx((2 / 3, 2 / 3))
    assert (value["ppv"], value["npv"]) == pytest.approx((2 / 3, 2 / 3))
    assert value["kappa"] == pytest.approx(1 / 3)
    assert value["brier"] == pytest.approx((0.01 + 0.04 + 0.64 + 0.49 + 0.01 + 0.01) / 6)
    # Bins: 0.1 twice, 0.2, 0.7, 0.8, 0.9; the absolute difference of the sums in each.
    assert value["ece"] == pytest.approx((0.2 + 0.8 + 0.7 + 0.2 + 0.1) / 6)
    # Bayes: true positives 2/3 of 10%, false positives 1/3 of 90%.
    assert value["ppv_at_0.1"] == pytest.approx((0.1 * 2 / 3) / (0.1 * 2 / 3 + 0.9 / 3))
    assert value["npv_at_0.1"] == pytest.approx((0.9 * 2 / 3) / (0.9 * 2 / 3 + 0.1 / 3))


def test_draws_equal_the_figures_of_repeated_cases():
    sample = random_cases()
    bins = np.eye(10, dtype=bool)[probability_bins(sample.scores)]
    weights = next(drawn_weights(sample.groups.tolist(), 5, seed=3))
    draws = binary_draws(sample.labels, sample.scores, sample.calls, weights, bins, (0.2,))
    for i, times in enumerate(weights.astype(int)):
        rows = np.repeat(np.arange(len(sample)), times)
        repeated = sample[rows]
        for name, figure in BINARY.items():
            assert draws[name][i] == pytest.approx(figure(repeated)), name
    once = binary_draws(
        sample.labels, sample.scores, sample.calls, weights[:1] * 0 + 1, bins, (0.2,)
    )
    for name, estimate in binary_figures(sample, (0.2,)).items():
        assert once[name][0] == pytest.approx(estimate.value), name
        assert estimate.low < estimate.value < estimate.high, name


def test_bootstrap_draws_whole_groups():
    weights = np.concatenate(list(drawn_weights(["a", "a", "b", "c"], 300, seed=0)))
    assert weights.shape == (300, 4)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 0] + weights[:, 2] + weights[:, 3] == 3).all()
    assert weights[:, 2].mean() == pytest.approx(1, abs=0.15)


def test_draws_of_many_cases_are_divided_into_blocks():
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


def test_every_figure_is_undefined_without_cases():
    figures = binary_figures(cases([], []), (0.5,))
    assert list(figures) == [*BINARY, "ppv_at_0.5", "npv_at_0.5"]
    assert {(e.value, e.note) for e in figures.values()} == {(None, "no cases")}


def test_figures_of_one_group_have_no_interval():
    one_group = cases([1, 1, 0, 0], [0.9, 0.2, 0.8, 0.1], groups=["a"] * 4)
    for name in ("auc", "sensitivity", "accuracy", "ece"):
        estimate = binary_figures(one_group)[name]
        assert estimate.value is not None
        assert (estimate.low, estimate.high) == (None, None)
        assert "no interval" in estimate.note


def test_proportion_of_1_has_the_wilson_interval_of_the_groups():
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


def test_roc_of_a_draw_equals_scikit_learn():
    sample = random_cases()
    weights = next(drawn_weights(sample.groups.tolist(), 1, seed=5))
    false, true = roc_draws(sample.labels, sample.scores, weights)
    expected = sklearn_metrics.roc_curve(
        sample.labels, sample.scores, sample_weight=weights[0], drop_intermediate=False
    )
    assert np.interp(expected[0], false[0], true[0]) == pytest.approx(
        np.interp(expected[0], expected[0], expected[1])
    )
    assert sklearn_metrics.auc(false[0], true[0]) == pytest.approx(
        sklearn_metrics.roc_auc_score(sample.labels, sample.scores, sample_weight=weights[0])
    )


def test_average_precision_of_one_class_is_nan():
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    draws = average_precision_draws(np.array([True, False]), np.array([0.9, 0.1]), weights)
    assert np.isnan(draws[:2]).all()
    assert draws[2] == 1.0


def test_risk_is_the_error_rate_of_the_most_confident():
    errors = np.array([False, True, False, True])
    confidence = np.array([3.0, 2.0, 1.0, 1.0])
    coverage, risk = risk_draws(errors, confidence, np.ones((1, 4)))
    assert coverage[0].tolist() == [0.25, 0.5, 1.0]  # the last two have equal confidence
    assert risk[0].tolist() == [0.0, 0.5, 0.5]
    assert aurc(coverage, risk)[0] == pytest.approx(0.25 * 0 + 0.25 * 0.5 + 0.5 * 0.5)


def test_interval_ignores_undefined_draws():
    assert interval(np.array([np.nan, np.nan])) is None
    assert interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
