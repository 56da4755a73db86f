"""Processing of large pictures in bands of rows, to limit memory."""

from __future__ import annotations

from collections.abc import Iterator

_BAND_PIXELS = 2**18
"""One megabyte of float32, which fits into the cache of a processor."""


def bands(height_px: int, width_px: int) -> Iterator[slice]:
    """Slices of rows that cover a picture from top to bottom."""
    rows = max(1, _BAND_PIXELS // max(1, width_px))
    for top in range(0, height_px, rows):
        yield slice(top, min(top + rows, height_px))
