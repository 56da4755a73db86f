"""The one resize is the one that torch calls bilinear with antialias."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.preprocess import Fit, PreprocessSpec, preprocess

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("size", [(300, 200), (97, 211), (64, 64), (40, 50)])
def test_pillow_float_bilinear_is_torch_antialiased_bilinear(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).random(size, np.float32)
    # The percentiles 0 and 100 make the stretch an affine map that can be taken back.
    spec = PreprocessSpec(
        frame="whole", height_px=64, width_px=64, fit=Fit.SQUASH, clip_percent=(0, 100)
    )
    ours, _ = preprocess(pixels, spec)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(pixels)[None, None],
        (64, 64),
        mode="bilinear",
        antialias=True,
        align_corners=False,
    )[0].numpy()
    low, high = theirs.min(), theirs.max()
    np.testing.assert_allclose(ours * (high - low) + low, theirs, atol=2e-6)
