"""Header of a compressed frame, which may differ from the DICOM header.

ITU-T T.81 (JPEG) B.2.2, T.87 (JPEG-LS) C.2.2, T.800 (JPEG 2000) A.5.1, T.814 (HTJ2K) A.2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Coding(Enum):
    """Families of code streams; each has one decoder."""

    JPEG = "JPEG"
    LOSSLESS_JPEG = "lossless JPEG"
    JPEG_LS = "JPEG-LS"
    JPEG_2000 = "JPEG 2000"
    HTJ2K = "High-Throughput JPEG 2000"


@dataclass(frozen=True, slots=True)
class CodeStream:
    """The header of a code stream.

    Attributes:
        coding: Family of the code stream.
        rows, columns: Size of the picture in px.
        samples: Samples per pixel.
        bits: Bits per sample.
        end: Offset of the end of the code stream in the frame.
    """

    coding: Coding
    rows: int
    columns: int
    samples: int
    bits: int
    end: int


_SOF_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_SOF = tuple(number for number in range(0xC0, 0xD0) if number not in (0xC4, 0xC8, 0xCC))
_SOF_JPEG_LS = 0xF7
_SOS = 0xDA
_SOI, _SOC = b"\xff\xd8", b"\xff\x4f\xff\x51"
_JP2 = b"\0\0\0\x0cjP  "
_HTJ2K = 0x4000
_MOST_BOXES = 100


def read_codestream(frame: bytes) -> CodeStream | None:
    """Read the header of a code stream.

    Args:
        frame: One compressed frame, with or without the boxes of a JP2 file.

    Returns:
        The header; None if the frame is not JPEG, JPEG-LS or JPEG 2000, or ends too early.
    """
    try:
        if frame.startswith(_SOI):
            return _jpeg(frame)
        start, end = _inside_boxes(frame) if frame.startswith(_JP2) else (0, len(frame))
        return _jpeg_2000(frame, start, end) if frame.startswith(_SOC, start) else None
    except (struct.error, IndexError):
        return None


def _jpeg(frame: bytes) -> CodeStream | None:
    for marker, at in _segments(frame):
        if marker == _SOF_JPEG_LS or marker in _SOF:
            bits, rows, columns, samples = struct.unpack_from(">BHHB", frame, at)
            coding = (
                Coding.JPEG_LS
                if marker == _SOF_JPEG_LS
                else Coding.LOSSLESS_JPEG
                if marker in _SOF_LOSSLESS
                else Coding.JPEG
            )
            return CodeStream(coding, rows, columns, samples, bits, len(frame))
    return None


def _segments(frame: bytes) -> Iterator[tuple[int, int]]:
    """Marker and start of the content of each segment before the first scan."""
    at = len(_SOI)
    while True:
        if frame[at] != 0xFF:
            return
        while frame[at] == 0xFF:  # any number of fill bytes may precede a marker
            at += 1
        marker = frame[at]
        if marker == _SOS:
            return
        yield marker, at + 3
        at += 1 + int(struct.unpack_from(">H", frame, at + 1)[0])


def _jpeg_2000(frame: bytes, start: int, end: int) -> CodeStream:
    capabilities, x1, y1, x0, y0 = struct.unpack_from(">H4I", frame, start + 6)
    samples, depth = struct.unpack_from(">HB", frame, start + 40)
    coding = Coding.HTJ2K if capabilities & _HTJ2K else Coding.JPEG_2000
    return CodeStream(coding, y1 - y0, x1 - x0, samples, (depth & 0x7F) + 1, end)


def _inside_boxes(frame: bytes) -> tuple[int, int]:
    """Offsets of the start and the end of the code stream in a JP2 file."""
    at = 0
    for _ in range(_MOST_BOXES):
        length, name = struct.unpack_from(">I4s", frame, at)
        head = 8
        if length == 1:  # the length follows, in 64 bits
            (length,) = struct.unpack_from(">Q", frame, at + 8)
            head = 16
        end = at + length if length else len(frame)
        if name == b"jp2c":
            return at + head, end
        at = max(end, at + head)
    raise IndexError
