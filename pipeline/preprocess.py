"""From an X-ray image to the array that a network takes: the only resize in the project.

Training, calibration, evaluation and ``fxpipe run`` all call :func:`preprocess`, with the
specification that travels inside the bundle.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .bands import bands
from .domain import Array, Placement

_LARGE_PIXELS = 4_000_000
"""From here on a picture is resized in bands; the copy of a smaller one hardly counts."""


class Fit(StrEnum):
    """How a picture is brought to the canvas."""

    PAD = "pad"
    """Whole picture, aspect kept, the rest filled with ``pad_value``."""
    CROP = "crop"
    """Canvas filled, aspect kept, the overhang cut off on both sides."""
    SQUASH = "squash"
    """Whole picture, aspect given up."""


def _ordered(clip: tuple[float, float]) -> tuple[float, float]:
    if not 0.0 <= clip[0] < clip[1] <= 100.0:
        raise ValueError(f"clip_percent is {clip}, wanted 0 <= low < high <= 100")
    return clip


class PreprocessSpec(BaseModel):
    """Everything that decides how pixels reach the network; equal specs give equal arrays.

    Attributes:
        height_px, width_px: Canvas.
        fit: See :class:`Fit`.
        resample: Pillow filter; antialiased when shrinking.
        pad_value: Fill outside the picture, in [0, 1].
        clip_percent: Percentiles of the resized picture that become 0 and 1.
        version: Of the code below; raised when its results change.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height_px: int = Field(default=320, ge=32, le=4096)
    width_px: int = Field(default=320, ge=32, le=4096)
    fit: Fit = Fit.PAD
    resample: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"
    pad_value: float = Field(default=0.0, ge=0.0, le=1.0)
    clip_percent: Annotated[tuple[float, float], AfterValidator(_ordered)] = (0.5, 99.5)
    version: Literal[1] = 1


def preprocess(pixels: Array, spec: PreprocessSpec) -> tuple[Array, Placement]:
    """Resize, stretch the grey values and place the picture on the canvas.

    Args:
        pixels: (H, W) float32 in [0, 1], bone bright.
        spec: The model's specification.

    Returns:
        (1, height_px, width_px) float32 in [0, 1], and where the picture lies on it.
    """
    source_height, source_width = pixels.shape
    ratios = spec.height_px / source_height, spec.width_px / source_width
    if spec.fit is Fit.SQUASH:
        height, width = spec.height_px, spec.width_px
    else:
        scale = min(ratios) if spec.fit is Fit.PAD else max(ratios)
        height, width = max(1, round(source_height * scale)), max(1, round(source_width * scale))
    resized = _resize(pixels, height, width, Image.Resampling[spec.resample.upper()])
    stretched = _stretch(resized, spec.clip_percent)

    top, left = (spec.height_px - height) // 2, (spec.width_px - width) // 2
    canvas = np.full((spec.height_px, spec.width_px), spec.pad_value, np.float32)
    rows, columns = _overlap(top, height, spec.height_px), _overlap(left, width, spec.width_px)
    canvas[rows[0], columns[0]] = stretched[rows[1], columns[1]]
    placement = Placement(
        scale_y=height / source_height,
        scale_x=width / source_width,
        top_px=top,
        left_px=left,
        source_shape=(source_height, source_width),
    )
    return canvas[None], placement


def _resize(pixels: Array, height: int, width: int, filter_: Image.Resampling) -> Array:
    """Pillow's resize, without Pillow's copy of a large picture.

    The rows of a large one are narrowed band by band before all of them are shrunk together. Pillow
    does the same in one go, or takes the columns first: the last bit of a float may differ.
    """
    if pixels.size < _LARGE_PIXELS:
        return np.asarray(Image.fromarray(pixels).resize((width, height), filter_))
    narrow = np.empty((pixels.shape[0], width), np.float32)
    for rows in bands(*pixels.shape):
        band = Image.fromarray(pixels[rows])
        narrow[rows] = np.asarray(band.resize((width, band.height), filter_))
    return np.asarray(Image.fromarray(narrow).resize((width, height), filter_))


def _stretch(pixels: Array, clip_percent: tuple[float, float]) -> Array:
    """Map the two percentiles to 0 and 1; a picture of one grey value becomes all 0."""
    low, high = np.percentile(pixels, clip_percent)
    if high <= low:
        return np.zeros_like(pixels)
    stretched: Array = np.clip((pixels - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return stretched


def _overlap(offset: int, length: int, limit: int) -> tuple[slice, slice]:
    """Slices (on the canvas, in the picture) of a picture that starts at ``offset``."""
    start, stop = max(0, offset), min(limit, offset + length)
    return slice(start, stop), slice(start - offset, stop - offset)
