"""Conversion of stored DICOM values to display values: the pipeline of PS3.4 N.2 with PS3.3 C.11.

Modality LUT or rescale, then VOI LUT or window, then the polarity of the presentation. Each step
depends only on the value, so the pipeline is computed once for each grey level of a frame.

pydicom has these steps too, but its VOI LUT wraps around if the table has 8-bit entries and the
picture more bits, and its modality LUT does so for a negative first value. The tests compare both
implementations where pydicom is correct.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ..domain import Array
from ..row_bands import bands
from .bit_depth import bits_used
from .header import first_item, header_number, window

Values = NDArray[np.float64]
Table = tuple[Values, int, int]
"""Entries of a look-up table, the input of the first entry, and the number of bits they use."""


def display_values(stored: NDArray[Any], ds: Dataset, *, big_endian: bool) -> Array:
    """Convert one monochrome frame to the grey values that a viewer shows by default.

    Args:
        stored: (H, W) integers of at most 16 bits, sign-extended if signed.
        ds: The header of this frame (:func:`.header.of_frame`). The first VOI LUT is used, else the
            first window. With neither, the smallest value of the frame (without padding) becomes
            black and the largest white.
        big_endian: Byte order of LUT data in the file.

    Returns:
        (H, W) float32 in [0, 1], high values white; padding is black.
    """
    pixels = np.zeros(stored.shape, np.float32)
    first, last = _extremes(stored, ds)
    if first > last:
        return pixels
    levels = modality_values(np.arange(first, last + 1, dtype=np.float64), ds, big_endian)
    displayed = voi_values(levels, ds, big_endian)
    if is_inverted(ds):
        displayed = 1.0 - displayed
    table = np.clip(displayed, 0.0, 1.0).astype(np.float32)
    for rows in bands(*stored.shape):
        values = stored[rows]
        pixels[rows] = table[np.clip(values.astype(np.intp) - first, 0, last - first)]
        padding = _padding(values, ds)
        if padding is not None:
            pixels[rows][padding] = 0.0
    return pixels


def modality_extremes(
    stored: NDArray[Any], ds: Dataset, *, big_endian: bool
) -> tuple[float, float]:
    """Smallest and largest value of a frame after the modality LUT, without padding.

    Args:
        stored: See :func:`display_values`.
        ds: The header.
        big_endian: Byte order of LUT data in the file.
    """
    padding = _padding(stored, ds)
    picture = stored if padding is None or padding.all() else stored[~padding]
    first, last = int(picture.min()), int(picture.max())
    values = modality_values(np.arange(first, last + 1, dtype=np.float64), ds, big_endian)
    return float(values.min()), float(values.max())


def modality_values(values: Values, ds: Dataset, big_endian: bool) -> Values:
    """Apply the modality LUT or the rescale, if the header has one.

    Args:
        values: Stored values.
        ds: The header.
        big_endian: Byte order of LUT data.

    Raises:
        ValueError: The table is malformed.
    """
    if item := first_item(ds, "ModalityLUTSequence"):
        return _look_up(values, *modality_table(item, ds, big_endian)[:2])
    slope, intercept = (
        header_number(ds.get("RescaleSlope")),
        header_number(ds.get("RescaleIntercept")),
    )
    if not slope or intercept is None:
        return values
    return values * slope + intercept


def voi_values(values: Values, ds: Dataset, big_endian: bool) -> Values:
    """Apply the VOI LUT, else the window, else stretch from the smallest to the largest value.

    Args:
        values: Output of :func:`modality_values`.
        ds: The header. An invalid window (for example without a width) is ignored.
        big_endian: Byte order of LUT data.

    Returns:
        Values in [0, 1].

    Raises:
        ValueError: The table is malformed.
    """
    if item := first_item(ds, "VOILUTSequence"):
        table, first, bits = voi_table(item, ds, big_endian)
        return _look_up(values, table, first) / (2.0**bits - 1.0)
    if parameters := window(ds):
        centre, width, function = parameters
        if function == "LINEAR":
            if width == 1.0:
                return (values > centre - 0.5).astype(np.float64)
            return np.clip((values - (centre - 0.5)) / (width - 1.0) + 0.5, 0.0, 1.0)
        if function == "LINEAR_EXACT":
            return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
        # SIGMOID; the exponent is bounded because exp overflows beyond 709.
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -700.0, 700.0)))
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _extremes(stored: NDArray[Any], ds: Dataset) -> tuple[int, int]:
    """Smallest and largest value without padding; (1, 0) if all is padding."""
    extremes: list[int] = []
    for rows in bands(*stored.shape):
        values = stored[rows]
        padding = _padding(values, ds)
        picture = values if padding is None else values[~padding]
        if picture.size:
            extremes += int(picture.min()), int(picture.max())
    return (min(extremes), max(extremes)) if extremes else (1, 0)


def is_inverted(ds: Dataset) -> bool:
    """Whether small values are white.

    MONOCHROME1 and INVERSE mean the same (PS3.3 C.8.11.3.1.2); both together do not cancel out.
    """
    shape = ds.get("PresentationLUTShape")
    return bool(ds.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE")


def _padding(stored: NDArray[Any], ds: Dataset) -> NDArray[np.bool_] | None:
    """Mask of the pixels outside the picture (PS3.3 C.7.5.1.1.2)."""
    value = header_number(ds.get("PixelPaddingValue"))
    if value is None:
        return None
    limit = header_number(ds.get("PixelPaddingRangeLimit"))
    # Headers often give the value with the wrong sign: compare in the type of the frame.
    ends = [
        int(np.array(int(end)).astype(stored.dtype))
        for end in (value, value if limit is None else limit)
    ]
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))


def modality_table(item: Dataset, ds: Dataset, big_endian: bool) -> Table:
    """The modality LUT: entries, the stored value of the first entry, and the bits of an entry.

    Args:
        item: Item of the ModalityLUTSequence.
        ds: The header of the frame.
        big_endian: Byte order of LUT data.

    Raises:
        ValueError: The table is malformed.
    """
    return look_up_table(item, big_endian, _stored_range(ds))


def voi_table(item: Dataset, ds: Dataset, big_endian: bool) -> Table:
    """The VOI LUT: entries, the value of the first entry after the modality LUT, and the bits.

    Args:
        item: Item of the VOILUTSequence.
        ds: The header of the frame.
        big_endian: Byte order of LUT data.

    Raises:
        ValueError: The table is malformed.
    """
    if first_item(ds, "ModalityLUTSequence"):
        return look_up_table(item, big_endian, (0.0, 65535.0))
    ends = modality_values(np.array(_stored_range(ds)), ds, big_endian)
    return look_up_table(item, big_endian, (float(ends.min()), float(ends.max())))


def _stored_range(ds: Dataset) -> tuple[float, float]:
    """Smallest and largest value that can be stored."""
    span = 2.0 ** int(ds.BitsStored)
    return (-span / 2, span / 2 - 1) if int(ds.PixelRepresentation) else (0.0, span - 1)


def look_up_table(item: Dataset, big_endian: bool, inputs: tuple[float, float]) -> Table:
    """Read a table of unsigned 16-bit words, regardless of the sign in the file.

    Args:
        item: Item with LUTDescriptor and LUTData.
        big_endian: Byte order of LUT data.
        inputs: Smallest and largest possible input. The first input of the table is signed if and
            only if these can be negative (PS3.3 C.11.1.1.1, C.11.2.1.1), unless the table would
            then start beyond all of them.

    Returns:
        The entries; the input of the first entry; the bits that the entries use, at least 8 (many
        descriptors give 16 for tables with fewer).

    Raises:
        ValueError: The table is malformed.
    """
    entries, word, bits = _descriptor(item.LUTDescriptor, big_endian)
    entries = entries or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        # 8-bit entries may be packed, two to a word.
        packed = bits <= 8 and len(data) < 2 * entries
        code = "u1" if packed else (">u2" if big_endian else "<u2")
        table = np.frombuffer(data, code, count=min(entries, len(data) // np.dtype(code).itemsize))
    else:
        table = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
        if bits <= 8 and len(table) < entries:
            table = table.astype(">u2" if big_endian else "<u2").view("u1")[:entries]
    if len(table) != entries or not 1 <= bits <= 16:
        raise ValueError(
            f"LUT has {len(table)} entries of {bits} bits, the descriptor gives {entries}"
        )
    return table.astype(np.float64), _first_input(word, entries, inputs), bits_used(table.max())


def _descriptor(value: Any, big_endian: bool) -> tuple[int, int, int]:
    """Number of entries, first input and bits, as unsigned words."""
    if isinstance(value, bytes):  # of unknown representation
        value = np.frombuffer(value, ">u2" if big_endian else "<u2").tolist()
    entries, first, bits = (int(part) & 0xFFFF for part in value)
    return entries, first, bits


def _first_input(word: int, entries: int, inputs: tuple[float, float]) -> int:
    """First input of a table, with the sign that fits the possible inputs."""
    low, high = inputs
    signed = word - 2**16 if word >= 2**15 else word
    expected, other = (signed, word) if low < 0 else (word, signed)
    overlaps = [first <= high and first + entries > low for first in (expected, other)]
    return other if overlaps == [False, True] else expected


def _look_up(values: Values, table: Values, first: int) -> Values:
    """Look up values; those below the table get the first entry, those above it the last."""
    entries: Values = table[np.clip(np.rint(values) - first, 0, len(table) - 1).astype(np.intp)]
    return entries
