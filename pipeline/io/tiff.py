"""Workarounds for TIFF pages that Pillow reads wrongly: separate planes, and some big-endian data.

Pillow unpacks uncompressed 16-bit planes as 8-bit ones, and uses the second plane of grey with
alpha as the first. So each plane is read as a separate grey page, by appending another directory to
the file.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from ..domain import Array
from ..errors import UnreadableImageError
from ..row_bands import bands
from .deep_colour import Strips, luminance, unpack_as

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA = 258, 262, 277, 284, 338
_STRIPS, _TILES = (273, 279), (324, 325)
_FORMAT, _JPEG_TABLES = 339, 347
_SHARED = (256, 257, 259, 266, 278, 317, 322, 323, _FORMAT, _JPEG_TABLES)
"""Size, compression, bit order, rows per strip, predictor, tiles, format, JPEG tables."""
_WORDS = (259, 266, 317, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _FORMAT)
_SHORT, _LONG, _BYTES = (3, "H"), (4, "I"), (7, "B")
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_SEPARATE = 2
_OPACITY = 2
"""Opacity that is not premultiplied."""


def put_in_native_order(image: TiffImageFile) -> None:
    """Read numbers that libtiff unpacks in the native byte order, in which it returns them.

    Pillow does so only for unsigned 16-bit numbers.
    """
    if image.tile and image.tile[0][0] == "libtiff":
        unpack_as(image, lambda mode: re.sub(r"(;\d+)B([SF]?)$", r"\1N\2", mode))


def has_planes(image: TiffImageFile) -> bool:
    """Whether the current page has separate planes that this module reads."""
    tags = image.tag_v2
    photometric = tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO)
    return bool(
        tags.get(_PLANAR) == _SEPARATE
        and tags.get(_SAMPLES, 1) > 1
        and photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
    )


def read_planes(image: TiffImageFile, content: bytes, name: str) -> tuple[Array, int]:
    """Decode the current page, plane by plane.

    Args:
        image: Image at a page with planes (:func:`has_planes`).
        content: The whole file.
        name: File name, for errors.

    Returns:
        (H, W) float32 in [0, 1], in the orientation of the file: luminance, transparent parts
        black; and the bits per sample.

    Raises:
        UnreadableImageError: Samples of other than 8 or 16 bits.
    """
    tags = image.tag_v2
    photometric = tags.get(_PHOTOMETRIC, _WHITE_IS_ZERO)
    colours = 3 if photometric == _RGB else 1
    opacity = next(iter(tags.get(_EXTRA, ())), 0) == _OPACITY
    planes = [*_planes(content, tags, colours + opacity, name)]
    bits = planes[0].dtype.itemsize * 8

    def strips() -> Strips:
        for rows in bands(*planes[0].shape):
            stacked = np.stack([plane[rows] for plane in planes[:colours]], -1)
            yield rows, stacked, planes[-1][rows] if opacity else None

    inverted = photometric == _WHITE_IS_ZERO
    return luminance(strips, planes[0].shape, bits, inverted=inverted), bits


def _planes(
    content: bytes, tags: ImageFileDirectory_v2, count: int, name: str
) -> Iterator[NDArray[Any]]:
    """The first planes of a page, each (H, W) uint8 or uint16."""
    places, lengths = _TILES if _TILES[0] in tags else _STRIPS
    a_plane = len(tags[places]) // tags[_SAMPLES]
    bits: Sequence[int] = tags.get(_BITS, (1,))
    shared = {tag: tags[tag] for tag in _SHARED if tag in tags}
    if _FORMAT in shared:
        shared[_FORMAT] = shared[_FORMAT][0]
    for number in range(count):
        part = slice(number * a_plane, (number + 1) * a_plane)
        page = shared | {
            **{_BITS: bits[min(number, len(bits) - 1)], _PHOTOMETRIC: _BLACK_IS_ZERO},
            **{_SAMPLES: 1, _PLANAR: 1, places: tags[places][part], lengths: tags[lengths][part]},
        }
        image = TiffImageFile(BytesIO(_with_directory(content, page, tags.prefix)))
        put_in_native_order(image)
        image.load()
        values = np.asarray(image)
        if values.dtype.kind != "u" or values.dtype.itemsize > 2:
            raise UnreadableImageError(
                f"{name}: found planes of {page[_BITS]} bits in mode {image.mode}, expected "
                "unsigned 8 or 16 bits"
            )
        yield values.astype(values.dtype.newbyteorder("="))


def _with_directory(content: bytes, page: dict[int, Any], prefix: bytes) -> bytes:
    """Append another first directory to the file.

    The new header is that of a classic TIFF, even if the file is a BigTIFF: offsets of strips and
    tiles count from the start of the file, and both headers end before the first of them.
    """
    order = "<" if prefix == b"II" else ">"
    entries, beyond = [], b""
    start = len(content) + len(content) % 2
    end = start + 2 + 12 * len(page) + 4
    for tag, value in sorted(page.items()):
        number, code = _SHORT if tag in _WORDS else _BYTES if tag == _JPEG_TABLES else _LONG
        values = tuple(value) if isinstance(value, tuple | bytes) else (value,)
        data = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(data) > 4:
            place = end + len(beyond)
            beyond += data + b"\0" * (len(data) % 2)
            data = struct.pack(f"{order}I", place)
        entries.append(struct.pack(f"{order}HHI", tag, number, len(values)) + data.ljust(4, b"\0"))
    head = prefix + struct.pack(f"{order}HI", 42, start)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)
    return head + content[len(head) :].ljust(start - len(head), b"\0") + directory + beyond
