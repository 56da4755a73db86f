"""Preprocessing of X-ray images to network input; contains the only resize in the project.

Training, calibration, evaluation and ``fxpipe run`` all call :func:`preprocess` with the
specification in the bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from .domain import Array, Placement
from .framing import WHOLE, Frame, find_limb
from .row_bands import bands

LARGE_PIXELS = 4_000_000
"""Size from which a picture is resized in bands; the copy of a smaller one is cheap."""


class Fit(StrEnum):
    """How the frame is fitted to the canvas."""

    PAD = "pad"
    """Whole frame, aspect kept; the rest shows the surroundings, or ``pad_value``."""
    CROP = "crop"
    """Canvas filled, aspect kept, excess cut off on both sides."""
    SQUASH = "squash"
    """Whole frame, aspect not kept."""


def _ordered(clip: tuple[float, float]) -> tuple[float, float]:
    if not 0.0 <= clip[0] < clip[1] <= 100.0:
        raise ValueError(f"clip_percent is {clip}, expected 0 <= low < high <= 100")
    return clip


class PreprocessSpec(BaseModel):
    """All parameters of the preprocessing; equal specs give equal arrays.

    Attributes:
        height_px, width_px: Size of the canvas.
        frame: Part of the picture that fills the canvas: the limb (:mod:`pipeline.framing`), or the
            whole picture, which is also used if no limb is found.
        fit: See :class:`Fit`.
        resample: Pillow filter; antialiased when shrinking.
        pad_value: Fill outside the picture, in [0, 1].
        clip_percent: Percentiles of the resized picture that become 0 and 1.
        version: Version of this code, raised when its results change. Version 1 had no frame.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height_px: int = Field(default=320, ge=32, le=4096)
    width_px: int = Field(default=320, ge=32, le=4096)
    frame: Literal["limb", "whole"] = "limb"
    fit: Fit = Fit.PAD
    resample: Literal["bilinear", "bicubic", "lanczos"] = "bilinear"
    pad_value: float = Field(default=0.0, ge=0.0, le=1.0)
    clip_percent: Annotated[tuple[float, float], AfterValidator(_ordered)] = (0.5, 99.5)
    version: Literal[1, 2] = 2

    @model_validator(mode="before")
    @classmethod
    def _unframed(cls, values: Any) -> Any:
        """Use the whole picture for bundles of version 1, which have no frame."""
        if isinstance(values, dict) and values.get("version") == 1:
            return {"frame": "whole", **values}
        return values


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the source that the canvas shows, in source px; may exceed the picture."""

    top: float
    left: float
    height: float
    width: float


def preprocess(pixels: Array, spec: PreprocessSpec) -> tuple[Array, Placement]:
    """Frame the limb, resize, stretch the grey values and place the result on the canvas.

    Args:
        pixels: (H, W) float32 in [0, 1], bone bright.
        spec: The model's specification.

    Returns:
        (1, height_px, width_px) float32 in [0, 1], and the placement of the picture on it.
    """
    frame = find_limb(pixels) if spec.frame == "limb" else WHOLE
    window = window_of(pixels.shape, frame, spec)
    top, bottom = _inside(window.top, window.height, pixels.shape[0])
    left, right = _inside(window.left, window.width, pixels.shape[1])
    scale_y, scale_x = spec.height_px / window.height, spec.width_px / window.width
    height = max(1, round((bottom - top) * scale_y))
    width = max(1, round((right - left) * scale_x))
    filter_ = Image.Resampling[spec.resample.upper()]
    resized = _resize(pixels[top:bottom, left:right], height, width, filter_)
    stretched = stretch(resized, spec.clip_percent)

    canvas = np.full((spec.height_px, spec.width_px), spec.pad_value, np.float32)
    above = _offset((top - window.top) * scale_y, height, spec.height_px, frame)
    before = _offset((left - window.left) * scale_x, width, spec.width_px, frame)
    visible = stretched[: spec.height_px, : spec.width_px]
    canvas[above : above + visible.shape[0], before : before + visible.shape[1]] = visible
    placement = Placement(
        scale_y=height / (bottom - top),
        scale_x=width / (right - left),
        top_px=above - top * height / (bottom - top),
        left_px=before - left * width / (right - left),
        source_shape=(pixels.shape[0], pixels.shape[1]),
        framed=frame.found,
    )
    return canvas[None], placement


def window_of(shape: tuple[int, ...], frame: Frame, spec: PreprocessSpec) -> Window:
    """The part of the picture on the canvas, around the frame, in the aspect of the canvas.

    Args:
        shape: (H, W) of the picture.
        frame: The part of the picture that fills the canvas.
        spec: The canvas.
    """
    top, left = frame.top * shape[0], frame.left * shape[1]
    height, width = frame.bottom * shape[0] - top, frame.right * shape[1] - left
    ratios = spec.height_px / height, spec.width_px / width
    wide, high = width, height
    if spec.fit is not Fit.SQUASH:
        scale = min(ratios) if spec.fit is Fit.PAD else max(ratios)
        high, wide = spec.height_px / scale, spec.width_px / scale
    return Window(top + (height - high) / 2, left + (width - wide) / 2, high, wide)


def _offset(preferred: float, length: int, limit: int, frame: Frame) -> int:
    """Offset of the resized part on the canvas; whole pictures are centred."""
    slack = limit - length
    return max(0, min(slack, round(preferred) if frame.found else slack // 2))


def _inside(start: float, length: float, limit: int) -> tuple[int, int]:
    """The rows (or columns) of the picture inside a window, at least one."""
    first = min(max(0, round(start)), limit - 1)
    return first, max(first + 1, min(limit, round(start + length)))


def _resize(pixels: Array, height: int, width: int, filter_: Image.Resampling) -> Array:
    """Resize with Pillow, without its copy of a large picture.

    The width of a large picture is reduced band by band, then the height of the result. Pillow does
    the same in one step, or the height first, so the last bit of a float may differ.
    """
    if pixels.size < LARGE_PIXELS:
        return np.asarray(Image.fromarray(pixels).resize((width, height), filter_))
    narrow = np.empty((pixels.shape[0], width), np.float32)
    for rows in bands(*pixels.shape):
        band = Image.fromarray(pixels[rows])
        narrow[rows] = np.asarray(band.resize((width, band.height), filter_))
    return np.asarray(Image.fromarray(narrow).resize((width, height), filter_))


def stretch(
    pixels: Array, clip_percent: tuple[float, float], inside: NDArray[np.bool_] | None = None
) -> Array:
    """Map two percentiles to 0 and 1; a constant picture becomes 0.

    Args:
        pixels: (H, W) float32.
        clip_percent: The percentiles.
        inside: (H, W) mask of the pixels of the picture; None for all.
    """
    low, high = np.percentile(pixels if inside is None else pixels[inside], clip_percent)
    if high <= low:
        return np.zeros_like(pixels)
    stretched: Array = np.clip((pixels - np.float32(low)) / np.float32(high - low), 0.0, 1.0)
    return stretched
