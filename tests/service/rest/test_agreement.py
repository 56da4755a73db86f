"""Statistics of agreement against other implementations, and warnings about drift."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from pipeline.service import quality
from pipeline.service.agreement import Rate, kappa
from pipeline.service.engine_card import _shares


@pytest.mark.parametrize(("hits", "number"), [(0, 1), (0, 20), (7, 9), (50, 100), (20, 20)])
def test_interval_equals_wilson(hits, number):
    rate = Rate.of(hits, number)
    expected = binomtest(hits, number).proportion_ci(0.95, method="wilson")
    assert rate.value == hits / number
    assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_rate_without_data_is_undefined():
    assert Rate.of(0, 0) == Rate(None, None, None)
    assert not Rate().is_disjoint(0.1, 0.2)


@pytest.mark.parametrize("counts", [[[40, 5], [7, 48]], [[5, 5], [5, 5]]])
def test_kappa_equals_cohen(counts):
    table = np.array(counts)
    pairs = [(i, j) for i in range(2) for j in range(2) for _ in range(table[i, j])]
    rate = kappa(table)
    assert rate.value == pytest.approx(cohen_kappa_score(*zip(*pairs, strict=True)))
    assert rate.low <= rate.value <= rate.high


@pytest.mark.parametrize(("counts", "value"), [([[10, 0], [0, 3]], 1.0), ([[0, 0], [1, 2]], 0.0)])
def test_kappa_without_variation_has_no_interval(counts, value):
    assert kappa(np.array(counts)) == Rate(value)


@pytest.mark.parametrize("counts", [[[0, 0], [0, 0]], [[9, 0], [0, 0]]])
def test_kappa_without_two_classes_is_undefined(counts):
    assert kappa(np.array(counts)) == Rate()


def test_rate_of_few_pictures_is_not_a_drift():
    card = {"value": 0.1, "low": 0.05, "high": 0.15}
    assert not quality._drift(20, 25, card).warn
    assert quality._drift(80, 100, card).warn
    assert not quality._drift(12, 100, card).warn
    assert not quality._drift(80, 100, None).warn


def test_weeks_begin_on_monday():
    monday = 1_767_571_200_000  # 2026-01-05
    assert quality.week_of(monday) == monday
    assert quality.week_of(monday + quality.WEEK_MS - 1) == monday


def test_card_rates_need_the_evaluation_of_the_same_files(tmp_path):
    rate = {"sensitivity": {"value": 0.5}, "specificity": {"value": 0.9}}
    routed = {"network": rate, "positives": 20, "pairs": 120, "groups": 60}
    refused = {"value": 0.02, "low": 0.0, "high": 0.05, "note": ""}
    content = {
        "facts": {"bundles": {"region": {"sha256": "a"}}},
        "fracture": {"pooled": {"routed": routed}},
        "gate": {"refused": {"supported": {"shares": {"either": refused}}}},
    }
    path = tmp_path / "evaluation.json"
    none = {"positive": None, "unsupported": None}
    assert _shares(path, {"region": "a"}) == none
    path.write_text(json.dumps(content))
    shares = _shares(path, {"region": "a"})
    assert shares["positive"]["value"] == pytest.approx(20 / 120)
    assert shares["positive"]["low"] < 20 / 120 < shares["positive"]["high"]
    assert shares["unsupported"] == {"value": 0.02, "low": 0.0, "high": 0.05}
    assert _shares(path, {"region": "b"}) == none
    path.write_text("{}")
    assert _shares(path, {"region": "a"}) == none
