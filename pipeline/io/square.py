"""Pixels that are not square become square, before anything looks at the picture.

Digitised film, fax-like scans and some detectors sample rows and columns differently. Left as they
are, such a limb is squashed, and neither a network nor a reader knows it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..domain import Array, Flag
from .limits import MAX_PIXELS

FLAG = "not-square"
LEAST_DIFFERENCE = 0.01
"""Between height and width of a pixel: below that nobody sees it, and spacings are rounded."""
MOST_ASPECT = 5.0
"""Of height to width or width to height: beyond that a header is believed to be wrong."""


def square_shape(shape: Sequence[int], aspect: float | None) -> tuple[int, int]:
    """The size of a picture once its pixels are square.

    The coarser side grows, so that nothing is lost; only a picture that would become too large
    shrinks on the other.

    Args:
        shape: (H, W) as stored.
        aspect: Height of a pixel divided by its width; None when it is not known.
    """
    height, width = shape[0], shape[1]
    if aspect is None or not _matters(aspect):
        return height, width
    grown = max(aspect, 1.0 / aspect)
    if height * width * grown <= MAX_PIXELS:
        return (round(height * aspect), width) if aspect > 1.0 else (height, round(width / aspect))
    return (
        (height, max(1, round(width / aspect)))
        if aspect > 1.0
        else (max(1, round(height * aspect)), width)
    )


def squared(pixels: Array, aspect: float | None) -> tuple[Array, tuple[Flag, ...]]:
    """The picture with square pixels, and a flag if they were not square.

    Args:
        pixels: (H, W) float32 in [0, 1].
        aspect: See :func:`square_shape`.
    """
    if aspect is None or abs(aspect - 1.0) < LEAST_DIFFERENCE:
        return pixels, ()
    if not _matters(aspect):
        reason = f"Pixels would be {aspect:.4g} times as high as wide by the file: not believed"
        return pixels, (Flag(FLAG, reason),)
    height, width = square_shape(pixels.shape, aspect)
    resized = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
    reason = f"Pixels are {aspect:.4g} times as high as wide: resampled to square ones"
    return np.clip(np.asarray(resized), 0.0, 1.0), (Flag(FLAG, reason),)


def _matters(aspect: float) -> bool:
    return abs(aspect - 1.0) >= LEAST_DIFFERENCE and 1.0 / MOST_ASPECT <= aspect <= MOST_ASPECT
