import numpy as np
import pytest

from stages.metrics import auc, auc_estimate, bootstrap, rate, sensitivity, share, specificity


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
