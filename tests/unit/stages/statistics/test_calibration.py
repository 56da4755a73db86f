"""Calibration, route thresholds and operating points."""

import numpy as np
import pytest

from stages.statistics.calibration import (
    fit_calibration,
    operating_points,
    probabilities,
    route_labels,
    route_threshold,
)


def drawn(temperature, bias, count=4000, seed=3):
    """Logits whose true probability is sigmoid(logit / temperature + bias)."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, count).astype(np.float32)
    p = 1 / (1 + np.exp(-(logits / temperature + bias)))
    return (random.random(count) < p).astype(np.float32), logits


def calibrated(logits, bias):
    """(N,) probabilities of (N,) logits at temperature 1."""
    one, shift = np.ones(1, np.float32), np.full(1, bias, np.float32)
    return probabilities(logits[:, None], one, shift)[:, 0]


@pytest.mark.parametrize(("temperature", "bias"), [(1.0, 0.0), (2.0, -1.0), (0.7, 0.5)])
def test_calibration_recovers_the_parameters_of_the_labels(temperature, bias):
    fitted = fit_calibration(*drawn(temperature, bias))
    assert fitted == pytest.approx((temperature, bias), abs=0.15)


def test_calibration_without_both_classes_changes_nothing():
    assert fit_calibration(np.ones(5, np.float32), np.arange(5.0, dtype=np.float32)) == (1.0, 0.0)


def test_calibration_with_two_positives_stays_bounded():
    logits = np.array([5, 6, -5, -6, -7], np.float32)
    temperature, bias = fit_calibration(np.array([1, 1, 0, 0, 0], np.float32), logits)
    assert 0.3 < temperature < 3
    assert abs(bias) < 3


def test_calibration_ignores_unknown_labels():
    labels, logits = drawn(2.0, 0.0)
    with_unknown = np.concatenate([labels, np.full(500, np.nan, np.float32)])
    more = np.concatenate([logits, np.full(500, 50, np.float32)])
    assert fit_calibration(with_unknown, more) == fit_calibration(labels, logits)


def test_route_threshold_is_the_middle_of_the_gap():
    labels = np.array([0, 0, 0, 1, 1, np.nan], np.float32)
    scores = np.array([0.01, 0.05, 0.1, 0.9, 0.99, 0.5], np.float32)
    assert route_threshold(labels, scores) == pytest.approx(0.5, abs=1e-6)


def test_route_threshold_does_not_depend_on_the_number_of_pictures_to_refuse():
    supported, refusable = [0.35, 0.8, 0.9], [*np.linspace(0.02, 0.2, 9), 0.4]
    for times in (1, 100):
        labels = np.array([1.0] * 3 + [0.0] * 10 * times)
        threshold = route_threshold(labels, np.array(supported + refusable * times))
        assert 0.2 < threshold < 0.35, "missing 1/3 costs more than accepting 1/10 at weight 3"
        labels = np.array([1.0] * 3 + [0.0] * 5 * times)
        threshold = route_threshold(labels, np.array(supported + refusable[5:] * times))
        assert 0.4 < threshold < 0.8, "missing 1/3 costs less than accepting 1/5 at weight 3"


def test_route_labels_are_unknown_if_another_region_is_in_view():
    targets = np.array([[1, 0], [0, 1], [0, 0], [np.nan, 1]], np.float32)
    nan = np.nan
    np.testing.assert_equal(route_labels(targets), [[1, nan], [nan, 1], [0, 0], [nan, 1]])
    without = targets[:2]
    np.testing.assert_equal(route_labels(without), without)


def test_operating_points_reach_their_targets_on_the_fitted_split():
    labels, logits = drawn(1.0, -0.5)
    scores = calibrated(logits, -0.5)
    points = operating_points(labels, scores)
    assert points["sensitive"].sensitivity.value >= 0.95
    assert points["specific"].specificity.value >= 0.95
    thresholds = [points[name].threshold for name in ("sensitive", "balanced", "specific")]
    assert thresholds == sorted(thresholds)


def test_sensitive_threshold_reaches_its_target_on_new_pictures_on_average():
    """Over many draws of 39 positives, a new positive is called positive with probability 0.95."""
    random = np.random.default_rng(0)
    called = []
    for _ in range(400):
        positives = random.normal(1, 1, 39).astype(np.float32)
        scores = 1 / (1 + np.exp(-np.concatenate([positives, random.normal(-1, 1, 60)])))
        labels = np.repeat([1.0, 0.0], [39, 60]).astype(np.float32)
        threshold = operating_points(labels, scores.astype(np.float32))["sensitive"].threshold
        new = 1 / (1 + np.exp(-random.normal(1, 1, 200)))
        called.append(np.mean(new >= threshold))
    assert np.mean(called) == pytest.approx(0.95, abs=0.012)


def test_views_of_a_picture_are_not_separate_cases():
    random = np.random.default_rng(3)
    labels = np.repeat([1.0, 0.0], [7, 60]).astype(np.float32)
    scores = random.uniform(0.2, 0.8, 67).astype(np.float32)
    views = np.tile(labels, 3), np.concatenate([scores, scores - 0.1, scores + 0.1])
    plain = np.arange(3 * 67) < 67
    once, thrice = operating_points(labels, scores), operating_points(*views, plain=plain)
    assert "not guaranteed with 7 cases" in once["sensitive"].rule
    assert "not guaranteed with 7 cases" in thrice["sensitive"].rule
    assert thrice["sensitive"].threshold <= views[1][views[0] == 1].min()
    for name, point in thrice.items():
        called = scores[labels == 1] >= np.float32(point.threshold)
        assert point.sensitivity.value == pytest.approx(called.mean()), name
        assert point.sensitivity.high - point.sensitivity.low > 0.3
    copies = operating_points(np.tile(labels, 3), np.tile(scores, 3), plain=plain)
    assert copies == once


def test_targets_change_the_points_and_are_stated_in_the_rule():
    labels, logits = drawn(1.0, 0.0)
    scores = calibrated(logits, 0.0)
    default, strict = (operating_points(labels, scores, target) for target in (0.95, 0.99))
    assert strict["sensitive"].threshold < default["sensitive"].threshold
    assert strict["specific"].threshold == default["specific"].threshold
    assert "sensitivity 0.99" in strict["sensitive"].rule


def test_rule_states_that_few_cases_do_not_guarantee_the_target():
    labels = np.array([1] * 5 + [0] * 60, np.float32)
    scores = np.linspace(1, 0, 65, dtype=np.float32)
    points = operating_points(labels, scores)
    assert "not guaranteed with 5 cases" in points["sensitive"].rule
    assert points["sensitive"].sensitivity.value == 1.0
    assert "not guaranteed" not in points["specific"].rule


def test_uncertain_range_starts_at_the_sensitive_threshold():
    labels, logits = drawn(1.0, 0.0)
    points = operating_points(labels, calibrated(logits, 0.0))
    sensitive = points["sensitive"].threshold
    assert points["sensitive"].doubt_below == sensitive
    assert points["balanced"].doubt_below == points["specific"].doubt_below == sensitive
    assert sensitive < points["balanced"].threshold


@pytest.mark.parametrize("seed", range(20))
def test_thresholds_increase_from_sensitive_to_specific_for_any_scores(seed):
    """Including classes so far apart that the order of the quantiles is reversed."""
    random = np.random.default_rng(seed)
    labels = np.repeat([1, 0], random.integers(1, 60, 2)).astype(np.float32)
    scores = random.normal(labels * random.uniform(0, 8), 1)
    points = operating_points(labels, (1 / (1 + np.exp(-scores))).astype(np.float32))
    sensitive, balanced, specific = (points[n] for n in ("sensitive", "balanced", "specific"))
    assert sensitive.threshold <= balanced.threshold <= specific.threshold
    assert sensitive.sensitivity.value >= 0.95
    assert specific.specificity.value >= 0.95


def test_points_in_reversed_order_are_set_to_balanced_and_the_rule_states_it():
    labels = np.repeat([0, 1], 60).astype(np.float32)
    scores = np.concatenate([np.linspace(0.01, 0.13, 60), np.linspace(0.4, 0.9, 60)])
    points = operating_points(labels, scores.astype(np.float32))
    assert len({point.threshold for point in points.values()}) == 1
    assert "lowered to balanced" in points["sensitive"].rule
    assert "raised to balanced" in points["specific"].rule
    assert points["specific"].specificity.value == points["sensitive"].sensitivity.value == 1.0


def test_rule_states_that_there_were_too_few_cases():
    points = operating_points(np.zeros(4, np.float32), np.linspace(0, 1, 4, dtype=np.float32))
    assert points["balanced"].sensitivity.value is None
    assert points["balanced"].sensitivity.note == "no cases"
    for point in points.values():
        assert "undefined, too few cases (0 positive, 4 other): 0.5 is used" in point.rule
