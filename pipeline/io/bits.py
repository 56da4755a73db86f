"""Where in its container a stored value lies (PS3.5 8.1.1): HighBit, held against the values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ..bands import bands
from ..errors import UnreadableImageError
from .header import header_number

Frame = NDArray[Any]


def right_aligned(
    frame: Frame, ds: Dataset, name: str, *, decoded: bool = False
) -> tuple[Frame, str]:
    """Shift the values of a frame to where they count from bit 0, and spread their sign.

    Where HighBit cannot be right, because bits are set outside of what it says, the values decide:
    they may lie at the lower or at the upper end of the container.

    Args:
        frame: (H, W) integers as they stand in the file, unsigned or signed as the header says.
        ds: The header: BitsStored, HighBit, padding, overlays.
        name: File name, for errors.
        decoded: Whether a decoder made them that knows of no unused bits below.

    Returns:
        The values as 16-bit integers or smaller ones, and what was mended: empty if nothing.

    Raises:
        UnreadableImageError: The values need more bits than the header says.
    """
    container = frame.dtype.itemsize * 8
    stored = min(int(ds.BitsStored), container)
    said = 0 if decoded else int(ds.get("HighBit", stored - 1)) + 1 - stored
    if stored == container:
        return _small(frame), ""
    padding = header_number(ds.get("PixelPaddingValue"))
    for shift in dict.fromkeys((said, 0, container - stored)):
        if 0 <= shift <= container - stored and _fits(frame, stored, shift, padding):
            mended = "" if shift == said else "HighBit contradicts the values"
            return _taken_out(frame, stored, shift), mended
    if 0 <= said <= container - stored and _holds_overlay(ds):
        return _taken_out(frame, stored, said, masked=True), ""
    raise UnreadableImageError(
        f"{name}: found values of more bits than the {stored} of the header, wanted BitsStored and "
        "HighBit that are true"
    )


def _fits(frame: Frame, stored: int, shift: int, padding: float | None) -> bool:
    """Whether no bit is set outside of those that would be stored, padding aside."""
    # Signed values may or may not have their sign spread over the unused bits.
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


def _taken_out(frame: Frame, stored: int, shift: int, *, masked: bool = False) -> Frame:
    container, signed = frame.dtype.itemsize * 8, frame.dtype.kind == "i"
    if shift == 0 and not signed and not masked:
        return _small(frame)
    taken = np.empty_like(frame)
    for part, out in zip(_parts(frame), _parts(taken), strict=True):
        np.right_shift(part, shift, out=out)
        if signed or masked:
            np.left_shift(out, container - stored, out=out)
            np.right_shift(out, container - stored, out=out)
    return _small(taken)


def _small(frame: Frame) -> Frame:
    """In 16 bits, which the readers of grey values count on."""
    return frame if frame.dtype.itemsize <= 2 else frame.astype(f"{frame.dtype.kind}2")


def _parts(frame: Frame) -> Iterator[Frame]:
    for rows in bands(*frame.shape):
        yield frame[rows]


def _holds_overlay(ds: Dataset) -> bool:
    """Whether an overlay lies in the unused bits (retired, PS3.5 8.1.2 up to 2004)."""
    for group in range(0x6000, 0x6020, 2):
        position = ds.get((group, 0x0102))
        if position is not None and position.value and (group, 0x3000) not in ds:
            return True
    return False
