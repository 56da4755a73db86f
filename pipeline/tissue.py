"""Where in a picture the limb is, roughly: so that no heatmap points at a key or a cassette's edge.

The rule, on the picture at no more than 96 px: white bands along its edges are left aside, the
20th percentile of what is not black is taken for air, and what is brighter by .06 for tissue. Parts
thinner than 3 px count up to 24 px from a thicker one (fingers, but not a cassette's edge), bodies
under a hundredth of the picture not at all (keys, letters of lead). The rest gets a margin of 3 px.
Where that finds next to nothing, or most of the picture is bright, all of it is tissue. The limits
were set on FracAtlas: of the 442 fractures of upper limbs that are marked there, all lie inside, by
half of their boxes or more. Rather too much is kept than too little.
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
"""Up to here nothing but a collimator leaves a picture."""

AIR_PERCENTILE = 20.0
ABOVE_AIR = 0.06
"""Grey value, of a picture whose own span is [0, 1]."""

WHITE = 0.9
WHITE_SHARE = 0.7
"""Of a row or column at the edge: a band that no ray has reached, or the edge of a cassette."""

LEAST_BODY = 0.01
"""Share of the picture; keys and letters are smaller."""

FINGER_PX = 24
"""How far a part thinner than 3 px may reach out of a body."""

MARGIN_PX = 3
LEAST_TISSUE = 0.03
"""Of the picture; with less, nothing is known."""

BRIGHT = 0.6
"""Median from which on nothing is known: black and white may be exchanged, or a body fills all."""

CLIP_PERCENT = (0.5, 99.5)
"""Grey values that become 0 and 1, as the networks are shown them."""


def tissue(pixels: NDArray[Any]) -> Mask:
    """Where the limb is, or something as large.

    Args:
        pixels: (H, W) in any unit, bone bright.

    Returns:
        (h, w), no more than 96 px on its longer side, covering the picture.
    """
    small = _small(pixels)
    seen = _without_bands(small)
    inside = small[seen & (small > BLACK)]
    if not inside.size or float(np.median(inside)) > BRIGHT:
        return np.ones(small.shape, np.bool_)
    air = float(np.percentile(inside, AIR_PERCENTILE))
    bright = (small > air + ABOVE_AIR) & seen
    limb = _large(_shrunk(bright))
    for _ in range(FINGER_PX):
        limb = _grown(limb, 1) & bright
    found = _grown(limb, MARGIN_PX) & seen
    return found if found.mean() >= LEAST_TISSUE else np.ones(small.shape, np.bool_)


def _without_bands(small: Array) -> Mask:
    """Everything but white bands along the edges of the picture."""
    seen = np.ones(small.shape, np.bool_)
    for turns in range(4):
        _strip(np.rot90(small, turns), np.rot90(seen, turns))
    return seen


def _strip(small: Array, seen: Mask) -> None:
    """Take away the band along the first rows, and what is black before it."""
    rows = ((small >= WHITE).mean(1) >= WHITE_SHARE, (small <= BLACK).mean(1) >= WHITE_SHARE)
    begin = int(np.argmin(rows[1])) if not rows[1].all() else 0
    end = begin
    while end < len(small) // 3 and rows[0][end]:
        end += 1
    if end > begin:
        seen[: min(end + 1, len(small))] = False


def _small(pixels: NDArray[Any]) -> Array:
    """The picture at no more than 96 px, its grey values in [0, 1]."""
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
    """Without its outermost pixels; the edge of the picture is none of it."""
    return ~_grown(~mask, 1)


def _grown(mask: Mask, steps: int) -> Mask:
    """With so many more pixels on every side."""
    for _ in range(steps):
        wide = mask.copy()
        wide[1:] |= mask[:-1]
        wide[:-1] |= mask[1:]
        mask = wide.copy()
        mask[:, 1:] |= wide[:, :-1]
        mask[:, :-1] |= wide[:, 1:]
    return mask


def _large(mask: Mask) -> Mask:
    """The bodies that are large enough to be a limb."""
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
