"""Detection of pictures that show a radiograph but are not original ones, and of damaged files.

Photographs of a light box or a monitor, screenshots of a viewer and scanned prints have features
that no detector produces. The limits were chosen on 1,984 readable radiographs of FracAtlas, none
of which is detected (largest values: 16 words, lines of equal step over .56 of both sides, moire
5.9), and on 80 pictures derived from 16 of them (``tests/not_radiographs.py``), of which one
photographed screen is missed. Of 1,139 other pictures, 130 of 135 textbook figures, 8 of 10
photographs of animals, 40 of 50 synthetic screens and pages, 10 of 547 chests (lines at the edges
of the films), 2 of 240 spines, and none of 48 brains, 60 knees and 20 CT slices are detected.
Constant middle grey is detected in 23 of the 33 truncated files of FracAtlas, which are still
decoded, and in 4 complete ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from .domain import Array
from .row_bands import bands

Bytes = NDArray[np.uint8]

MOST_COLOURED = 0.02
"""Limit on the share of the picture that is clearly coloured; see :mod:`pipeline.io.colour`."""

MOST_WORDS = 20
"""Limit on the number of words. Burned-in names of the body part and the side have about 6."""

FRAME_SHARE = 0.7
"""Fraction of the width or height along which a straight edge has one constant step in grey."""

FRAME_LINES = 3
"""Limit on the number of such edges in one direction, if there is none in the other."""

MOST_BEAT = 10.0
"""Limit on the ratio of a peak of the spectrum to its neighbourhood: screen or print raster."""

MOST_GREY = 0.05
"""Limit on the share of the picture that is one constant grey."""

GREYS = (0.3, 0.85)
"""Range of grey in a damaged part. Constant air is darker, white bands are brighter."""

_READ_PX = 1280
_LETTER_PX = 7
_LETTER_STEP = 51
_CELL_PX = 8
_GREY_PX = 4
_FOURIER_PX = (384, 256)
"""Sides of the spectrum window; the first that fits is used."""
_PEAKS = 12


def signs(pixels: Array, colour: float) -> Iterator[str]:
    """Reasons why a picture may not be an original radiograph, as text for a flag.

    Args:
        pixels: (H, W) float32 in [0, 1], bone bright.
        colour: Share of the picture that is coloured.
    """
    if colour > MOST_COLOURED:
        yield f"colour ({colour:.0%} of the picture)"
    eight = _eight_bits(pixels)
    if (count := words(eight)) > MOST_WORDS:
        yield f"text ({count} words or more)"
    if framed(eight):
        yield "frames of windows"
    if beat(eight) > MOST_BEAT:
        yield "the raster of a screen or of print (moire)"


def _eight_bits(pixels: Array) -> Bytes:
    """The picture with a longer side of at most 1280 px, reduced by an integer factor."""
    eight = np.empty(pixels.shape, np.uint8)
    for rows in bands(*pixels.shape):
        eight[rows] = np.rint(pixels[rows] * np.float32(255))
    factor = -(-max(pixels.shape) // _READ_PX)
    return np.asarray(Image.fromarray(eight).reduce(factor)) if factor > 1 else eight


def words(eight: Bytes) -> int:
    """Estimate the number of words of text.

    Letters are strokes narrower than 7 px that differ by a fifth of the grey scale from both sides.
    A word is a run of four or more cells of 8 px with a tenth of such strokes.

    Args:
        eight: (H, W) uint8, at most 1280 px.
    """
    opened = _filter_rows(_filter_rows(eight, np.minimum), np.maximum)
    closed = _filter_rows(_filter_rows(eight, np.maximum), np.minimum)
    strokes = (eight - opened >= _LETTER_STEP) | (closed - eight >= _LETTER_STEP)
    rows, columns = (side // _CELL_PX for side in strokes.shape)
    parts = strokes[: rows * _CELL_PX, : columns * _CELL_PX]
    share = parts.reshape(rows, _CELL_PX, columns, _CELL_PX).mean((1, 3))
    cells = np.pad((share > 0.1) & (share < 0.7), ((0, 0), (4, 1)))
    runs = sliding_window_view(cells, 5, axis=1)
    # Runs of four cells, counted at their start.
    return int((runs[..., 1:].all(-1) & ~runs[..., 0]).sum())


def _filter_rows(eight: Bytes, extreme: np.ufunc) -> Bytes:
    """Minimum or maximum of each pixel and its neighbours in the row."""
    reach = _LETTER_PX // 2
    padded = np.pad(eight, ((0, 0), (reach, reach)), mode="edge")
    width = eight.shape[1]
    extremes = padded[:, :width].copy()
    for shift in range(1, _LETTER_PX):
        extreme(extremes, padded[:, shift : shift + width], out=extremes)
    return extremes


def framed(eight: Bytes) -> bool:
    """Whether straight edges cross the picture like those of windows and bars on a screen.

    Args:
        eight: (H, W) uint8.
    """
    across, upright = (_lines(side) for side in (eight, eight.T))
    return min(across, upright) >= 1 or max(across, upright) >= FRAME_LINES


def _lines(eight: Bytes) -> int:
    """Number of rows that differ from the next row by one constant grey value."""
    steps = np.diff(eight.astype(np.int16), axis=0)
    candidates = np.flatnonzero((np.abs(steps) >= 4).mean(1) >= FRAME_SHARE)
    count = 0
    last = -_CELL_PX
    for row in candidates.tolist():
        counts = np.bincount(steps[row] + 255, minlength=511)
        counts[255 - 3 : 255 + 4] = 0
        same = np.convolve(counts, np.ones(3, np.intp)).max() / eight.shape[1]
        if same >= FRAME_SHARE and row - last >= _CELL_PX:
            count, last = count + 1, row
    return count


def beat(eight: Bytes) -> float:
    """Ratio of the strongest frequency to its neighbourhood in the brightest part of the picture.

    The stripes of a screen and the sensor of a camera cause moire at one frequency and its
    multiples. Edges of bones cause ridges, where the neighbours are equally high. Frequencies along
    the axes (anti-scatter grids) and of JPEG blocks are excluded.

    Args:
        eight: (H, W) uint8.
    """
    size = next((side for side in _FOURIER_PX if side <= min(eight.shape)), None)
    if size is None:
        return 0.0
    tops, lefts = (np.linspace(0, side - size, 3).astype(int).tolist() for side in eight.shape)
    tiles = [eight[top : top + size, left : left + size] for top in tops for left in lefts]
    tile = max(tiles, key=lambda part: float(part.mean()) - 255.0 * float((part == 255).mean()))
    window, weight = _fourier(size)
    power = np.fft.fftshift(np.abs(np.fft.rfft2((tile - tile.mean()) * window)) ** 2, axes=0)
    ranked = (power * weight).ravel()
    best = 0.0
    for place in np.argpartition(ranked, -_PEAKS)[-_PEAKS:].tolist():
        if ranked[place] <= 0.0:  # a constant part, or an excluded frequency
            continue
        row, column = divmod(place, power.shape[1])
        around = power[row - 7 : row + 8, column - 7 : column + 8].copy()
        around[4:11, 4:11] = 0.0
        if (highest := float(around.max())) > 0.0:
            best = max(best, float(power[row, column]) / highest)
    return best


@lru_cache(maxsize=len(_FOURIER_PX))
def _fourier(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Window function, and weight of each frequency; 0 for excluded frequencies.

    The spectrum of a picture decreases with the third power of the frequency.
    """
    hann = np.hanning(size)
    y = np.fft.fftshift(np.fft.fftfreq(size))[:, None]
    x = np.fft.rfftfreq(size)[None]
    distance = np.hypot(y, x)
    near = 8.0 / size
    searched = (distance >= 0.08) & (distance < 0.5 - near) & (x >= near) & (x < 0.5 - near)
    searched &= (np.abs(y) >= 3.0 / size) & (np.abs(y) < 0.5 - near)
    blocks = (np.abs(x * 8 - np.rint(x * 8)) < 0.06) & (np.abs(y * 8 - np.rint(y * 8)) < 0.06)
    return hann[:, None] * hann, np.where(searched & ~blocks, distance**3, 0.0)


def constant(pixels: Array) -> float:
    """Share of the picture that is one middle grey without noise.

    Decoders fill the missing parts of a damaged file with it. Blocks of 4 x 4 px count, in rows
    with at least a quarter of that grey.

    Args:
        pixels: (H, W).
    """
    rows, columns = (side // _GREY_PX * _GREY_PX for side in pixels.shape)
    if not rows or not columns:
        return 0.0
    level = pixels[:rows:_GREY_PX, :columns:_GREY_PX]
    flat = (level >= GREYS[0]) & (level <= GREYS[1])
    for place in range(1, _GREY_PX**2):
        y, x = divmod(place, _GREY_PX)
        flat &= pixels[y:rows:_GREY_PX, x:columns:_GREY_PX] == level
    if not flat.any():
        return 0.0
    values, counts = np.unique(level[flat], return_counts=True)
    same = flat & (level == values[counts.argmax()])
    whole_rows = same.mean(1) >= 0.25
    return float(same[whole_rows].sum() / same.size)
