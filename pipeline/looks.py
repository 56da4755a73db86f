"""Selection of the parts for closer looks, as pure functions on maps and arrays.

After the first look at the whole limb, the same network processes parts of a larger rendering at
its canvas size, so it can resolve finer lines. The parts are those with the strongest evidence in
the first look.
"""

from __future__ import annotations

import numpy as np

from .domain import Array
from .preprocess import PreprocessSpec, stretch

Place = tuple[int, int]
"""Top and left of a part of the larger canvas, in px."""


def places(
    evidence: Array, count: int, close: PreprocessSpec, first: PreprocessSpec
) -> list[Place]:
    """The parts of the larger canvas for closer looks, the most suspicious first.

    Each part is centred on the highest evidence outside all earlier parts, as far as the canvas
    allows.

    Args:
        evidence: (h, w) float32 of the first look, covering its canvas.
        count: Number of parts.
        close: The larger canvas.
        first: The canvas of a look.
    """
    remaining = evidence.astype(np.float32).copy()
    rows, columns = remaining.shape
    parts = []
    for _ in range(count):
        row, column = divmod(int(remaining.argmax()), columns)
        top = _start((row + 0.5) / rows, close.height_px, first.height_px)
        left = _start((column + 0.5) / columns, close.width_px, first.width_px)
        parts.append((top, left))
        y = (np.arange(rows) + 0.5) / rows * close.height_px
        x = (np.arange(columns) + 0.5) / columns * close.width_px
        inside = ((y >= top) & (y < top + first.height_px))[:, None] & (
            (x >= left) & (x < left + first.width_px)
        )
        remaining[inside] = -np.inf
    return parts


def _start(middle: float, whole_px: int, part_px: int) -> int:
    return int(np.clip(round(middle * whole_px - part_px / 2), 0, whole_px - part_px))


def part(array: Array, place: Place, first: PreprocessSpec) -> Array:
    """One part of a larger canvas, with grey values stretched like those of a whole picture.

    Args:
        array: (1, H, W) float32 in [0, 1]: the larger canvas.
        place: Position of the part.
        first: The canvas of a look.

    Returns:
        (1, height_px, width_px) float32 in [0, 1].
    """
    top, left = place
    cut = array[:, top : top + first.height_px, left : left + first.width_px]
    return stretch(cut[0], first.clip_percent)[None]
