"""Where the limb lies on the plate, from the pixels alone.

Hospitals frame differently: one exposes a small limb on a large plate, the next crops tightly.
Networks that learn one kind fail on the other, so every picture is first cropped to the limb.

The limb is where grey values vary from place to place: skin, bone and soft tissue do, air, lead and
a collimator's shadow do not. Straight edges vary too, but in one line only; bright rims of plates
are left out. All limits are fractions, so neither size nor tone of the picture plays a part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .domain import Array

LOOK_PX = 160
"""Longest side of the picture in which the limb is looked for."""
WINDOW_PX = 7
"""Side of the window in which variation is measured."""
MARGIN = 0.06
"""Added on each side, as a fraction of the limb's extent."""
LEFT_OUT = 0.015
"""Share of all variation that may lie beyond each side of the limb's box."""
LEAST_SIDE = 0.06
"""Of the box, as a fraction of the picture's side; less is no limb."""
RIM = 0.05
"""Of the shorter side: what lies nearer to the picture's edge is not looked at."""

_BRIGHT = 0.75
_MOST_BRIGHT = 0.25
_RIM_FILLED = 0.35
_WIDEST_RIM = 0.2
_RIM_GAP_PX = 5


@dataclass(frozen=True, slots=True)
class Frame:
    """A part of a picture.

    Attributes:
        top, left, bottom, right: As fractions of the picture's height and width, in [0, 1].
        found: Whether this is the limb; False for the whole picture, in which none was found.
    """

    top: float
    left: float
    bottom: float
    right: float
    found: bool = True


WHOLE = Frame(0.0, 0.0, 1.0, 1.0, found=False)


def find_limb(pixels: Array) -> Frame:
    """The box of the limb, or the whole picture where nothing stands out.

    Args:
        pixels: (H, W) float32 in [0, 1], bone bright.
    """
    small = _small(pixels)
    height, width = small.shape
    variation = _variation(small)
    top, bottom, left, right = _rims(small)
    near = max(3, round(RIM * min(height, width)))
    looked_at = np.zeros_like(variation)
    rows = slice(max(near, top), height - max(near, bottom))
    columns = slice(max(near, left), width - max(near, right))
    looked_at[rows, columns] = variation[rows, columns]
    background = np.percentile(looked_at, 40)
    evidence = looked_at - background - 0.15 * (looked_at.max() - background)
    evidence = np.maximum(evidence, 0.0)
    if evidence.sum() <= 0.0:
        return WHOLE
    y0, y1 = _extent(evidence.sum(1))
    x0, x1 = _extent(evidence.sum(0))
    if y1 - y0 < LEAST_SIDE or x1 - x0 < LEAST_SIDE:
        return WHOLE
    return Frame(y0, x0, y1, x1)


def _small(pixels: Array) -> Array:
    """The picture at no more than 160 px, its grey values stretched to [0, 1]."""
    # Every k-th pixel first: the mean over all of a large picture would cost more than the rest.
    step = max(1, max(pixels.shape) // (4 * LOOK_PX))
    picture = Image.fromarray(np.ascontiguousarray(pixels[::step, ::step]))
    scale = LOOK_PX / max(picture.size)
    size = tuple(max(8, round(side * scale)) for side in picture.size)
    small = np.asarray(picture.resize((size[0], size[1]), Image.Resampling.BOX))
    low, high = np.percentile(small, (0.5, 99.5))
    stretched: Array = np.clip((small - low) / max(high - low, 1e-6), 0.0, 1.0)
    return stretched.astype(np.float32)


def _variation(small: Array) -> Array:
    """Standard deviation around each place, capped, so that no edge outweighs a limb.

    The cap is that of what varies at all: on a large plate a limb is a small part.
    """
    mean = _box_mean(small)
    variation: Array = np.sqrt(np.maximum(_box_mean(small * small) - mean * mean, 0.0))
    varying = variation[variation > 0.1 * variation.max()]
    return np.minimum(variation, np.percentile(varying, 75)) if varying.size else variation


def _box_mean(values: Array) -> Array:
    """Mean over a square window around each place, edges repeated."""
    half = WINDOW_PX // 2
    sums = np.pad(values.astype(np.float64), half, mode="edge").cumsum(0).cumsum(1)
    sums = np.pad(sums, ((1, 0), (1, 0)))
    k = WINDOW_PX
    means: Array = (sums[k:, k:] - sums[:-k, k:] - sums[k:, :-k] + sums[:-k, :-k]) / (k * k)
    return means


def _rims(small: Array) -> tuple[int, int, int, int]:
    """Width in px of a bright plate rim: top, bottom, left, right; 0 where there is none."""
    if (small > _BRIGHT).mean() > _MOST_BRIGHT:  # a bright body, not a rim
        return 0, 0, 0, 0
    return _rim(small), _rim(small[::-1]), _rim(small.T), _rim(small.T[::-1])


def _rim(lines: Array) -> int:
    """How far a bright rim reaches from the first line on; a limb further in is none."""
    widest = int(_WIDEST_RIM * len(lines))
    bright = (lines[:widest] > _BRIGHT).mean(1) > _RIM_FILLED
    last = -1
    for line in np.flatnonzero(bright):
        if line - last > _RIM_GAP_PX:
            break
        last = int(line)
    return min(last + 2 + WINDOW_PX // 2, widest) if last >= 0 else 0


def _extent(profile: Array) -> tuple[float, float]:
    """Where the evidence along one axis begins and ends, with its margin, as fractions."""
    share = np.cumsum(profile) / profile.sum()
    first = np.searchsorted(share, LEFT_OUT) / len(profile)
    last = (np.searchsorted(share, 1.0 - LEFT_OUT) + 1) / len(profile)
    margin = MARGIN * (last - first)
    return max(0.0, float(first - margin)), min(1.0, float(last + margin))
