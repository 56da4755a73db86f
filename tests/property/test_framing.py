"""Location of the limb, for any position, plate size, resolution and tone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from pipeline.framing import WHOLE, Frame, find_limb
from pipeline.preprocess import PreprocessSpec, preprocess

_few = settings(max_examples=40, deadline=None)
CLOSE = 0.1
"""Tolerance of the frame's edges, as a fraction of the limb's longer side."""


def limb(height: int = 220, width: int = 90) -> np.ndarray:
    """(H, W) float32: a tapered bright shape with two bones and texture, on black."""
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width], float)[:, None, None]
    inside = np.abs(x - 0.5) < 0.42 - 0.2 * y
    bones = np.exp(-(((np.abs(x - 0.5) - 0.15) / 0.06) ** 2))
    texture = gaussian_filter(np.random.default_rng(3).random((height, width)), 2)
    picture = inside * (0.35 + 0.45 * bones + 1.5 * (texture - 0.5))
    return np.clip(gaussian_filter(picture, 1), 0, 1).astype(np.float32)


def on_plate(size: tuple[int, int], top: int, left: int, scale: float = 1.0) -> np.ndarray:
    picture = limb(round(220 * scale), round(90 * scale))
    plate = np.zeros(size, np.float32)
    plate[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return plate


def in_limb(frame: Frame, size: tuple[int, int], top: int, left: int, scale: float) -> np.ndarray:
    """The frame's edges in units of the limb's longer side, from its top left corner."""
    edges = np.array([frame.top, frame.left, frame.bottom, frame.right]) * (*size, *size)
    return (edges - (top, left, top, left)) / (220 * scale)


EXPECTED = in_limb(find_limb(on_plate((300, 260), 40, 80)), (300, 260), 40, 80, 1.0)


def test_frame_encloses_the_limb_closely() -> None:
    assert pytest.approx([0.0, 0.0, 1.0, 90 / 220], abs=0.13) == EXPECTED


@_few
@given(top=st.integers(20, 160), left=st.integers(20, 250), wide=st.integers(0, 200))
def test_frame_does_not_depend_on_position_or_plate_size(top: int, left: int, wide: int) -> None:
    size = (400, 360 + wide)
    frame = find_limb(on_plate(size, top, left))
    assert frame.found
    assert in_limb(frame, size, top, left, 1.0) == pytest.approx(EXPECTED, abs=CLOSE)


@_few
@given(scale=st.floats(0.7, 3.0))
def test_frame_does_not_depend_on_resolution(scale: float) -> None:
    size, top, left = (round(400 * scale), round(360 * scale)), round(60 * scale), round(99 * scale)
    frame = find_limb(on_plate(size, top, left, scale))
    assert in_limb(frame, size, top, left, scale) == pytest.approx(EXPECTED, abs=CLOSE)


@_few
@given(gain=st.floats(0.2, 1.0), offset=st.floats(0.0, 0.3), gamma=st.floats(0.6, 1.6))
def test_frame_does_not_depend_on_tone(gain: float, offset: float, gamma: float) -> None:
    plate = on_plate((400, 360), 60, 100) ** np.float32(gamma)
    toned = np.clip(plate * np.float32(gain) + np.float32(offset), 0, 1).astype(np.float32)
    frame = find_limb(toned)
    assert in_limb(frame, (400, 360), 60, 100, 1.0) == pytest.approx(EXPECTED, abs=CLOSE)


@_few
@given(rim=st.integers(4, 30), side=st.integers(0, 3))
def test_frame_excludes_a_bright_rim_of_the_plate(rim: int, side: int) -> None:
    plate = on_plate((400, 360), 80, 130)
    np.rot90(plate, side)[:rim] = 1.0  # rot90 gives a view, so this changes the plate
    frame = find_limb(plate)
    assert in_limb(frame, (400, 360), 80, 130, 1.0) == pytest.approx(EXPECTED, abs=CLOSE)


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_frame_without_a_limb_is_the_whole_picture(value: float) -> None:
    assert find_limb(np.full((200, 300), value, np.float32)) == WHOLE


@_few
@given(height=st.integers(1, 60), width=st.integers(1, 60), seed=st.integers(0, 5))
def test_frame_is_inside_the_picture(height: int, width: int, seed: int) -> None:
    frame = find_limb(np.random.default_rng(seed).random((height, width), np.float32))
    assert 0.0 <= frame.top < frame.bottom <= 1.0
    assert 0.0 <= frame.left < frame.right <= 1.0


def test_canvas_contains_the_limb_at_its_placement() -> None:
    plate, spec = on_plate((600, 500), 100, 50), PreprocessSpec(height_px=96, width_px=96)
    array, placement = preprocess(plate, spec)
    assert placement.framed
    top, left = placement.to_canvas(100, 50)
    bottom, right = placement.to_canvas(320, 140)
    assert 0 <= top < bottom <= 96
    assert bottom - top > 70
    outside = array[0].copy()
    outside[int(top) : int(bottom) + 1, int(left) : int(right) + 1] = 0
    assert outside.max() < 0.1
    assert not preprocess(np.zeros((60, 50), np.float32), spec)[1].framed
