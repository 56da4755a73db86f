import numpy as np
import pytest

from pipeline.looks import part, places
from pipeline.preprocess import PreprocessSpec

OWN = PreprocessSpec(height_px=64, width_px=64)
LARGER = PreprocessSpec(height_px=100, width_px=100)


def spot(row, column, size=8):
    evidence = np.zeros((size, size), np.float32)
    evidence[row, column] = 1
    return evidence


@pytest.mark.parametrize(
    ("cell", "place"), [((0, 0), (0, 0)), ((7, 7), (36, 36)), ((0, 7), (0, 36)), ((4, 4), (24, 24))]
)
def test_the_first_place_is_around_the_peak_and_on_the_canvas(cell, place):
    assert places(spot(*cell), 1, LARGER, OWN) == [place]


def test_later_places_are_outside_of_earlier_ones():
    evidence = spot(1, 1) + 0.9 * spot(2, 2) + 0.5 * spot(7, 6)
    first, second, third = places(evidence, 3, LARGER, OWN)
    assert first == (0, 0)  # it holds the second spot too
    assert second == (36, 36)
    assert third not in (first, second)


def test_a_part_is_stretched_like_a_picture():
    larger = np.full((1, 100, 100), 0.2, np.float32)
    larger[0, 40:60, 40:60] = np.linspace(0.2, 0.6, 400, dtype=np.float32).reshape(20, 20)
    cut = part(larger, (36, 36), OWN)
    assert cut.shape == (1, 64, 64)
    assert (cut.min(), cut.max()) == (0, 1)
    assert cut[0, 4:24, 4:24].mean() > 0.4
