"""Bit alignment of stored values (PS3.5 8.1.1), with a check of HighBit against the values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ..errors import UnreadableImageError
from ..row_bands import bands
from .header import header_number

Frame = NDArray[Any]


def right_aligned(
    frame: Frame, ds: Dataset, name: str, *, decoded: bool = False
) -> tuple[Frame, str]:
    """Right-align the values of a frame and extend their sign.

    If bits are set outside the range of HighBit, it is wrong, and the values decide whether they
    are at the lower or the upper end of the container.

    Args:
        frame: (H, W) integers as stored in the file, unsigned or signed according to the header.
        ds: The header: BitsStored, HighBit, padding, overlays.
        name: File name, for errors.
        decoded: Whether the values come from a decoder that right-aligns them.

    Returns:
        The values in at most 16 bits, and a note on a correction; empty if there was none.

    Raises:
        UnreadableImageError: The values need more bits than BitsStored.
    """
    container = frame.dtype.itemsize * 8
    stored = min(int(ds.BitsStored), container)
    expected = 0 if decoded else int(ds.get("HighBit", stored - 1)) + 1 - stored
    if stored == container:
        return _small(frame), ""
    padding = header_number(ds.get("PixelPaddingValue"))
    for shift in dict.fromkeys((expected, 0, container - stored)):
        if 0 <= shift <= container - stored and _fits(frame, stored, shift, padding):
            note = "" if shift == expected else "HighBit contradicts the values"
            return _extract(frame, stored, shift), note
    if 0 <= expected <= container - stored and _holds_overlay(ds):
        return _extract(frame, stored, expected, masked=True), ""
    raise UnreadableImageError(
        f"{name}: found values of more bits than the {stored} of the header, expected correct "
        "BitsStored and HighBit"
    )


def _fits(frame: Frame, stored: int, shift: int, padding: float | None) -> bool:
    """Whether all values except padding fit into the stored bits at a shift."""
    # The sign of signed values may or may not extend over the unused bits.
    low = -(2 ** (stored - 1)) if frame.dtype.kind == "i" else 0
    below = frame.dtype.type(2**shift - 1)
    for part in _parts(frame):
        values = part
        if padding is not None:
            values = part[part != np.array(int(padding)).astype(frame.dtype)]
        if values.size == 0:
            continue
        shifted = values >> shift if shift else values
        if shifted.min() < low or shifted.max() >= 2**stored or (values & below).any():
            return False
    return True


def _extract(frame: Frame, stored: int, shift: int, *, masked: bool = False) -> Frame:
    container, signed = frame.dtype.itemsize * 8, frame.dtype.kind == "i"
    if shift == 0 and not signed and not masked:
        return _small(frame)
    values = np.empty_like(frame)
    for part, out in zip(_parts(frame), _parts(values), strict=True):
        np.right_shift(part, shift, out=out)
        if signed or masked:
            np.left_shift(out, container - stored, out=out)
            np.right_shift(out, container - stored, out=out)
    return _small(values)


def _small(frame: Frame) -> Frame:
    """Convert to 16 bits, which the readers of grey values require."""
    return frame if frame.dtype.itemsize <= 2 else frame.astype(f"{frame.dtype.kind}2")


def _parts(frame: Frame) -> Iterator[Frame]:
    for rows in bands(*frame.shape):
        yield frame[rows]


def _holds_overlay(ds: Dataset) -> bool:
    """Whether the unused bits contain an overlay (retired, PS3.5 8.1.2 up to 2004)."""
    for group in range(0x6000, 0x6020, 2):
        position = ds.get((group, 0x0102))
        if position is not None and position.value and (group, 0x3000) not in ds:
            return True
    return False
