"""Resampling of non-square pixels to square ones.

Digitised film, fax-like scans and some detectors sample rows and columns differently. Without
resampling the limb would be distorted, and neither a network nor a reader would notice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..domain import Array, Flag
from .limits import MAX_PIXELS

FLAG = "not-square"
LEAST_DIFFERENCE = 0.01
"""Of height and width of a pixel. Smaller differences are invisible, and spacings are rounded."""
MOST_ASPECT = 5.0
"""Of height to width or width to height. Above it, the header is considered wrong."""


def square_shape(shape: Sequence[int], aspect: float | None) -> tuple[int, int]:
    """Size of a picture after resampling to square pixels.

    The coarser axis is enlarged, so no detail is lost. Only if the picture would become too large,
    the other axis is reduced.

    Args:
        shape: (H, W) as stored.
        aspect: Height of a pixel divided by its width; None if unknown.
    """
    height, width = shape[0], shape[1]
    if aspect is None or not _needs_resampling(aspect):
        return height, width
    growth = max(aspect, 1.0 / aspect)
    if height * width * growth <= MAX_PIXELS:
        return (round(height * aspect), width) if aspect > 1.0 else (height, round(width / aspect))
    return (
        (height, max(1, round(width / aspect)))
        if aspect > 1.0
        else (max(1, round(height * aspect)), width)
    )


def squared(pixels: Array, aspect: float | None) -> tuple[Array, tuple[Flag, ...]]:
    """Resample a picture to square pixels, with a flag if they were not square.

    Args:
        pixels: (H, W) float32 in [0, 1].
        aspect: See :func:`square_shape`.
    """
    if aspect is None or abs(aspect - 1.0) < LEAST_DIFFERENCE:
        return pixels, ()
    if not _needs_resampling(aspect):
        reason = f"The file gives pixels {aspect:.4g} times as high as wide: implausible, ignored"
        return pixels, (Flag(FLAG, reason),)
    height, width = square_shape(pixels.shape, aspect)
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    reason = f"Pixels are {aspect:.4g} times as high as wide: resampled to square pixels"
    return np.clip(np.asarray(resized), 0.0, 1.0), (Flag(FLAG, reason),)


def _needs_resampling(aspect: float) -> bool:
    return abs(aspect - 1.0) >= LEAST_DIFFERENCE and 1.0 / MOST_ASPECT <= aspect <= MOST_ASPECT
