"""Conversion of JPEG, PNG, TIFF, WebP and BMP to grey values in [0, 1], with Pillow.

Known limits of Pillow: CMYK with 16 bits per channel keeps the upper 8; 64-bit and half-precision
TIFF is refused.

Draft mode of JPEG (scaling during decoding) is not used. Of 291 test pictures, 28 are large enough
for it; it would save a tenth of their decoding time and change probabilities by up to 0.08.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ..domain import Array, Flag, ImageRef, XrayImage
from ..errors import OwnOutputError, UnreadableImageError
from ..row_bands import bands
from .bit_depth import white
from .colour import coloured_image
from .deep_colour import is_deep, is_deep_grey, read_deep
from .limits import MAX_PICTURES, MAX_PIXELS
from .memory_budget import MemoryBudget
from .own_output import MAKER
from .sniff import Kind
from .square_pixels import square_shape, squared
from .tiff import has_planes, put_in_native_order, read_planes

# Plugins instead of Image.open: the format is known from the content, and Image.open warns about
# large pictures by a process-wide limit before the size can be checked.
_OPENERS: Mapping[Kind, Callable[[BytesIO], ImageFile]] = {
    Kind.JPEG: JpegImageFile,
    Kind.PNG: PngImageFile,
    Kind.TIFF: TiffImageFile,
    Kind.WEBP: WebPImageFile,
    Kind.BMP: BmpImageFile,
}

_ORIENTATION, _X_RESOLUTION, _Y_RESOLUTION = 0x0112, 0x011A, 0x011B
_SUBFILE_TYPE, _BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 254, 258, 262, 339
_SIGNED = 2
# Functions that turn a picture upright, by EXIF orientation.
_TURNS: Mapping[int, Callable[[Array], Array]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.T,
    6: lambda pixels: pixels.T[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].T,
    8: lambda pixels: pixels.T[::-1],
}
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class _Coding:
    """Encoding of the values of a TIFF page; the defaults apply to other formats."""

    bits: int | None = None
    signed: bool = False
    white_is_zero: bool = False


@dataclass(frozen=True, slots=True)
class _File:
    """A file in memory that can be opened several times."""

    content: bytes
    kind: Kind
    name: str

    def open(self, page: int = 0) -> ImageFile:
        image = _OPENERS[self.kind](BytesIO(self.content))
        if page:
            image.seek(page)
        return image


def read_raster(
    content: bytes, kind: Kind, ref: ImageRef, room: MemoryBudget
) -> Generator[XrayImage, None, None]:
    """Decode all pages of a TIFF, or the first picture of any other format.

    EXIF orientation is applied, colour becomes luminance, transparent parts become black. If the
    density in the file gives non-square pixels, they are resampled to square ones, and flagged.

    Args:
        content: The whole file.
        kind: Format of the file; not DICOM.
        ref: The file, without a frame number.
        room: Memory budget, reserved for each page until the next one is requested.

    Yields:
        Images. 8-bit values are divided by 255, 16-bit values by 65535 or by the maximum of the
        bits they use (:mod:`.bit_depth`). Floats outside [0, 1], 32-bit and signed integers have no
        defined white: their smallest value becomes 0 and their largest 1.

    Raises:
        UnreadableImageError: The file is damaged, truncated or too large, or has non-finite values.
        OwnOutputError: fxpipe created the file.
    """
    file = _File(content, kind, ref.name)
    try:
        image = file.open()
        if image.info.get("Software") == MAKER:
            raise OwnOutputError(
                f"{file.name}: found a picture created by fxpipe, expected an original"
            )
        pages = _pages(image, file.name) if isinstance(image, TiffImageFile) else [0]
        for page in pages:
            if isinstance(image, TiffImageFile):
                image.seek(page)
            _check_size(image, file.name)
            shape = square_shape((image.height, image.width), _aspect(image))
            deep, is_grey_alpha = is_deep(image), is_deep_grey(image)  # before loading
            with room.for_picture(max(image.width * image.height, math.prod(shape))):
                pixels, flags, bit_depth = _upright(image, file, page)
                source = replace(ref, frame=page) if len(pages) > 1 else ref
                yield XrayImage(
                    pixels=pixels,
                    source=source,
                    bit_depth=bit_depth,
                    flags=flags,
                    colour=0.0 if is_grey_alpha else coloured_image(image, by_most=deep),
                )
                del pixels
    # Errors of Pillow on a damaged file; its parsers use SyntaxError for "not this format".
    except (OSError, SyntaxError) as error:
        raise UnreadableImageError(
            f"{file.name}: cannot decode the {kind} file ({error}), expected a complete and valid "
            "file"
        ) from error


def _pages(image: TiffImageFile, name: str) -> list[int]:
    """Numbers of the pages of a TIFF, without previews."""
    pages = []
    for page in itertools.count():
        try:  # not n_frames, which would first search the last page of possibly millions
            image.seek(page)
        except EOFError:
            break
        if page >= MAX_PICTURES:
            raise UnreadableImageError(
                f"{name}: found more than {MAX_PICTURES} pages, expected fewer"
            )
        if not int(image.tag_v2.get(_SUBFILE_TYPE, 0)) & 1:
            pages.append(page)
    return pages or [0]


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnreadableImageError(
            f"{name}: found {width} x {height} px, expected at most {MAX_PIXELS} px in total"
        )


def _upright(image: ImageFile, file: _File, page: int) -> tuple[Array, tuple[Flag, ...], int]:
    """Decode the current page, make its pixels square and turn it upright.

    Returns:
        (H, W) float32 in [0, 1], a flag if the pixels were not square, and the bits per source
        pixel.
    """
    aspect = _aspect(image)
    turn = _orientation(image) if isinstance(image, TiffImageFile) else 1
    pixels, bits, remaining_turn = _grey(image, file, page)
    if aspect is not None and turn in _SIDEWAYS and remaining_turn == 1:
        aspect = 1.0 / aspect
    pixels, flags = squared(pixels, aspect)
    if remaining_turn in _TURNS:
        pixels = np.ascontiguousarray(_TURNS[remaining_turn](pixels))
    return pixels, flags, bits


def _grey(image: ImageFile, file: _File, page: int) -> tuple[Array, int, int]:
    """Decode the current page.

    Returns:
        (H, W) float32 in [0, 1], the bits per source pixel, and the orientation that is still to be
        applied (Pillow turns TIFF pages upright itself).
    """
    coding = _Coding()
    if isinstance(image, TiffImageFile):
        if has_planes(image):
            return *read_planes(image, file.content, file.name), _orientation(image)
        coding = _coding(image)
        put_in_native_order(image)
    if is_deep(image):
        return read_deep(image, file.open(page)), 16, _orientation(image)
    image.load()
    pixels = np.empty((image.height, image.width), np.float32)
    if image.mode == "F" or image.mode.startswith("I"):
        return pixels, _deep(image, coding, file.name, out=pixels), _orientation(image)
    if coding.signed:
        raise UnreadableImageError(
            f"{file.name}: found signed 8-bit values, expected unsigned ones"
        )
    hidden = _is_hidden(image)
    for rows, strip in _strips(image):
        grey = strip.convert("RGB").convert("L") if hidden else _luminance(strip)
        np.divide(np.asarray(grey), np.float32(255), out=pixels[rows])
    return pixels, 1 if image.mode == "1" else 8, _orientation(image)


def _is_hidden(image: Image.Image) -> bool:
    """Whether a picture is fully transparent; its transparency is then ignored."""
    return image.has_transparency_data and not any(
        strip.convert("RGBA").getchannel("A").getbbox() for _, strip in _strips(image)
    )


def _orientation(image: ImageFile) -> int:
    """EXIF orientation; 1 (upright) if there is none or it cannot be read."""
    return int(_exif(image, _ORIENTATION) or 1)


def _aspect(image: ImageFile) -> float | None:
    """Height of a pixel divided by its width, from the density of the file; None without one."""
    densities = [image.info.get(name) for name in ("jfif_density", "aspect")]
    if isinstance(image, PngImageFile | BmpImageFile):
        densities.append(image.info.get("dpi"))
    else:  # reading the EXIF block of a PNG would load the picture
        densities.append((_exif(image, _X_RESOLUTION), _exif(image, _Y_RESOLUTION)))
    for across, down in filter(None, densities):
        if across and down and min(across, down) > 0 and across != down:
            return float(across) / float(down)
    return None


def _exif(image: ImageFile, tag: int) -> float | None:
    """An EXIF number; None if it cannot be read."""
    try:
        value = image.getexif().get(tag)
        return None if value is None else float(value)
    # As in decode: Pillow raises nearly any exception on a damaged block.
    except Exception:  # noqa: BLE001
        return None


def _strips(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """A picture in bands of rows, because Pillow and numpy each copy what they convert."""
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
    # Pillow inverts 8-bit pages itself, and only those.
    if coding.white_is_zero:
        np.subtract(np.float32(1), out, out=out)
    return bits


def _range(image: Image.Image, coding: _Coding, name: str) -> tuple[float, float, int]:
    """The value that becomes 0, its distance to the value that becomes 1, and the bits."""
    first = np.asarray(image.crop((0, 0, 1, 1))).dtype
    unsigned = first.kind == "u" and first.itemsize == 2  # in either byte order
    bits = coding.bits or (16 if unsigned else 32)
    low, high, bad = np.inf, -np.inf, 0
    for _, strip in _strips(image):
        numbers = _numbers(strip, coding)
        low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
        bad += int((~np.isfinite(numbers)).sum())
    if bad:
        raise UnreadableImageError(
            f"{name}: found {bad} pixels that are NaN or infinite, expected finite values"
        )
    if unsigned or (bits == 16 and low >= 0.0):
        return 0.0, float(white(high, bits)), bits
    if image.mode == "F" and low >= 0.0 and high <= 1.0:
        return 0.0, 1.0, bits
    return low, (high - low) or 1.0, bits


def _numbers(image: Image.Image, coding: _Coding) -> NDArray[np.float64]:
    values = np.asarray(image)
    if values.dtype == np.int32 and coding.bits in (None, 32) and not coding.signed:
        values = values.view(np.uint32)  # Pillow has no mode for unsigned 32-bit values
    return values.astype(np.float64)


def _luminance(image: Image.Image) -> Image.Image:
    """Convert any 8-bit mode to mode L (ITU-R 601), blended with black where transparent."""
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, layer).convert("L")
    return image if image.mode == "L" else image.convert("RGB").convert("L")
