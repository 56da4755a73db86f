"""Rough segmentation of the limb, so that no heatmap marks a key or the edge of a cassette.

Algorithm, on the picture at no more than 96 px: white bands along the edges are ignored. The 20th
percentile of non-black pixels is air; pixels brighter by .06 are tissue. Parts thinner than 3 px
count up to 24 px from a thicker one (fingers, but not the edge of a cassette). Components under a
hundredth of the picture are dropped (keys, lead letters). The rest gets a margin of 3 px. If that
leaves next to nothing, or most of the picture is bright, the whole picture is tissue. The limits
were chosen on FracAtlas: all 442 annotated fractures of upper limbs are inside, with at least half
of their boxes. The mask is rather too large than too small.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .domain import Array

Mask = NDArray[np.bool_]

LOOK_PX = 96
BLACK = 0.02
"""Grey value up to which a pixel is in the shadow of a collimator."""

AIR_PERCENTILE = 20.0
ABOVE_AIR = 0.06
"""Difference in grey value from air to tissue, for a picture stretched to [0, 1]."""

WHITE = 0.9
WHITE_SHARE = 0.7
"""Share of a row or column at the edge: an unexposed band, or the edge of a cassette."""

LEAST_BODY = 0.01
"""Smallest component as a share of the picture; keys and letters are smaller."""

FINGER_PX = 24
"""Largest length of a part thinner than 3 px."""

MARGIN_PX = 3
LEAST_TISSUE = 0.03
"""Smallest share of the picture; with less, the segmentation has failed."""

BRIGHT = 0.6
"""Median above which segmentation fails: the picture may be inverted, or full of tissue."""

CLIP_PERCENT = (0.5, 99.5)
"""Percentiles that become 0 and 1, as in the preprocessing for the networks."""


def tissue(pixels: NDArray[Any]) -> Mask:
    """Mask of the limb, or of another large object.

    Args:
        pixels: (H, W) in any unit, bone bright.

    Returns:
        (h, w) mask with a longer side of at most 96 px, covering the picture.
    """
    small = _small(pixels)
    usable = _without_bands(small)
    inside = small[usable & (small > BLACK)]
    if not inside.size or float(np.median(inside)) > BRIGHT:
        return np.ones(small.shape, np.bool_)
    air = float(np.percentile(inside, AIR_PERCENTILE))
    bright = (small > air + ABOVE_AIR) & usable
    limb = _large(_shrunk(bright))
    for _ in range(FINGER_PX):
        limb = _grown(limb, 1) & bright
    mask = _grown(limb, MARGIN_PX) & usable
    return mask if mask.mean() >= LEAST_TISSUE else np.ones(small.shape, np.bool_)


def _without_bands(small: Array) -> Mask:
    """Mask without the white bands along the edges of the picture."""
    usable = np.ones(small.shape, np.bool_)
    for turns in range(4):
        _strip(np.rot90(small, turns), np.rot90(usable, turns))
    return usable


def _strip(small: Array, usable: Mask) -> None:
    """Remove the band along the first rows, and black rows before it."""
    rows = ((small >= WHITE).mean(1) >= WHITE_SHARE, (small <= BLACK).mean(1) >= WHITE_SHARE)
    begin = int(np.argmin(rows[1])) if not rows[1].all() else 0
    end = begin
    while end < len(small) // 3 and rows[0][end]:
        end += 1
    if end > begin:
        usable[: min(end + 1, len(small))] = False


def _small(pixels: NDArray[Any]) -> Array:
    """The picture at no more than 96 px, grey values in [0, 1]."""
    height, width = pixels.shape
    scale = min(1.0, LOOK_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    small = np.asarray(picture.resize(size, Image.Resampling.BOX), np.float32)
    low, high = np.percentile(small, CLIP_PERCENT)
    if high <= low:
        return np.zeros_like(small)
    return np.asarray(np.clip((small - low) / (high - low), 0.0, 1.0), np.float32)


def _shrunk(mask: Mask) -> Mask:
    """Erode the mask by one pixel; the edge of the picture is not a border."""
    return ~_grown(~mask, 1)


def _grown(mask: Mask, steps: int) -> Mask:
    """Dilate the mask by a number of pixels."""
    for _ in range(steps):
        wide = mask.copy()
        wide[1:] |= mask[:-1]
        wide[:-1] |= mask[1:]
        mask = wide.copy()
        mask[:, 1:] |= wide[:, :-1]
        mask[:, :-1] |= wide[:, 1:]
    return mask


def _large(mask: Mask) -> Mask:
    """The connected components that are large enough to be a limb."""
    height, width = mask.shape
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(height, width), 0)
    while True:  # every pixel takes the highest number among its neighbours
        spread = np.pad(labels, 1)
        spread = np.maximum.reduce(
            [
                spread[1 + y : 1 + y + height, 1 + x : 1 + x + width]
                for y in (-1, 0, 1)
                for x in (-1, 0, 1)
            ]
        )
        spread[~mask] = 0
        if (spread == labels).all():
            break
        labels = spread
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= LEAST_BODY * mask.size)[labels] & mask)
