"""How long a row of an RLE frame is, which only its runs tell (PS3.5 G.3.1).

RLE has no header with a size. But each row is encoded by itself, so that runs end where rows do.
"""

from __future__ import annotations

import struct

_LOOKED_AT_ROWS = 64


def rows_end_at(frame: bytes, columns: int) -> bool:
    """Whether every row of the first segment ends where a run does.

    Args:
        frame: One RLE frame.
        columns: How long its rows are said to be.
    """
    count, start, end = struct.unpack_from("<3I", frame)
    segment = frame[start : end if count > 1 else len(frame)]
    at, done, row_end = 0, 0, columns
    while at < len(segment) and done < _LOOKED_AT_ROWS * columns:
        code = segment[at]
        # Up to 127 so many bytes and one more follow, from 129 on one that is repeated.
        length = code + 1 if code < 128 else 257 - code if code > 128 else 0
        at += 1 + (length if code < 128 else 1 if code > 128 else 0)
        done += length
        if done > row_end:
            return False
        if done == row_end:
            row_end += columns
    return True
