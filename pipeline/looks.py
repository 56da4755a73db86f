"""Where a specialist looks closer: pure functions on maps and arrays.

After the first look at the whole limb, parts of a larger rendering of the same frame are shown to
the same network at its own canvas size: fine lines that the first look cannot resolve become
visible. The parts are those in which the first look saw most.
"""

from __future__ import annotations

import numpy as np

from .domain import Array
from .preprocess import PreprocessSpec, stretch

Place = tuple[int, int]
"""Top and left px of a part of the larger canvas."""


def places(
    evidence: Array, count: int, close: PreprocessSpec, first: PreprocessSpec
) -> list[Place]:
    """The parts of the larger canvas that are looked at, the most suspicious first.

    The middle of each is where the evidence is highest outside all earlier ones, or as near to it
    as the canvas allows.

    Args:
        evidence: (h, w) float32 of the first look, covering its canvas.
        count: How many are wanted.
        close: The larger canvas.
        first: The canvas of a look.
    """
    left = evidence.astype(np.float32).copy()
    rows, columns = left.shape
    found = []
    for _ in range(count):
        row, column = divmod(int(left.argmax()), columns)
        top = _start((row + 0.5) / rows, close.height_px, first.height_px)
        before = _start((column + 0.5) / columns, close.width_px, first.width_px)
        found.append((top, before))
        y = (np.arange(rows) + 0.5) / rows * close.height_px
        x = (np.arange(columns) + 0.5) / columns * close.width_px
        inside = ((y >= top) & (y < top + first.height_px))[:, None] & (
            (x >= before) & (x < before + first.width_px)
        )
        left[inside] = -np.inf
    return found


def _start(middle: float, whole_px: int, part_px: int) -> int:
    return int(np.clip(round(middle * whole_px - part_px / 2), 0, whole_px - part_px))


def part(array: Array, place: Place, first: PreprocessSpec) -> Array:
    """One part of a larger canvas, its grey values stretched as those of a picture are.

    Args:
        array: (1, H, W) float32 in [0, 1]: the larger canvas.
        place: Which part.
        first: The canvas of a look.

    Returns:
        (1, height_px, width_px) float32 in [0, 1].
    """
    top, left = place
    cut = array[:, top : top + first.height_px, left : left + first.width_px]
    return stretch(cut[0], first.clip_percent)[None]
