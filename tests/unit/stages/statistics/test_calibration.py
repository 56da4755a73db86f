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


@pytest.mark.parametrize(("temperature", "bias"), [(1.0, 0.0), (2.0, -1.0), (0.7, 0.5)])
def test_calibration_recovers_what_made_the_labels(temperature, bias):
    found = fit_calibration(*drawn(temperature, bias))
    assert found == pytest.approx((temperature, bias), abs=0.15)


def test_calibration_without_both_classes_changes_nothing():
    assert fit_calibration(np.ones(5, np.float32), np.arange(5.0, dtype=np.float32)) == (1.0, 0.0)


def test_two_positives_cannot_drive_the_calibration_far():
    logits = np.array([5, 6, -5, -6, -7], np.float32)
    temperature, bias = fit_calibration(np.array([1, 1, 0, 0, 0], np.float32), logits)
    assert 0.3 < temperature < 3
    assert abs(bias) < 3


def test_unknown_labels_are_left_out_of_the_fit():
    labels, logits = drawn(2.0, 0.0)
    open_ = np.concatenate([labels, np.full(500, np.nan, np.float32)])
    more = np.concatenate([logits, np.full(500, 50, np.float32)])
    assert fit_calibration(open_, more) == fit_calibration(labels, logits)


def test_the_route_threshold_lies_in_the_middle_of_the_gap():
    labels = np.array([0, 0, 0, 1, 1, np.nan], np.float32)
    scores = np.array([0.01, 0.05, 0.1, 0.9, 0.99, 0.5], np.float32)
    assert route_threshold(labels, scores) == pytest.approx(0.5, abs=1e-6)


def test_the_route_threshold_does_not_depend_on_how_many_pictures_are_to_be_refused():
    supported, refusable = [0.35, 0.8, 0.9], [*np.linspace(0.02, 0.2, 9), 0.4]
    for times in (1, 100):
        labels = np.array([1.0] * 3 + [0.0] * 10 * times)
        threshold = route_threshold(labels, np.array(supported + refusable * times))
        assert 0.2 < threshold < 0.35, "a third missed is worse than 3 times a tenth let in"
        labels = np.array([1.0] * 3 + [0.0] * 5 * times)
        threshold = route_threshold(labels, np.array(supported + refusable[5:] * times))
        assert 0.4 < threshold < 0.8, "and better than 3 times a fifth"


def test_another_region_in_view_is_no_false_alarm_of_the_router():
    targets = np.array([[1, 0], [0, 1], [0, 0], [np.nan, 1]], np.float32)
    nan = np.nan
    np.testing.assert_equal(route_labels(targets), [[1, nan], [nan, 1], [0, 0], [nan, 1]])
    without = targets[:2]
    np.testing.assert_equal(route_labels(without), without)


def test_operating_points_reach_their_targets_on_their_own_split():
    labels, logits = drawn(1.0, -0.5)
    scores = probabilities(logits[:, None], np.ones(1), np.full(1, -0.5, np.float32))[:, 0]
    points = operating_points(labels, scores)
    assert points["sensitive"].sensitivity.value >= 0.95
    assert points["specific"].specificity.value >= 0.95
    thresholds = [points[name].threshold for name in ("sensitive", "balanced", "specific")]
    assert thresholds == sorted(thresholds)


def test_the_sensitive_threshold_holds_on_new_pictures_on_average():
    """Over many draws of 39 positives, a new positive is called with probability 0.95."""
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


def test_views_of_a_picture_are_no_cases_of_their_own():
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


def test_targets_move_the_points_and_the_rule_names_them():
    labels, logits = drawn(1.0, 0.0)
    scores = probabilities(logits[:, None], np.ones(1), np.zeros(1))[:, 0]
    usual, strict = (operating_points(labels, scores, target) for target in (0.95, 0.99))
    assert strict["sensitive"].threshold < usual["sensitive"].threshold
    assert strict["specific"].threshold == usual["specific"].threshold
    assert "sensitivity 0.99" in strict["sensitive"].rule


def test_few_cases_cannot_promise_a_target():
    labels = np.array([1] * 5 + [0] * 60, np.float32)
    scores = np.linspace(1, 0, 65, dtype=np.float32)
    points = operating_points(labels, scores)
    assert "not guaranteed with 5 cases" in points["sensitive"].rule
    assert points["sensitive"].sensitivity.value == 1.0
    assert "not guaranteed" not in points["specific"].rule


def test_what_lies_between_sensitive_and_the_point_is_uncertain():
    labels, logits = drawn(1.0, 0.0)
    points = operating_points(labels, probabilities(logits[:, None], np.ones(1), np.zeros(1))[:, 0])
    sensitive = points["sensitive"].threshold
    assert points["sensitive"].doubt_below == sensitive
    assert points["balanced"].doubt_below == points["specific"].doubt_below == sensitive
    assert sensitive < points["balanced"].threshold


@pytest.mark.parametrize("seed", range(20))
def test_thresholds_rise_from_sensitive_to_specific_whatever_the_scores(seed):
    """Also where the labels lie so far apart that the quantiles come the other way round."""
    random = np.random.default_rng(seed)
    labels = np.repeat([1, 0], random.integers(1, 60, 2)).astype(np.float32)
    scores = random.normal(labels * random.uniform(0, 8), 1)
    points = operating_points(labels, (1 / (1 + np.exp(-scores))).astype(np.float32))
    sensitive, balanced, specific = (points[n] for n in ("sensitive", "balanced", "specific"))
    assert sensitive.threshold <= balanced.threshold <= specific.threshold
    assert sensitive.sensitivity.value >= 0.95
    assert specific.specificity.value >= 0.95


def test_points_that_would_cross_meet_at_balanced_and_say_so():
    labels = np.repeat([0, 1], 60).astype(np.float32)
    scores = np.concatenate([np.linspace(0.01, 0.13, 60), np.linspace(0.4, 0.9, 60)])
    points = operating_points(labels, scores.astype(np.float32))
    assert len({point.threshold for point in points.values()}) == 1
    assert "lowered to balanced" in points["sensitive"].rule
    assert "raised to balanced" in points["specific"].rule
    assert points["specific"].specificity.value == points["sensitive"].sensitivity.value == 1.0


def test_operating_points_say_when_there_were_no_cases():
    points = operating_points(np.zeros(4, np.float32), np.linspace(0, 1, 4, dtype=np.float32))
    assert points["balanced"].sensitivity.value is None
    assert points["balanced"].sensitivity.note == "no cases"
    for point in points.values():
        assert "undefined, too few cases (0 positive, 4 other): 0.5 is used" in point.rule
