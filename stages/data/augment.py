"""Random sources: augmentation that simulates pictures of other hospitals.

For every picture and epoch it draws framing and orientation of the limb, tone of detector and
software, storage damage, and objects on the plate. One generator draws everything in a fixed
order, and every change applies to the source pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pipeline.domain import Array
from pipeline.framing import WHOLE, Frame, find_limb
from pipeline.preprocess import PreprocessSpec, stretch, window_of

from ..samples import Box
from ..settings import AugmentConfig
from . import degradation, tone

Rng = np.random.Generator
_DRAWS = 8
_SHARPEST = 1.3
"""Source px per canvas px above which a picture is downsampled before it is transformed."""


@dataclass(frozen=True, slots=True)
class View:
    """One augmented picture.

    Attributes:
        canvas: (1, H, W) float32 in [0, 1].
        mask: (1, H, W) bool: the marked fractures.
        close: Whether the view is a close-up, in which a joint or a fracture may be out of view.
    """

    canvas: Array
    mask: np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]
    close: bool


def augment(
    pixels: Array, boxes: Sequence[Box], spec: PreprocessSpec, config: AugmentConfig, rng: Rng
) -> View:
    """Draw a random view of a picture.

    Args:
        pixels: (H, W) float32 in [0, 1], bone bright.
        boxes: Boxes of the marked fractures.
        spec: Preprocessing of the network; defines the canvas.
        config: Ranges and probabilities.
        rng: Random generator.
    """
    config = config.effective
    matrix, close = _placement(pixels, boxes, spec, config, rng)
    size = spec.width_px, spec.height_px
    source, matrix, reduction = _shrunk(pixels, matrix, size)
    picture = Image.fromarray(source)
    bilinear, affine = Image.Resampling.BILINEAR, Image.Transform.AFFINE
    canvas = np.asarray(picture.transform(size, affine, tuple(matrix.flat), bilinear))
    everywhere = Image.new("L", picture.size, 255)
    inside = np.asarray(everywhere.transform(size, affine, tuple(matrix.flat))) > 0
    marked = Image.new("L", picture.size)
    draw = ImageDraw.Draw(marked)
    for box in boxes:
        x0, x1 = (x * pixels.shape[1] - reduction.left for x in box[::2])
        y0, y1 = (y * pixels.shape[0] - reduction.top for y in box[1::2])
        draw.rectangle(
            (x0 * reduction.x, y0 * reduction.y, x1 * reduction.x, y1 * reduction.y), fill=255
        )
    mask = np.asarray(marked.transform(size, affine, tuple(matrix.flat))) > 0
    if not inside.any():  # the picture is completely out of view
        inside[:] = True
    values = np.where(inside, stretch(canvas, spec.clip_percent, inside), spec.pad_value)
    values = tone.change(values.astype(np.float32), config, rng)
    values = degradation.damage(np.where(inside, values, spec.pad_value), config, rng)
    values = degradation.cover(values, config, rng)
    if rng.random() < config.invert:
        values = 1.0 - values
    if rng.random() < config.stretch:  # as the pipeline does: markers and rims move the limits
        values = stretch(values, spec.clip_percent)
    return View(values[None].astype(np.float32), mask[None], close)


def _placement(
    pixels: Array, boxes: Sequence[Box], spec: PreprocessSpec, config: AugmentConfig, rng: Rng
) -> tuple[Array, bool]:
    """(2, 3) affine map from the canvas to the source in px, and whether the view is a close-up.

    A close-up is centred on a fracture, or on a random point of the limb if no fracture is marked,
    so that magnification is not correlated with the label.
    """
    whole = rng.random() < config.whole or spec.frame == "whole"
    frame = WHOLE if whole else find_limb(pixels)
    window = window_of(pixels.shape, frame, spec)
    height, width = window.height, window.width
    y, x = window.top + height / 2, window.left + width / 2
    close = bool(rng.random() < config.zoom)
    if close:
        zoom = rng.uniform(*config.zoom_scale)
        if boxes:
            x0, y0, x1, y1 = boxes[int(rng.integers(len(boxes)))]
            y, x = (y0 + y1) / 2 * pixels.shape[0], (x0 + x1) / 2 * pixels.shape[1]
            y += rng.uniform(-0.25, 0.25) * height / zoom
            x += rng.uniform(-0.25, 0.25) * width / zoom
        else:
            y, x = _on_the_limb(pixels, frame, rng)
    else:
        zoom = math.exp(rng.uniform(math.log(config.scale[0]), math.log(config.scale[1])))
        y += rng.uniform(-config.shift, config.shift) * height / zoom
        x += rng.uniform(-config.shift, config.shift) * width / zoom
    aspect = math.exp(rng.uniform(-config.aspect, config.aspect))
    per_y = height / zoom / aspect / spec.height_px
    per_x = width / zoom * aspect / spec.width_px
    degrees = rng.uniform(-config.rotate_deg, config.rotate_deg)
    if rng.random() < config.right_angles:
        degrees += 90.0 * rng.integers(1, 4)
    turn = math.radians(degrees)
    flip = -1.0 if rng.random() < config.flip else 1.0
    cos, sin = math.cos(turn), math.sin(turn)
    turned = np.array([[cos * flip * per_x, -sin * per_x], [sin * flip * per_y, cos * per_y]])
    middle = np.array([spec.width_px / 2, spec.height_px / 2])
    offset = np.array([x, y]) - turned @ middle
    return np.concatenate([turned, offset[:, None]], 1), close


def _on_the_limb(pixels: Array, frame: Frame, rng: Rng) -> tuple[float, float]:
    """A random point (y, x) in px in the middle of the frame, brighter than the mean if possible.

    A frame around a bent arm contains much air; a close-up there would show nothing else.
    """
    height, width = pixels.shape
    level = float(pixels[:: max(1, height // 64), :: max(1, width // 64)].mean())
    y = x = 0.0
    for _ in range(_DRAWS):
        y = rng.uniform(*_middle(frame.top, frame.bottom)) * height
        x = rng.uniform(*_middle(frame.left, frame.right)) * width
        if pixels[min(int(y), height - 1), min(int(x), width - 1)] > level:
            break
    return y, x


def _middle(low: float, high: float) -> tuple[float, float]:
    """The range without its outer fifths."""
    return low + 0.2 * (high - low), high - 0.2 * (high - low)


@dataclass(frozen=True, slots=True)
class _Reduction:
    """Crop of the source (px), and scale factors (px after per px before)."""

    top: int = 0
    left: int = 0
    y: float = 1.0
    x: float = 1.0


def _shrunk(pixels: Array, matrix: Array, size: tuple[int, int]) -> tuple[Array, Array, _Reduction]:
    """The visible part of the source at about the canvas' resolution, and its map.

    The affine transform samples single pixels; without downsampling a large picture would alias.
    """
    corners = np.array([[0, 0, 1], [size[0], 0, 1], [0, size[1], 1], [*size, 1]]) @ matrix.T
    height, width = pixels.shape
    left, top = (int(max(0, low - 2)) for low in corners.min(0))
    right, bottom = (int(high + 3) for high in corners.max(0))
    left, top = min(left, width - 1), min(top, height - 1)
    right, bottom = (max(left + 1, min(right, width))), max(top + 1, min(bottom, height))
    part = np.ascontiguousarray(pixels[top:bottom, left:right])
    dense = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    y = x = 1.0
    if dense > _SHARPEST:
        rows, columns = (max(1, round(side / dense)) for side in part.shape)
        y, x = rows / part.shape[0], columns / part.shape[1]
        part = np.asarray(Image.fromarray(part).resize((columns, rows), Image.Resampling.BILINEAR))
    moved = matrix.copy()
    moved[:, 2] -= left, top
    moved[0] *= x
    moved[1] *= y
    return part, moved, _Reduction(top, left, y, x)
