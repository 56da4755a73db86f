"""Fixed suite of synthetic domain shifts that simulate pictures of other hospitals.

Every shift applies to the whole source picture before preprocessing, and moves the marked
fractures accordingly. Random parameters are seeded from the file's digest, so the same file gives
the same picture on every machine. Training never uses these functions; its random changes are in
:mod:`stages.data.augment`, and a test checks that the two stay separate.

Synthetic shifts show to which changes a network is sensitive; they do not replace pictures of
other hospitals (compare Hendrycks and Dietterich 2019, arXiv 1903.12261, for natural images).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.domain import Array

from ..samples import Box

SUITE_VERSION = 1
"""Version of the suite; incremented when the result of any shift changes."""

HOME = "none"

Boxes = tuple[Box, ...]
Changed = tuple[NDArray[Any], Boxes]
Shift = Callable[[Array, Boxes, np.random.Generator], Changed]
"""Maps (H, W) float32 in [0, 1], bone bright, and fracture boxes as fractions to the same, before
rounding to float32 and clipping."""

_Points = NDArray[np.float64]

_COARSE = 128
"""Size in px of the thumbnail in which the limb is detected."""
_PLATE_PX = 2048
"""Longest side of a plate; larger pictures are scaled down first."""
_PLATE_SHARE, _PLATE_GREY = 0.5, 0.03
_COLLIMATED, _COLLIMATION_DEG, _SURROUND_GREY = 0.78, (4.0, 12.0), 0.45
_LOCAL_CONTRAST, _VEIL_PX, _GREYS = 0.35, 16, (0.25, 0.65)
_BLUR = 0.006
"""Standard deviation as a fraction of the longest side: 2 px on a canvas of 320 px."""
_POOR_JPEG, _PHOTO_JPEG = 20, 75
_SMALL_PX = 200
_PHOTO_PX = 800
"""Longest side of a photograph of a print or a monitor."""
_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as in the reader of colour files."""


def shifted(name: str, pixels: Array, boxes: Boxes, sha256: str) -> tuple[Array, Boxes]:
    """Apply one shift of the suite.

    Args:
        name: Key of :data:`SUITE`.
        pixels: (H, W) float32 in [0, 1], bone bright; not modified.
        boxes: Corners (x0, y0, x1, y1) of the fractures as fractions of width and height. No
            shift crops a box.
        sha256: Digest of the file; seeds the random parameters.

    Returns:
        (H', W') float32 in [0, 1], and the fractures in it: axis-aligned rectangles around the
        transformed boxes.
    """
    seed = hashlib.sha256(f"{SUITE_VERSION} {name} {sha256}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(seed, "big"))
    changed, moved = SUITE[name](pixels, boxes, random)
    return np.ascontiguousarray(np.clip(changed, 0, 1), np.float32), moved


# ------------------------------------------------------------------------ framing and geometry


def _none(pixels: Array, boxes: Boxes, _random: np.random.Generator) -> Changed:
    """The unchanged picture."""
    return pixels, boxes


def _tight_crop(pixels: Array, boxes: Boxes, _random: np.random.Generator) -> Changed:
    """A tight crop of the limb.

    The crop does not use :mod:`pipeline.framing`, which this shift tests. It is the middle 96 % of
    the rows and columns of pixels brighter than the plate, without the plate's white rims, extended
    to contain all marked fractures.
    """
    small = np.asarray(Image.fromarray(pixels).resize((_COARSE, _COARSE), Image.Resampling.BOX))
    rows, columns = (_between_rims(np.median(small, axis=axis)) for axis in (1, 0))
    inner = small[rows, columns]
    dark, bright = np.quantile(inner, (0.1, 0.98))
    limb = inner > dark + min(0.22 * (bright - dark), 0.1)
    (x0, x1), (y0, y1) = (
        _middle(limb.sum(axis), lines.start, [at for box in boxes for at in box[axis::2]])
        for axis, lines in ((0, columns), (1, rows))
    )
    height, width = pixels.shape
    left, right = _pixel_range(x0, x1, width)
    top, bottom = _pixel_range(y0, y1, height)

    def cut(points: _Points) -> _Points:
        return (points * (width, height) - (left, top)) / (right - left, bottom - top)

    return pixels[top:bottom, left:right], _moved(boxes, cut)


def _between_rims(levels: NDArray[Any]) -> slice:
    """Lines between the mostly white ones in the outer eighths of a plate, with a margin of 2 or 3
    lines, because a rim has soft edges and a plate often has bright ones.
    """
    white = np.flatnonzero(levels > 0.75)
    outer = len(levels) // 8
    first = max((i for i in white if i < outer), default=0) + 3
    last = min((i for i in white if i >= len(levels) - outer), default=len(levels)) - 3
    return slice(int(first), int(last))


def _middle(counts: NDArray[Any], start: int, required: list[float]) -> tuple[float, float]:
    """From the 2nd to the 98th percentile of the counts per line, as fractions of all
    :data:`_COARSE` lines, extended to the required fractions.
    """
    share = np.cumsum(counts) / max(1, counts.sum())
    low = start + int(np.searchsorted(share, 0.02)) - 1
    high = start + int(np.searchsorted(share, 0.98)) + 2
    return min(low / _COARSE, *required, 0.9), max(high / _COARSE, *required, 0.1)


def _pixel_range(low: float, high: float, length: int) -> tuple[int, int]:
    """First and last + 1 of the pixels between two fractions, at least one pixel."""
    first = min(max(0, math.floor(low * length)), length - 1)
    return first, max(first + 1, min(length, math.ceil(high * length)))


def _wide_plate(pixels: Array, boxes: Boxes, random: np.random.Generator) -> Changed:
    """The picture, small and off-centre, on a large dark plate."""
    height, width = _fitted(pixels.shape, int(_PLATE_PX * _PLATE_SHARE))
    if height < pixels.shape[0] or width < pixels.shape[1]:
        pixels = _resized(pixels, height, width)
    height, width = pixels.shape
    plate = np.full((round(height / _PLATE_SHARE), round(width / _PLATE_SHARE)), _PLATE_GREY)
    room = np.array(plate.shape) - pixels.shape
    top, left = (random.uniform(0.2, 0.8, 2) * room).astype(int)
    plate[top : top + height, left : left + width] = pixels

    def to_plate(points: _Points) -> _Points:
        on_plate: _Points = (points * (width, height) + (left, top)) / plate.shape[::-1]
        return on_plate

    return plate, _moved(boxes, to_plate)


def _rotation(pixels: Array, boxes: Boxes, _random: np.random.Generator) -> Changed:
    """A rotation by 90°, counter-clockwise."""
    return np.rot90(pixels), _moved(boxes, lambda at: np.stack([at[:, 1], 1 - at[:, 0]], 1))


def _collimation(pixels: Array, boxes: Boxes, random: np.random.Generator) -> Changed:
    """A rotated rectangle of the picture on grey, large enough to contain the fractures."""
    height, width = pixels.shape
    angle = math.radians(random.uniform(*_COLLIMATION_DEG)) * random.choice([-1, 1])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    half = _COLLIMATED / 2 * np.array([width, height])
    for x0, y0, x1, y1 in boxes:
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) - 0.5
        half = np.maximum(half, np.abs(corners * (width, height) @ turn).max(0))
    y, x = np.mgrid[0:height, 0:width]
    centred = np.stack([x + 0.5 - width / 2, y + 0.5 - height / 2], -1, dtype=np.float32)
    inside = (np.abs(centred @ turn.astype(np.float32)) <= half + 0.5).all(-1)
    return np.where(inside, pixels, np.float32(_SURROUND_GREY)), boxes


# ----------------------------------------------------------------------------- tone and detail


def _inversion(pixels: Array, boxes: Boxes, _random: np.random.Generator) -> Changed:
    """Inverted grey values: bone dark."""
    return 1 - pixels, boxes


def _low_contrast(pixels: Array, boxes: Boxes, random: np.random.Generator) -> Changed:
    """Scatter without a grid: a third of the local contrast on a blurred background, in 8 bits.

    Preprocessing stretches the grey values and would undo a linear loss of contrast.
    """
    height, width = pixels.shape
    veil = _resized(_resized(pixels, *_fitted(pixels.shape, _VEIL_PX)), height, width)
    low, high = _GREYS
    dull = low + (high - low) * (_LOCAL_CONTRAST * pixels + (1 - _LOCAL_CONTRAST) * veil)
    return np.rint((dull + random.normal(0, 0.004, dull.shape)) * 255) / 255, boxes


def _blur(pixels: Array, boxes: Boxes, _random: np.random.Generator) -> Changed:
    """Motion or a large focal spot: a Gaussian blur."""
    sigma = _BLUR * max(pixels.shape)
    reach = max(1, math.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    for _ in range(2):  # one axis, then the other
        padded = np.pad(pixels, ((reach, reach), (0, 0)), mode="edge")
        rows = len(pixels)
        pixels = sum(share * padded[i : i + rows] for i, share in enumerate(kernel)).T
    return pixels, boxes


def _jpeg_20(pixels: Array, boxes: Boxes, _random: np.random.Generator) -> Changed:
    """JPEG at quality 20, as messaging services recompress pictures."""
    return _jpeg(pixels, _POOR_JPEG), boxes


def _few_pixels(pixels: Array, boxes: Boxes, _random: np.random.Generator) -> Changed:
    """A thumbnail of 200 px; smaller pictures stay unchanged."""
    if max(pixels.shape) <= _SMALL_PX:
        return pixels, boxes
    return _resized(pixels, *_fitted(pixels.shape, _SMALL_PX)), boxes


# ----------------------------------------------------------------------------------- photographs


def _paper(pixels: Array, boxes: Boxes, random: np.random.Generator) -> Changed:
    """A photograph of a paper print: margins, weak blacks, halftone dots, uneven light."""
    height, width = _fitted(pixels.shape, _PHOTO_PX)
    tilt = math.radians(random.uniform(1, 4)) * random.choice([-1, 1])
    turn = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
    corners = (_SQUARE - 0.5) * 0.8 * (width, height) @ turn + (width / 2, height / 2)
    printed, at = _photographed(pixels, corners, (height, width))
    y, x = np.mgrid[0:height, 0:width]
    dots = 0.04 * np.cos(2 * np.pi * (x + y) / 5) * np.cos(2 * np.pi * (x - y) / 5)
    on_print = (np.abs(at - 0.5) <= 0.5).all(-1)
    page = np.where(on_print, 0.18 + 0.66 * printed**0.8 + dots, 0.9)
    slope = random.uniform(-0.12, 0.12, 2)
    light = 0.92 + slope[0] * (2 * x / width - 1) + slope[1] * (2 * y / height - 1)
    photograph = page * light + random.normal(0, 0.02, page.shape)
    return _jpeg(photograph, _PHOTO_JPEG), _moved(boxes, _to_photograph(corners, (height, width)))


def _monitor(pixels: Array, boxes: Boxes, random: np.random.Generator) -> Changed:
    """A photograph of a monitor: perspective, frame and wall, moiré, reflection, colour cast.

    The screen's red, green and blue stripes differ from the camera's pixels in width by a few per
    cent, which gives a beat pattern. The blue cast is converted to grey like a colour file.
    """
    height, width = _fitted(pixels.shape, _PHOTO_PX)
    inset = 0.12 + random.uniform(-0.06, 0.06, (4, 2))
    corners = np.abs(_SQUARE - inset) * (width, height)
    screen, at = _photographed(pixels, corners, (height, width))
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    glare_x, glare_y = random.uniform(0.2, 0.8, 2)
    glare = 0.18 * np.exp(-((x - glare_x) ** 2 + (y - glare_y) ** 2) / 0.03)
    pitches = np.array([0.76 * width, 0.76 * height]) * random.uniform(0.93, 0.97, 2)
    lines = 1 + 0.1 * np.cos(2 * np.pi * at[..., 1] * pitches[1])
    outside = np.abs(at - 0.5).max(-1) - 0.5
    grey = np.zeros((height, width))
    for k, (weight, gain, gamma) in enumerate(
        zip(_LUMA, (0.82, 0.95, 1.1), (1.15, 1.0, 0.8), strict=True)
    ):
        stripes = 1 + 0.3 * np.cos(2 * np.pi * (at[..., 0] * pitches[0] + k / 3))
        emitted = gain * (0.05 + 0.95 * np.clip(screen, 0, 1) ** gamma) * lines * stripes
        room = np.where(outside > 0.06, gain * 0.3, 0.03)  # the wall, and the monitor's frame
        grey += weight * np.clip(np.where(outside <= 0, emitted, room) + glare, 0, 1)
    grey += random.normal(0, 0.01, grey.shape)
    return _jpeg(grey, _PHOTO_JPEG), _moved(boxes, _to_photograph(corners, (height, width)))


SUITE: Mapping[str, Shift] = {
    HOME: _none,
    "tight-crop": _tight_crop,
    "wide-plate": _wide_plate,
    "rotate-90": _rotation,
    "collimation": _collimation,
    "inversion": _inversion,
    "low-contrast": _low_contrast,
    "blur": _blur,
    "jpeg-20": _jpeg_20,
    "200-px": _few_pixels,
    "paper": _paper,
    "monitor": _monitor,
}
"""Every shift by name; the first leaves the picture unchanged."""

SHIFTS = tuple(name for name in SUITE if name != HOME)


# ----------------------------------------------------------------------------------- helpers

_SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
"""Corners x, y of a picture as fractions, clockwise from the top left."""


def _fitted(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    """(H, W) with the same aspect ratio and the given longest side."""
    scale = longest / max(shape)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _resized(pixels: Array, height: int, width: int) -> Array:
    """Resize with Pillow, which antialiases when it shrinks."""
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def _jpeg(pixels: NDArray[Any], quality: int) -> Array:
    """Encode as 8-bit JPEG and decode again."""
    stored = BytesIO()
    eight_bit = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(eight_bit).save(stored, "JPEG", quality=quality)
    return np.asarray(Image.open(stored), np.float32) / np.float32(255)


def _moved(boxes: Boxes, move: Callable[[_Points], _Points]) -> Boxes:
    """Axis-aligned rectangles around the transformed corners of the boxes."""
    moved: list[Box] = []
    for x0, y0, x1, y1 in boxes:
        corners = move(np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
        (left, top), (right, bottom) = np.clip([corners.min(0), corners.max(0)], 0, 1).tolist()
        moved.append((left, top, right, bottom))
    return tuple(moved)


def _homography(start: _Points, end: _Points) -> _Points:
    """(3, 3) projective map from four points (4, 2) to four others."""
    rows = []
    for (x, y), (u, v) in zip(start, end, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    return np.append(np.linalg.solve(np.array(rows), end.ravel()), 1).reshape(3, 3)


def _project(matrix: _Points, points: _Points) -> _Points:
    """Apply a projective map to (..., 2) points."""
    raw = points @ matrix[:, :2].T + matrix[:, 2]
    return raw[..., :2] / raw[..., 2:]


def _photographed(pixels: Array, corners: _Points, shape: tuple[int, int]) -> tuple[Array, _Points]:
    """A photograph in which a picture has its corners at the given points.

    Args:
        pixels: (H, W) of the picture.
        corners: (4, 2) x, y in px of the photograph, in the order of :data:`_SQUARE`.
        shape: (h, w) of the photograph.

    Returns:
        (h, w) the picture on black, and (h, w, 2) the position in the picture of each pixel of
        the photograph, x and y as fractions.
    """
    height, width = shape
    size = pixels.shape[1], pixels.shape[0]
    matrix = _homography(corners, _SQUARE * size)
    photograph = Image.fromarray(pixels).transform(
        (width, height), Image.Transform.PERSPECTIVE, (matrix / matrix[2, 2]).ravel()[:8].tolist(),
        Image.Resampling.BICUBIC,
    )  # fmt: skip
    y, x = np.mgrid[0:height, 0:width] + 0.5
    at = _project(matrix, np.stack([x, y], -1)) / size
    return np.clip(np.asarray(photograph), 0, 1), at


def _to_photograph(corners: _Points, shape: tuple[int, int]) -> Callable[[_Points], _Points]:
    """Map from fractions of a picture to fractions of the photograph (:func:`_photographed`)."""
    matrix = _homography(_SQUARE, corners)
    return lambda points: _project(matrix, points) / shape[::-1]
