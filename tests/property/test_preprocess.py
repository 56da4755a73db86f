"""Preprocessing: shape and range of the array, and its placement on the picture."""

from __future__ import annotations

import factories
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.preprocess import Fit, PreprocessSpec, preprocess

_sizes = st.tuples(st.integers(1, 90), st.integers(1, 90))
_specs = st.builds(
    PreprocessSpec,
    height_px=st.integers(32, 80),
    width_px=st.integers(32, 80),
    frame=st.sampled_from(["limb", "whole"]),
    fit=st.sampled_from(Fit),
    resample=st.sampled_from(["bilinear", "bicubic", "lanczos"]),
    pad_value=st.floats(0.0, 1.0, width=32),
    clip_percent=st.tuples(st.floats(0.0, 40.0), st.floats(60.0, 100.0)),
)
_few = settings(max_examples=60, deadline=None)


def _noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(size, np.float32)


@_few
@given(size=_sizes, spec=_specs, seed=st.integers(0, 9))
def test_array_has_the_specified_shape_and_unit_range(
    size: tuple[int, int], spec: PreprocessSpec, seed: int
) -> None:
    array, _ = preprocess(_noise(size, seed), spec)
    assert array.shape == (1, spec.height_px, spec.width_px)
    assert array.dtype == np.float32
    assert float(array.min()) >= 0.0
    assert float(array.max()) <= 1.0


@_few
@given(size=_sizes, spec=_specs, y=st.floats(0, 90), x=st.floats(0, 90))
def test_placement_maps_to_the_canvas_and_back(
    size: tuple[int, int], spec: PreprocessSpec, y: float, x: float
) -> None:
    _, placement = preprocess(_noise(size), spec)
    assert placement.to_source(*placement.to_canvas(y, x)) == pytest.approx((y, x), abs=1e-6)
    assert placement.source_shape == size


@_few
@given(size=_sizes, spec=_specs)
def test_preprocessing_is_deterministic(size: tuple[int, int], spec: PreprocessSpec) -> None:
    again = PreprocessSpec.model_validate_json(spec.model_dump_json())
    first, second = preprocess(_noise(size), spec)[0], preprocess(_noise(size), again)[0]
    np.testing.assert_array_equal(first, second)


@_few
@given(gain=st.floats(0.1, 0.9), offset=st.floats(0.0, 0.1))
def test_array_does_not_depend_on_brightness_and_contrast(gain: float, offset: float) -> None:
    pixels, spec = factories.bone(), PreprocessSpec(height_px=64, width_px=64)
    changed = (pixels * np.float32(gain) + np.float32(offset)).astype(np.float32)
    first, second = preprocess(pixels, spec)[0], preprocess(changed, spec)[0]
    np.testing.assert_allclose(first, second, atol=2e-5)


@pytest.mark.parametrize(
    ("fit", "covered", "top_left"),
    [
        (Fit.PAD, (slice(0, 64), slice(16, 48)), (0, 16)),
        (Fit.CROP, (slice(0, 64), slice(0, 64)), (-32, 0)),
        (Fit.SQUASH, (slice(0, 64), slice(0, 64)), (0, 0)),
    ],
)
def test_tall_picture_is_padded_cropped_or_squashed(
    fit: Fit, covered: tuple[slice, slice], top_left: tuple[int, int]
) -> None:
    spec = PreprocessSpec(
        height_px=64, width_px=64, frame="whole", fit=fit, pad_value=0.5, clip_percent=(0, 100)
    )
    rows = np.arange(80, dtype=np.float32)[:, None] % 2
    tall = np.asarray(rows.repeat(40, 1), np.float32)
    array, placement = preprocess(tall, spec)
    inside = np.zeros((64, 64), bool)
    inside[covered] = True
    # The padding surrounds the picture; inside the picture, values vary.
    assert (array[0][~inside] == 0.5).all()
    assert (placement.top_px, placement.left_px) == top_left
    assert placement.to_canvas(40, 20) == (32, 32)  # the centre maps to the centre
    assert array[0][inside].std() > 0.05


def test_picture_of_canvas_size_is_only_stretched() -> None:
    spec = PreprocessSpec(height_px=48, width_px=40, frame="whole", clip_percent=(0, 100))
    pixels = factories.bone(48, 40)
    low, high = pixels.min(), pixels.max()
    np.testing.assert_allclose(
        preprocess(pixels, spec)[0][0], (pixels - low) / (high - low), atol=1e-6
    )


def test_clip_percentiles_become_black_and_white() -> None:
    spec = PreprocessSpec(height_px=40, width_px=50, frame="whole", clip_percent=(10, 90))
    pixels = np.linspace(0, 1, 2000, dtype=np.float32).reshape(40, 50)
    array = preprocess(pixels, spec)[0][0]
    np.testing.assert_allclose(array, np.clip((pixels - 0.1) / 0.8, 0, 1), atol=1e-5)


def test_picture_of_one_grey_value_becomes_black() -> None:
    spec = PreprocessSpec(height_px=32, width_px=32, fit=Fit.SQUASH)
    assert preprocess(np.full((5, 7), 0.7, np.float32), spec)[0].max() == 0.0


@pytest.mark.parametrize("clip", [(50, 50), (90, 10), (-1, 99), (0, 101)])
def test_invalid_percentiles_are_refused(clip: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="clip_percent"):
        PreprocessSpec(clip_percent=clip)


@pytest.mark.parametrize("size", [(2500, 1700), (1300, 3300), (9000, 500)])
@pytest.mark.parametrize("fit", Fit)
def test_resize_in_bands_equals_resize_of_the_whole_picture(
    size: tuple[int, int], fit: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = PreprocessSpec(frame="whole", fit=fit)
    banded, _ = preprocess(_noise(size), spec)
    monkeypatch.setattr("pipeline.preprocess.LARGE_PIXELS", 10**9)
    whole, _ = preprocess(_noise(size), spec)
    # The resize differs in the last bit, which the stretch of the grey values amplifies.
    np.testing.assert_allclose(banded, whole, atol=5e-6, rtol=0)
