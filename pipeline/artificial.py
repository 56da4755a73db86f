"""Signs that a picture shows a radiograph without being one, and of files that were damaged.

A photograph of a light box or a monitor, a screenshot of a viewer, a print that was scanned: each
has something that no detector makes. The limits were set on the 1,984 readable radiographs of
FracAtlas at hand, of which no sign is found in any (the nearest: 16 words, lines of one step over
.56 of both sides, 5.9 of a beat), and on 80 pictures made of 16 of them (``tests/artificial.py``),
of which one photographed screen is missed. Among 1,139 others signs are found in 130 of 135
textbook figures, 8 of 10 photographs of animals, 40 of 50 made-up screens and pages, 10 of 547
chests (lines, at the edges of their films), 2 of 240 spines, and none of 48 brains, 60 knees and 20
slices of CT. One middle grey is found in 23 of FracAtlas's 33 truncated files, decoded all the
same, and in 4 whole ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from .bands import bands
from .domain import Array

Bytes = NDArray[np.uint8]

MOST_COLOURED = 0.02
"""Share of the picture that is clearly coloured; see :mod:`pipeline.io.colour`."""

MOST_WORDS = 20
"""Bits of lines of letters. Names of the part and the side, burned in, make 6."""

FRAME_SHARE = 0.7
"""Of the width or height, over which one straight line steps by one and the same grey value."""

FRAME_LINES = 3
"""In one direction, where there is none in the other."""

MOST_BEAT = 10.0
"""A peak of the spectrum beside the highest value around it: stripes of a screen, or a raster."""

MOST_GREY = 0.05
"""Share of the picture that is one constant grey."""

GREYS = (0.3, 0.85)
"""Of a damaged part: air may be as constant, but is darker, and a white band is brighter."""

_READ_PX = 1280
_LETTER_PX = 7
_LETTER_STEP = 51
_CELL_PX = 8
_GREY_PX = 4
_FOURIER_PX = (384, 256)
"""The first that fits."""
_PEAKS = 12


def signs(pixels: Array, colour: float) -> Iterator[str]:
    """Why a picture is perhaps no radiograph, in words for a reader.

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
    """The picture at no more than 1280 px on its longer side, reduced by a whole number."""
    eight = np.empty(pixels.shape, np.uint8)
    for rows in bands(*pixels.shape):
        eight[rows] = np.rint(pixels[rows] * np.float32(255))
    factor = -(-max(pixels.shape) // _READ_PX)
    return np.asarray(Image.fromarray(eight).reduce(factor)) if factor > 1 else eight


def words(eight: Bytes) -> int:
    """How many bits of lines of letters there are.

    Letters are strokes narrower than 7 px that differ by a fifth of the grey scale from what lies
    on both sides. Cells of 8 px that have a tenth of such strokes, four or more in a row, are a
    word.

    Args:
        eight: (H, W), 1280 px or less.
    """
    opened = _slid(_slid(eight, np.minimum), np.maximum)
    closed = _slid(_slid(eight, np.maximum), np.minimum)
    strokes = (eight - opened >= _LETTER_STEP) | (closed - eight >= _LETTER_STEP)
    rows, columns = (side // _CELL_PX for side in strokes.shape)
    parts = strokes[: rows * _CELL_PX, : columns * _CELL_PX]
    share = parts.reshape(rows, _CELL_PX, columns, _CELL_PX).mean((1, 3))
    cells = np.pad((share > 0.1) & (share < 0.7), ((0, 0), (4, 1)))
    runs = sliding_window_view(cells, 5, axis=1)
    return int((runs[..., 1:].all(-1) & ~runs[..., 0]).sum())  # four cells, and none before them


def _slid(eight: Bytes, extreme: np.ufunc) -> Bytes:
    """The extreme of each pixel and its neighbours in the row."""
    reach = _LETTER_PX // 2
    padded = np.pad(eight, ((0, 0), (reach, reach)), mode="edge")
    width = eight.shape[1]
    found = padded[:, :width].copy()
    for shift in range(1, _LETTER_PX):
        extreme(found, padded[:, shift : shift + width], out=found)
    return found


def framed(eight: Bytes) -> bool:
    """Whether straight lines cross the picture as the edges of windows and bars do.

    Args:
        eight: (H, W).
    """
    across, upright = (_lines(side) for side in (eight, eight.T))
    return min(across, upright) >= 1 or max(across, upright) >= FRAME_LINES


def _lines(eight: Bytes) -> int:
    """How many rows differ from the next one by one and the same grey value."""
    steps = np.diff(eight.astype(np.int16), axis=0)
    candidates = np.flatnonzero((np.abs(steps) >= 4).mean(1) >= FRAME_SHARE)
    found = 0
    last = -_CELL_PX
    for row in candidates.tolist():
        counts = np.bincount(steps[row] + 255, minlength=511)
        counts[255 - 3 : 255 + 4] = 0
        same = np.convolve(counts, np.ones(3, np.intp)).max() / eight.shape[1]
        if same >= FRAME_SHARE and row - last >= _CELL_PX:
            found, last = found + 1, row
    return found


def beat(eight: Bytes) -> float:
    """How far one frequency stands out of the spectrum of the brightest part of the picture.

    A screen's stripes beat with the sensor of a camera, in one frequency and its multiples. Edges
    of bones make ridges: there the neighbours are as high. Frequencies along the axes are left
    out (grids that keep scatter away), and so are those of JPEG's blocks.

    Args:
        eight: (H, W).
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
        if ranked[place] <= 0.0:  # a constant part, or no frequency in which a beat is looked for
            continue
        row, column = divmod(place, power.shape[1])
        around = power[row - 7 : row + 8, column - 7 : column + 8].copy()
        around[4:11, 4:11] = 0.0
        if (highest := float(around.max())) > 0.0:
            best = max(best, float(power[row, column]) / highest)
    return best


@lru_cache(maxsize=len(_FOURIER_PX))
def _fourier(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A window, and the weight of each frequency; 0 where no beat is looked for.

    The spectrum of a picture falls with the third power of the frequency.
    """
    hann = np.hanning(size)
    y = np.fft.fftshift(np.fft.fftfreq(size))[:, None]
    x = np.fft.rfftfreq(size)[None]
    distance = np.hypot(y, x)
    near = 8.0 / size
    wanted = (distance >= 0.08) & (distance < 0.5 - near) & (x >= near) & (x < 0.5 - near)
    wanted &= (np.abs(y) >= 3.0 / size) & (np.abs(y) < 0.5 - near)
    blocks = (np.abs(x * 8 - np.rint(x * 8)) < 0.06) & (np.abs(y * 8 - np.rint(y * 8)) < 0.06)
    return hann[:, None] * hann, np.where(wanted & ~blocks, distance**3, 0.0)


def constant(pixels: Array) -> float:
    """Share of the picture that is one middle grey without any noise.

    Decoders fill with it what a damaged file does not tell. Counted are parts of 4 x 4 px, in rows
    of a picture of which at least a quarter is that grey.

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
