"""Stored DICOM values to display values: the chain of PS3.4 N.2 with PS3.3 C.11.

Modality LUT or rescale, then VOI LUT or window, then the presentation's direction. Each step is a
function of the value alone, so the chain is computed once for each grey level of a frame.

pydicom has these steps too, but its VOI LUT wraps round when the table has 8-bit entries and the
picture more, and its modality LUT does so with a negative first value. The tests hold both
against each other where pydicom is right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ..bands import bands
from ..domain import Array
from .depth import bits_used
from .header import first_item, header_number, window

Values = NDArray[np.float64]
Table = tuple[Values, int, int]
"""Entries of a look-up table, the input of the first one, and the bits that they use."""


def display_values(stored: NDArray[Any], ds: Dataset, *, big_endian: bool) -> Array:
    """Bring one monochrome frame to the grey values that a viewer would show first.

    Args:
        stored: (H, W) integers of at most 16 bits, signed ones with their sign.
        ds: The header of this frame (:func:`.header.of_frame`). Of several VOI LUTs or windows the
            first is used; a VOI LUT goes before a window. With neither, the smallest value of the
            frame (padding aside) becomes black and the largest white.
        big_endian: Byte order of LUT data in the file.

    Returns:
        (H, W) float32 in [0, 1], high values white; padding is black.
    """
    pixels = np.zeros(stored.shape, np.float32)
    first, last = _extremes(stored, ds)
    if first > last:
        return pixels
    levels = modality_values(np.arange(first, last + 1, dtype=np.float64), ds, big_endian)
    shown = voi_values(levels, ds, big_endian)
    if is_inverted(ds):
        shown = 1.0 - shown
    table = np.clip(shown, 0.0, 1.0).astype(np.float32)
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
    """The least and the greatest value of a frame behind the modality LUT, padding aside.

    Args:
        stored: As for :func:`display_values`.
        ds: The header.
        big_endian: Byte order of LUT data in the file.
    """
    padding = _padding(stored, ds)
    picture = stored if padding is None or padding.all() else stored[~padding]
    first, last = int(picture.min()), int(picture.max())
    values = modality_values(np.arange(first, last + 1, dtype=np.float64), ds, big_endian)
    return float(values.min()), float(values.max())


def modality_values(values: Values, ds: Dataset, big_endian: bool) -> Values:
    """Apply the modality LUT or the rescale; a header with neither changes nothing.

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
        ds: The header. A window that the standard forbids (no width, for one) counts as none.
        big_endian: Byte order of LUT data.

    Returns:
        Values in [0, 1].

    Raises:
        ValueError: The table is malformed.
    """
    if item := first_item(ds, "VOILUTSequence"):
        table, first, bits = voi_table(item, ds, big_endian)
        return _look_up(values, table, first) / (2.0**bits - 1.0)
    if found := window(ds):
        centre, width, function = found
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
    """The smallest and the largest value that is no padding; (1, 0) when there is none."""
    found: list[int] = []
    for rows in bands(*stored.shape):
        values = stored[rows]
        padding = _padding(values, ds)
        picture = values if padding is None else values[~padding]
        if picture.size:
            found += int(picture.min()), int(picture.max())
    return (min(found), max(found)) if found else (1, 0)


def is_inverted(ds: Dataset) -> bool:
    """Whether small values are white.

    MONOCHROME1 and INVERSE say the same thing twice (PS3.3 C.8.11.3.1.2): they do not cancel.
    """
    shape = ds.get("PresentationLUTShape")
    return bool(ds.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE")


def _padding(stored: NDArray[Any], ds: Dataset) -> NDArray[np.bool_] | None:
    """Mask of the pixels that are no part of the picture (PS3.3 C.7.5.1.1.2)."""
    value = header_number(ds.get("PixelPaddingValue"))
    if value is None:
        return None
    limit = header_number(ds.get("PixelPaddingRangeLimit"))
    # Headers often give the number with the wrong sign: compare in the frame's own type.
    ends = [
        int(np.array(int(end)).astype(stored.dtype))
        for end in (value, value if limit is None else limit)
    ]
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))


def modality_table(item: Dataset, ds: Dataset, big_endian: bool) -> Table:
    """The modality LUT: entries, the stored value of the first one, and the bits of an entry.

    Args:
        item: Of the ModalityLUTSequence.
        ds: The header of the frame.
        big_endian: Byte order of LUT data.

    Raises:
        ValueError: The table is malformed.
    """
    return look_up_table(item, big_endian, _stored_range(ds))


def voi_table(item: Dataset, ds: Dataset, big_endian: bool) -> Table:
    """The VOI LUT: entries, the value of the first one behind the modality LUT, and the bits.

    Args:
        item: Of the VOILUTSequence.
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
    """The least and the greatest number that can be stored."""
    span = 2.0 ** int(ds.BitsStored)
    return (-span / 2, span / 2 - 1) if int(ds.PixelRepresentation) else (0.0, span - 1)


def look_up_table(item: Dataset, big_endian: bool, inputs: tuple[float, float]) -> Table:
    """A table of 16-bit words, whatever the file said of their sign.

    Args:
        item: With LUTDescriptor and LUTData.
        big_endian: Byte order of LUT data.
        inputs: The least and the greatest number that the table can be asked for. Where it can be
            negative, so can the first input of the table be (PS3.3 C.11.1.1.1, C.11.2.1.1), and
            else not; unless the table, so read, begins beyond all of them.

    Returns:
        The entries; the input of the first one; the bits that the entries use, at least 8: many
        descriptors say 16 of tables with fewer.

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
        raise ValueError(f"LUT has {len(table)} entries of {bits} bits, descriptor says {entries}")
    return table.astype(np.float64), _first_input(word, entries, inputs), bits_used(table.max())


def _descriptor(value: Any, big_endian: bool) -> tuple[int, int, int]:
    """Number of entries, first input and bits as unsigned words."""
    if isinstance(value, bytes):  # of unknown representation
        value = np.frombuffer(value, ">u2" if big_endian else "<u2").tolist()
    entries, first, bits = (int(part) & 0xFFFF for part in value)
    return entries, first, bits


def _first_input(word: int, entries: int, inputs: tuple[float, float]) -> int:
    """The sign of a table's first input, from what the table can be asked for."""
    low, high = inputs
    signed = word - 2**16 if word >= 2**15 else word
    wanted, other = (signed, word) if low < 0 else (word, signed)
    meets = [first <= high and first + entries > low for first in (wanted, other)]
    return other if meets == [False, True] else wanted


def _look_up(values: Values, table: Values, first: int) -> Values:
    """Values before the table take its first entry, values behind it the last."""
    found: Values = table[np.clip(np.rint(values) - first, 0, len(table) - 1).astype(np.intp)]
    return found
