"""Rounding of weights to int8: no overflow of pairs, smaller error on smooth patches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.export.rounding import round_weights, safe_step

WEIGHTS = arrays(
    np.float64, (3, 4, 3, 3), elements=st.floats(-2.0, 2.0, allow_subnormal=False, width=32)
)


def largest_pair(levels: np.ndarray) -> int:
    """The largest sum of two adjacent values of one sign, in both memory orders."""
    rows = [levels.reshape(len(levels), -1), levels.transpose(0, 2, 3, 1).reshape(len(levels), -1)]
    return max(
        int(np.maximum(sign * (row.astype(int)), 0)[:, i : i + 2].sum(1).max())
        for row in rows
        for sign in (1, -1)
        for i in range(row.shape[1] - 1)
    )


@settings(deadline=None, max_examples=50)
@given(WEIGHTS)
def test_no_pair_of_products_overflows_int16(weight):
    step = safe_step(weight)
    plain = np.rint(weight / step[:, None, None, None])
    patches = np.random.default_rng(0).normal(size=(64, 36))
    for levels in (plain, round_weights(weight, step, patches)):
        assert np.abs(levels).max() <= 127
        assert 255 * largest_pair(levels) <= 2**15 - 1


def test_large_weight_without_large_neighbours_keeps_8_bits():
    weight = np.full((1, 8, 1, 1), 0.001)
    weight[0, 3] = 1.0
    assert safe_step(weight)[0] == pytest.approx(1.0 / 127, rel=0.01)
    weight[0, 4] = 1.0  # with a large neighbour: 7 bits
    assert safe_step(weight)[0] == pytest.approx(1.0 / 64, rel=0.01)


def test_step_of_zero_weights_is_1():
    assert safe_step(np.zeros((2, 1, 3, 3))).tolist() == [1.0, 1.0]
    assert not round_weights(np.zeros((2, 1, 3, 3)), np.ones(2), np.zeros((10, 9))).any()


def test_error_on_smooth_patches_is_smaller_than_by_nearest_rounding():
    random = np.random.default_rng(3)
    weight = random.normal(size=(16, 1, 5, 5))
    # Adjacent pixels of a radiograph are nearly equal; a random walk imitates this.
    patches = np.cumsum(random.normal(size=(4000, 25)), axis=1)
    step = safe_step(weight)

    def output_error(levels: np.ndarray) -> float:
        error = (weight - levels * step[:, None, None, None]).reshape(16, -1)
        return float(((patches - patches.mean(0)) @ error.T).var())

    fitted = output_error(round_weights(weight, step, patches[:2000]))
    assert fitted < 0.5 * output_error(np.rint(weight / step[:, None, None, None]))
