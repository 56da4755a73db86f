"""Places and parts of closer looks."""

import numpy as np
import pytest

from pipeline.looks import part, places
from pipeline.preprocess import PreprocessSpec

CANVAS = PreprocessSpec(height_px=64, width_px=64)
LARGER = PreprocessSpec(height_px=100, width_px=100)


def spot(row, column, size=8):
    evidence = np.zeros((size, size), np.float32)
    evidence[row, column] = 1
    return evidence


@pytest.mark.parametrize(
    ("cell", "place"), [((0, 0), (0, 0)), ((7, 7), (36, 36)), ((0, 7), (0, 36)), ((4, 4), (24, 24))]
)
def test_first_place_encloses_the_peak_on_the_canvas(cell, place):
    assert places(spot(*cell), 1, LARGER, CANVAS) == [place]


def test_later_places_are_outside_earlier_ones():
    evidence = spot(1, 1) + 0.9 * spot(2, 2) + 0.5 * spot(7, 6)
    first, second, third = places(evidence, 3, LARGER, CANVAS)
    assert first == (0, 0)  # encloses the second spot too
    assert second == (36, 36)
    assert third not in (first, second)


def test_part_is_stretched_to_the_unit_range():
    larger = np.full((1, 100, 100), 0.2, np.float32)
    larger[0, 40:60, 40:60] = np.linspace(0.2, 0.6, 400, dtype=np.float32).reshape(20, 20)
    cut = part(larger, (36, 36), CANVAS)
    assert cut.shape == (1, 64, 64)
    assert (cut.min(), cut.max()) == (0, 1)
    assert cut[0, 4:24, 4:24].mean() > 0.4
