"""Check of the row length of an RLE frame (PS3.5 G.3.1).

RLE has no header with the size. Each row is encoded separately, so runs end where rows end.
"""

from __future__ import annotations

import struct

_CHECKED_ROWS = 64


def rows_end_at(frame: bytes, columns: int) -> bool:
    """Whether every row of the first segment ends at the end of a run.

    Args:
        frame: One RLE frame.
        columns: Row length to check.
    """
    count, start, end = struct.unpack_from("<3I", frame)
    segment = frame[start : end if count > 1 else len(frame)]
    at, done, row_end = 0, 0, columns
    while at < len(segment) and done < _CHECKED_ROWS * columns:
        code = segment[at]
        # 0 to 127: code + 1 literal bytes follow. 129 to 255: one byte, repeated 257 - code times.
        length = code + 1 if code < 128 else 257 - code if code > 128 else 0
        at += 1 + (length if code < 128 else 1 if code > 128 else 0)
        done += length
        if done > row_end:
            return False
        if done == row_end:
            row_end += columns
    return True
