"""Weighing of the first look and the closest look of a specialist."""

import numpy as np
import pytest

from stages.statistics.metrics import auc
from stages.training.closer_looks import Weighing, fit_weighing


def cases(n=400, seed=0, first=1.0, closest=1.0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.4).astype(np.float32)
    looks = [
        (gain * (2 * labels - 1) + rng.standard_normal(n)).astype(np.float32)
        for gain in (first, closest)
    ]
    return labels, *looks


def test_combined_looks_rank_better_than_either():
    labels, first, closest = cases()
    combined = fit_weighing(labels, first, closest).probabilities(first, closest)
    either = max(auc(labels, first) or 0.0, auc(labels, closest) or 0.0)
    assert auc(labels, combined) > either + 0.01


def test_uninformative_look_has_a_small_weight():
    weighing = fit_weighing(*cases(closest=0.0))
    assert weighing.close < 0.2 * weighing.whole


def test_probabilities_are_calibrated():
    labels, first, closest = cases(4000, 1)
    scores = fit_weighing(labels, first, closest).probabilities(first, closest)
    for low in (0.0, 0.25, 0.5, 0.75):
        inside = (scores >= low) & (scores < low + 0.25)
        assert labels[inside].mean() == pytest.approx(scores[inside].mean(), abs=0.06)


def test_unknown_labels_are_ignored_and_one_class_gives_the_default():
    labels, first, closest = cases()
    half = labels.copy()
    half[::2] = np.nan
    known = fit_weighing(labels[1::2], first[1::2], closest[1::2])
    assert fit_weighing(half, first, closest) == known
    assert fit_weighing(np.ones(5, np.float32), first[:5], closest[:5]) == Weighing(0.5, 0.5, 0.0)
