"""Stored DICOM values to display values: the chain of PS3.4 N.2 with PS3.3 C.11.

Modality LUT or rescale, then VOI LUT or window, then the presentation's direction. Each step is a
function of the value alone, so the chain is computed once for each grey level of a frame.

pydicom has these steps too, but its VOI LUT wraps round when the table has 8-bit entries and the
picture more, and its modality LUT does so with a negative first value. The tests hold both
against each other where pydicom is right.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from ..bands import bands
from ..domain import Array

Values = NDArray[np.float64]


def display_values(stored: NDArray[Any], ds: Dataset, *, big_endian: bool) -> Array:
    """Bring one monochrome frame to the grey values that a viewer would show first.

    Args:
        stored: (H, W) integers of at most 16 bits, as decoded.
        ds: The header. Of several VOI LUTs or windows the first is used; a VOI LUT goes before a
            window. With neither, the smallest value of the frame (padding aside) becomes black
            and the largest white.
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
        values = _sign_extended(stored[rows], ds)
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
    stored = _sign_extended(stored, ds)
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
        table, first, _ = look_up_table(item, big_endian)
        return _look_up(values, table, first)
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
        table, first, bits = look_up_table(item, big_endian)
        white = max(2.0**bits - 1.0, float(table.max()))
        return _look_up(values, table, first) / white
    centre, width = header_number(ds.get("WindowCenter")), header_number(ds.get("WindowWidth"))
    function = str(ds.get("VOILUTFunction") or "LINEAR").strip().upper()
    if centre is not None and width is not None:
        if function == "LINEAR" and width > 1:
            return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)
        if function == "LINEAR" and width == 1:
            return (values > centre - 0.5).astype(np.float64)
        if function == "LINEAR_EXACT" and width > 0:
            return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
        if function == "SIGMOID" and width > 0:
            # The exponent is bounded because exp overflows beyond 709.
            return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -700.0, 700.0)))
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def _extremes(stored: NDArray[Any], ds: Dataset) -> tuple[int, int]:
    """The smallest and the largest value that is no padding; (1, 0) when there is none."""
    found: list[int] = []
    for rows in bands(*stored.shape):
        values = _sign_extended(stored[rows], ds)
        padding = _padding(values, ds)
        picture = values if padding is None else values[~padding]
        if picture.size:
            found += int(picture.min()), int(picture.max())
    return (min(found), max(found)) if found else (1, 0)


def is_inverted(ds: Dataset) -> bool:
    """Whether small values are white.

    MONOCHROME1 and INVERSE say the same thing twice (PS3.3 C.8.11.3.1.2): they do not cancel.
    """
    shape = str(ds.get("PresentationLUTShape") or "").strip().upper()
    return ds.PhotometricInterpretation == "MONOCHROME1" or shape == "INVERSE"


def _sign_extended(stored: NDArray[Any], ds: Dataset) -> NDArray[Any]:
    """Repeat the sign bit of signed values upwards: some decoders leave the unused bits empty."""
    spare = stored.dtype.itemsize * 8 - int(ds.BitsStored)
    if stored.dtype.kind != "i" or spare <= 0:
        return stored
    return (stored << spare) >> spare


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


def first_item(ds: Dataset, keyword: str) -> Dataset | None:
    """The first item of a LUT sequence that has a table; None when there is none."""
    items = ds.get(keyword)
    if not items or items[0].get("LUTData") is None or items[0].get("LUTDescriptor") is None:
        return None
    item: Dataset = items[0]
    return item


def look_up_table(item: Dataset, big_endian: bool) -> tuple[Values, int, int]:
    """The table, the input value of its first entry, and the bits of an entry."""
    entries, first, bits = (int(part) for part in item.LUTDescriptor)
    entries = entries % 2**16 or 2**16  # may be read as signed; 0 stands for 65536
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
    return table.astype(np.float64), first, bits


def _look_up(values: Values, table: Values, first: int) -> Values:
    """Values before the table take its first entry, values behind it the last."""
    found: Values = table[np.clip(np.rint(values) - first, 0, len(table) - 1).astype(np.intp)]
    return found


def header_number(value: Any) -> float | None:
    """The first of one or several header numbers; None when there is no finite one."""
    if isinstance(value, MultiValue | list | tuple):
        value = value[0] if len(value) else None
    if value is None or value == "":
        return None
    number = float(value)
    return number if math.isfinite(number) else None
