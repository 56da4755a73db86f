"""Rendering of pictures for reports: eight bits and limited size."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .domain import Array, Rendered
from .row_bands import bands

MOST_PX = 3072
"""Longest side in px. Detectors of 43 cm have up to about 4,300 px, which are halved."""


def render(pixels: Array) -> Rendered:
    """Convert a picture to eight bits, reduced by an integer factor if it is too large.

    Args:
        pixels: (H, W) float32 in [0, 1].
    """
    reduction = -(-max(pixels.shape) // MOST_PX)
    eight = np.empty(pixels.shape, np.uint8)
    for rows in bands(*pixels.shape):
        eight[rows] = np.rint(pixels[rows] * np.float32(255))
    if reduction > 1:
        eight = np.asarray(Image.fromarray(eight).reduce(reduction))
    return Rendered(eight, reduction)
