"""A picture as reports show it: eight bits, and no larger than a page can hold."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .domain import Array, Rendered

MOST_PX = 3072
"""Longest side. Detectors of 43 cm have up to about 4,300 px; those are halved."""


def render(pixels: Array) -> Rendered:
    """Bring a picture to eight bits, reduced by a whole number when it is larger than a screen.

    Args:
        pixels: (H, W) float32 in [0, 1].
    """
    reduction = -(-max(pixels.shape) // MOST_PX)
    eight = Image.fromarray(np.rint(pixels * np.float32(255)).astype(np.uint8))
    return Rendered(np.asarray(eight.reduce(reduction)), reduction)
