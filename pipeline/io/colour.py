"""Share of a picture that is coloured: zero for a detector, but not for cameras and scanners."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .frames import Stored

COLOURED = 10.0 / 255.0
"""Channel difference above which a pixel is clearly coloured, as a fraction of white."""

_LOOK_PX = 128
_GREY_MODES = ("1", "L", "LA", "La", "I", "F")


def coloured_image(image: Image.Image, *, by_most: bool = False) -> float:
    """Share of a picture in [0, 1] that is clearly coloured.

    Args:
        image: Image in any mode of Pillow.
        by_most: Whether the highest value of the picture is white, as in the upper bytes of 16-bit
            colours, of which scanners often use 12 bits.
    """
    if image.mode in _GREY_MODES or image.mode.startswith("I;"):
        return 0.0
    step = max(1, max(image.size) // (4 * _LOOK_PX))
    size = max(1, image.width // step), max(1, image.height // step)
    # Subsampled first: converting all pixels would take as long as the rest of reading.
    few = image.resize(size, Image.Resampling.NEAREST).convert("RGB")
    few.thumbnail((_LOOK_PX, _LOOK_PX), Image.Resampling.BOX, reducing_gap=None)
    colours = np.asarray(few)
    return _share(colours, float(max(1, colours.max())) if by_most else 255.0)


class Coloured:
    """Iterator over decoded frames of a DICOM file that measures the colour of the last one.

    Args:
        frames: Stored values; only (H, W, 3) in RGB can be coloured.
    """

    def __init__(self, frames: Iterator[Stored]) -> None:
        self._frames = frames
        self.share = 0.0

    def __iter__(self) -> Coloured:
        return self

    def __next__(self) -> Stored:
        stored = next(self._frames)
        frame = stored.values
        step = max(1, max(frame.shape) // _LOOK_PX)
        self.share = 0.0
        if frame.ndim == 3 and frame.shape[-1] == 3:
            few = frame[::step, ::step]
            self.share = _share(few, float(max(255, few.max())))
        return stored


def _share(colours: NDArray[Any], white: float) -> float:
    """Share of the pixels of an (H, W, 3) picture whose channels differ."""
    values = colours.astype(np.float32)
    return float((np.ptp(values, axis=-1) > COLOURED * white).mean())
