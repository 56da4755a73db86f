"""Location of the limb on the plate, from the pixels alone.

Hospitals frame differently: some expose a small limb on a large plate, others crop tightly.
Networks trained on one kind fail on the other, so every picture is first cropped to the limb.

The limb is the part with local variation of grey values: skin, bone and soft tissue vary; air, lead
and the shadow of a collimator do not. Straight edges vary only along a line, and bright rims of
plates are excluded. All limits are fractions, so size and brightness of the picture do not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .domain import Array

LOOK_PX = 160
"""Longest side of the reduced picture for the search, in px."""
WINDOW_PX = 7
"""Side of the window for local variation, in px."""
MARGIN = 0.06
"""Margin on each side, as a fraction of the extent of the limb."""
LEFT_OUT = 0.015
"""Share of the total variation that may be outside each side of the box."""
LEAST_SIDE = 0.06
"""Smallest side of the box, as a fraction of the side of the picture."""
RIM = 0.05
"""Width of the ignored rim of the picture, as a fraction of the shorter side."""

_BRIGHT = 0.75
_MOST_BRIGHT = 0.25
_RIM_FILLED = 0.35
_WIDEST_RIM = 0.2
_RIM_GAP_PX = 5


@dataclass(frozen=True, slots=True)
class Frame:
    """A part of a picture.

    Attributes:
        top, left, bottom, right: Fractions of the height and width of the picture, in [0, 1].
        found: Whether this is the limb; False for the whole picture if no limb was found.
    """

    top: float
    left: float
    bottom: float
    right: float
    found: bool = True


WHOLE = Frame(0.0, 0.0, 1.0, 1.0, found=False)


def find_limb(pixels: Array) -> Frame:
    """Find the box of the limb; the whole picture if there is none.

    Args:
        pixels: (H, W) float32 in [0, 1], bone bright.
    """
    small = _reduced(pixels)
    height, width = small.shape
    variation = _variation(small)
    top, bottom, left, right = _rims(small)
    near = max(3, round(RIM * min(height, width)))
    searched = np.zeros_like(variation)
    rows = slice(max(near, top), height - max(near, bottom))
    columns = slice(max(near, left), width - max(near, right))
    searched[rows, columns] = variation[rows, columns]
    background = np.percentile(searched, 40)
    evidence = searched - background - 0.15 * (searched.max() - background)
    evidence = np.maximum(evidence, 0.0)
    if evidence.sum() <= 0.0:
        return WHOLE
    y0, y1 = _extent(evidence.sum(1))
    x0, x1 = _extent(evidence.sum(0))
    if y1 - y0 < LEAST_SIDE or x1 - x0 < LEAST_SIDE:
        return WHOLE
    return Frame(y0, x0, y1, x1)


def _reduced(pixels: Array) -> Array:
    """The picture with a longest side of 160 px, grey values stretched to [0, 1]."""
    # Subsampled first: averaging all pixels of a large picture would take longer than the rest.
    step = max(1, max(pixels.shape) // (4 * LOOK_PX))
    picture = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step]))
    scale = LOOK_PX / max(picture.size)
    size = tuple(max(8, round(side * scale)) for side in picture.size)
    small = np.asarray(picture.resize((size[0], size[1]), Image.Resampling.BOX))
    low, high = np.percentile(small, (0.5, 99.5))
    stretched: Array = np.clip((small - low) / max(high - low, 1e-6), 0.0, 1.0)
    return stretched.astype(np.float32)


def _variation(small: Array) -> Array:
    """Local standard deviation, capped so that no edge outweighs a limb.

    The cap is a percentile of the varying pixels only, because a limb may be a small part of a
    large plate.
    """
    mean = _box_mean(small)
    variation: Array = np.sqrt(np.maximum(_box_mean(small * small) - mean * mean, 0.0))
    varying = variation[variation > 0.1 * variation.max()]
    return np.minimum(variation, np.percentile(varying, 75)) if varying.size else variation


def _box_mean(values: Array) -> Array:
    """Mean over a square window around each pixel, edges repeated."""
    half = WINDOW_PX // 2
    sums = np.pad(values.astype(np.float64), half, mode="edge").cumsum(0).cumsum(1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    k = WINDOW_PX
    means: Array = (sums[k:, k:] - sums[:-k, k:] - sums[k:, :-k] + sums[:-k, :-k]) / (k * k)
    return means


def _rims(small: Array) -> tuple[int, int, int, int]:
    """Width in px of bright plate rims: top, bottom, left, right; 0 without one."""
    if (small > _BRIGHT).mean() > _MOST_BRIGHT:  # a bright body, not a rim
        return 0, 0, 0, 0
    return _rim(small), _rim(small[::-1]), _rim(small.T), _rim(small.T[::-1])


def _rim(lines: Array) -> int:
    """Width of a bright rim from the first line; bright lines further inside do not count."""
    widest = int(_WIDEST_RIM * len(lines))
    bright = (lines[:widest] > _BRIGHT).mean(1) > _RIM_FILLED
    last = -1
    for line in np.flatnonzero(bright):
        if line - last > _RIM_GAP_PX:
            break
        last = int(line)
    return min(last + 2 + WINDOW_PX // 2, widest) if last >= 0 else 0


def _extent(profile: Array) -> tuple[float, float]:
    """Start and end of the evidence along one axis with margin, as fractions."""
    share = np.cumsum(profile) / profile.sum()
    first = np.searchsorted(share, LEFT_OUT) / len(profile)
    last = (np.searchsorted(share, 1.0 - LEFT_OUT) + 1) / len(profile)
    margin = MARGIN * (last - first)
    return max(0.0, float(first - margin)), min(1.0, float(last + margin))
