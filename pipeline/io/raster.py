"""JPEG, PNG, TIFF, WebP and BMP to grey values in [0, 1], by Pillow.

Known limits, all Pillow's: colour with 16 bits a channel keeps the upper 8; 64-bit and
half-precision TIFF is refused.

Draft mode is not used: of 291 test pictures 28 are large enough for JPEG to be scaled while it is
decoded; that would save a tenth of their decoding and change probabilities by up to 0.08.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ..bands import bands
from ..domain import Array, ImageRef, XrayImage
from ..errors import OwnOutputError, UnreadableImageError
from .colour import coloured_image
from .limits import MAX_PICTURES, MAX_PIXELS
from .own import MAKER
from .room import Room
from .sniff import Kind

# The plugins by name and not Image.open: the format is known from the content, and Image.open
# warns about large pictures by a process-wide limit before the size can be looked at.
_OPENERS: Mapping[Kind, Callable[[BytesIO], ImageFile]] = {
    Kind.JPEG: JpegImageFile,
    Kind.PNG: PngImageFile,
    Kind.TIFF: TiffImageFile,
    Kind.WEBP: WebPImageFile,
    Kind.BMP: BmpImageFile,
}

_ORIENTATION = 0x0112
_SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 254, 258, 262, 339
_SIGNED = 2


@dataclass(frozen=True, slots=True)
class _Coding:
    """How the numbers of a TIFF page are meant; the defaults hold for the other formats."""

    bits: int | None = None
    signed: bool = False
    white_is_zero: bool = False


def read_raster(
    content: bytes, kind: Kind, ref: ImageRef, room: Room
) -> Generator[XrayImage, None, None]:
    """Decode every page of a TIFF, the first picture of any other format.

    EXIF orientation is applied, colour becomes luminance, transparent parts become black.

    Args:
        content: The whole file.
        kind: Its format; not DICOM.
        ref: The file, without a frame number.
        room: Taken for each page until the next one is asked for.

    Yields:
        Images; 8 bit is divided by 255, 16 bit by 65535. Floats outside [0, 1] and 32-bit integers
        have no agreed white: their smallest value becomes 0 and their largest 1.

    Raises:
        UnreadableImageError: Broken, truncated, too large, or with values that are no numbers.
        OwnOutputError: fxpipe wrote it.
    """
    try:
        image = _OPENERS[kind](BytesIO(content))
        if image.info.get("Software") == MAKER:
            raise OwnOutputError(
                f"{ref.path.name}: found a picture that fxpipe made, wanted others"
            )
        pages = _pages(image, ref.path.name) if isinstance(image, TiffImageFile) else [0]
        for page in pages:
            if isinstance(image, TiffImageFile):
                image.seek(page)
            _check_size(image, ref.path.name)
            with room.for_picture(image.width * image.height):
                pixels, bit_depth = _grey(image, ref.path.name)
                source = replace(ref, frame=page) if len(pages) > 1 else ref
                yield XrayImage(
                    pixels=pixels,
                    source=source,
                    bit_depth=bit_depth,
                    colour=coloured_image(image),
                )
                del pixels
    # Pillow's words for a broken file; its parsers use SyntaxError for "not this format".
    except (OSError, SyntaxError) as error:
        raise UnreadableImageError(
            f"{ref.path.name}: found a {kind} file that cannot be decoded ({error}), "
            "wanted a whole and valid one"
        ) from error


def _pages(image: TiffImageFile, name: str) -> list[int]:
    """The pages of a TIFF that are pictures of their own: previews are left out."""
    pages = []
    for page in itertools.count():
        try:  # and not n_frames, which looks for the last page of a million first
            image.seek(page)
        except EOFError:
            break
        if page >= MAX_PICTURES:
            raise UnreadableImageError(f"{name}: found more than {MAX_PICTURES} pages, wanted less")
        if not int(image.tag_v2.get(_SUBFILE_TYPE, 0)) & 1:
            pages.append(page)
    return pages or [0]


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(
            f"{name}: found {width} x {height} px, wanted at most {MAX_PIXELS} px in all"
        )


def _grey(image: ImageFile, name: str) -> tuple[Array, int]:
    """Decode the current page.

    Returns:
        (H, W) float32 in [0, 1], upright, and the bits of a source pixel.
    """
    coding = _coding(image) if isinstance(image, TiffImageFile) else _Coding()
    image.load()
    turned = image.getexif().get(_ORIENTATION, 1) != 1
    upright = ImageOps.exif_transpose(image) if turned else image
    pixels = np.empty((upright.height, upright.width), np.float32)
    if upright.mode == "F" or upright.mode.startswith("I"):
        return pixels, _deep(upright, coding, name, out=pixels)
    if coding.signed:
        raise UnreadableImageError(f"{name}: found signed 8-bit values, wanted unsigned ones")
    for rows, strip in _strips(upright):
        np.divide(np.asarray(_luminance(strip)), np.float32(255), out=pixels[rows])
    return pixels, 1 if upright.mode == "1" else 8


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """A picture in bands of rows: Pillow and numpy each copy what they convert."""
    for rows in bands(image.height, image.width):
        yield rows, image.crop((0, rows.start, image.width, rows.stop))


def _coding(image: TiffImageFile) -> _Coding:
    tags = image.tag_v2
    return _Coding(
        bits=int(tags.get(_BITS_PER_SAMPLE, (1,))[0]),
        signed=tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED,
        white_is_zero=tags.get(_PHOTOMETRIC) == 0,
    )


def _deep(image: Image.Image, coding: _Coding, name: str, out: Array) -> int:
    """Scale pixels of more than 8 bits to [0, 1], into ``out``; returns their bits."""
    black, span, bits = _range(image, coding, name)
    for rows, strip in _strips(image):
        out[rows] = (_numbers(strip, coding) - black) / span
    # Pillow turns 8-bit pages round by itself, and only those.
    if coding.white_is_zero:
        np.subtract(np.float32(1), out, out=out)
    return bits


def _range(image: Image.Image, coding: _Coding, name: str) -> tuple[float, float, int]:
    """The number that becomes 0, the distance from it to the one that becomes 1, and the bits."""
    first = np.asarray(image.crop((0, 0, 1, 1))).dtype
    if first.kind == "u" and first.itemsize == 2:  # in either byte order
        bits = coding.bits or 16
        return 0.0, 2.0**bits - 1.0, bits
    bits = coding.bits or 32
    low, high, bad = np.inf, -np.inf, 0
    for _, strip in _strips(image):
        numbers = _numbers(strip, coding)
        low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
        bad += int((~np.isfinite(numbers)).sum())
    if bad:
        raise UnreadableImageError(
            f"{name}: found {bad} pixels that are NaN or infinite, wanted numbers"
        )
    if bits == 16:
        return -(2.0**15), 2.0**16 - 1.0, bits
    if image.mode == "F" and low >= 0.0 and high <= 1.0:
        return 0.0, 1.0, bits
    return low, (high - low) or 1.0, bits


def _numbers(image: Image.Image, coding: _Coding) -> NDArray[np.float64]:
    values = np.asarray(image)
    if values.dtype == np.int32 and coding.bits in (None, 32) and not coding.signed:
        values = values.view(np.uint32)  # Pillow has no mode of its own for them
    return values.astype(np.float64)


def _luminance(image: Image.Image) -> Image.Image:
    """Any 8-bit mode to mode L (ITU-R 601), laid over black where it is transparent."""
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layer).convert("L")
    return image if image.mode == "L" else image.convert("RGB").convert("L")
