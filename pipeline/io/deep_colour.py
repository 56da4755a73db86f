"""Reading of colour with 16 bits per channel, of which Pillow keeps only the upper 8.

Pillow has unpackers for both byte orders, and each keeps the upper byte of a number. With the wrong
byte order, it keeps the lower one. So the picture is decoded twice, once per byte order. This works
with any compression, filter and interlacing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.ImageFile import ImageFile

from ..domain import Array
from ..row_bands import bands
from .bit_depth import white

Strips = Iterator[tuple[slice, NDArray[Any], NDArray[Any] | None]]
"""Rows; (h, W, 1) or (h, W, 3) unsigned integers; (h, W) opacity, None if opaque."""

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)
"""ITU-R 601, as in Pillow."""

_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_COLOURS = ("RGB;16", "RGBX;16", "RGBA;16", "RGBa;16")
_GREY_ALPHA = "LA;16B"


def is_deep(image: ImageFile) -> bool:
    """Whether an open, not yet loaded picture has 16-bit colour or 16-bit grey with alpha."""
    rawmode = _rawmode(image)
    return rawmode == _GREY_ALPHA or (rawmode[:-1] in _COLOURS and rawmode[-1] in _OTHER_ORDER)


def is_deep_grey(image: ImageFile) -> bool:
    """Whether an open, not yet loaded picture has 16-bit grey with alpha."""
    return _rawmode(image) == _GREY_ALPHA


def read_deep(high: ImageFile, low: ImageFile) -> Array:
    """Decode a picture of which :func:`is_deep` is true.

    Args:
        high: The picture, open and not yet loaded; loaded by this function.
        low: The same picture, opened a second time.

    Returns:
        (H, W) float32 in [0, 1]: luminance; transparent parts are black.
    """
    rawmode = _rawmode(high)
    if rawmode == _GREY_ALPHA:
        unpack_as(high, lambda _: "RGBA")  # also four bytes: two of grey, two of alpha
        high.load()
        return luminance(lambda: _words(high), (high.height, high.width), 16)
    unpack_as(low, lambda mode: mode[:-1] + _OTHER_ORDER[mode[-1]])
    high.load()
    low.load()
    opacity = rawmode.startswith("RGBA")
    return luminance(lambda: _pairs(high, low, opacity), (high.height, high.width), 16)


def luminance(
    strips: Callable[[], Strips], shape: tuple[int, int], bits: int, *, inverted: bool = False
) -> Array:
    """Compute the luminance, scaled by the number of bits that a picture uses.

    Args:
        strips: Function that yields the picture from top to bottom; called twice.
        shape: (H, W).
        bits: Largest number of bits of a value.
        inverted: Whether 0 is white.

    Returns:
        (H, W) float32 in [0, 1]; transparent parts are black. A picture that is transparent
        everywhere is treated as opaque.
    """
    highest, visible = 0, False
    for _, colours, opacity in strips():
        highest = max(highest, int(colours.max()))
        visible = visible or (opacity is not None and bool(opacity.any()))
    most = np.float32(white(highest, bits))
    pixels = np.empty(shape, np.float32)
    for rows, colours, opacity in strips():
        weights = LUMINANCE if colours.shape[-1] == 3 else np.ones(1, np.float32)
        grey = np.clip(colours @ (weights / most), 0.0, 1.0)
        pixels[rows] = 1.0 - grey if inverted else grey
        if opacity is not None and visible:
            pixels[rows] *= opacity / np.float32(2**bits - 1)
    return pixels


def _pairs(high: ImageFile, low: ImageFile, opacity: bool) -> Strips:
    for rows in bands(high.height, high.width):
        box = (0, rows.start, high.width, rows.stop)
        upper, lower = np.asarray(high.crop(box)), np.asarray(low.crop(box))
        numbers = upper.astype(np.uint16) << 8 | lower
        yield rows, numbers[..., :3], numbers[..., 3] if opacity else None


def _words(image: ImageFile) -> Strips:
    for rows in bands(image.height, image.width):
        strip = np.asarray(image.crop((0, rows.start, image.width, rows.stop)))
        numbers = np.ascontiguousarray(strip).view(">u2").astype(np.uint16)
        yield rows, numbers[..., :1], numbers[..., 1]


def unpack_as(image: ImageFile, change: Callable[[str], str]) -> None:
    """Change the raw mode in which Pillow unpacks an open, not yet loaded picture.

    Args:
        image: The picture; changed in place.
        change: Function from the raw mode of a tile to the new one.
    """
    tiles: list[Any] = image.tile
    for number, tile in enumerate(tiles):
        arguments = tile[3]
        if isinstance(arguments, str):
            changed: Any = change(arguments)
        else:
            changed = (change(arguments[0]), *arguments[1:])
        # Tiles are named tuples since Pillow 11.
        named = hasattr(tile, "_replace")
        tiles[number] = tile._replace(args=changed) if named else (*tile[:3], changed)


def _rawmode(image: ImageFile) -> str:
    """Raw mode in which the decoder unpacks the picture."""
    arguments: Any = image.tile[0][3] if image.tile else ""
    return arguments if isinstance(arguments, str) else str(arguments[0])
