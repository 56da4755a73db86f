"""The resize of the preprocessing equals torch's bilinear interpolation with antialiasing."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.preprocess import Fit, PreprocessSpec, preprocess

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("size", [(300, 200), (97, 211), (64, 64), (40, 50)])
def test_resize_equals_torch_antialiased_bilinear(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).random(size, np.float32)
    # With the percentiles 0 and 100, the stretch is an affine map that can be inverted.
    spec = PreprocessSpec(
        frame="whole", height_px=64, width_px=64, fit=Fit.SQUASH, clip_percent=(0, 100)
    )
    canvas, _ = preprocess(pixels, spec)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(pixels)[None, None],
        (64, 64),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )[0].numpy()
    low, high = expected.min(), expected.max()
    np.testing.assert_allclose(canvas * (high - low) + low, expected, atol=2e-6)
