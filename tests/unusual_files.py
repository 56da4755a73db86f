"""Builders of unusual but readable files: wrong headers, rare layouts, old formats.

Each follows a public report from a radiology, PACS or imaging project.
"""

from __future__ import annotations

import copy
import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import factories
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate
from pydicom.filereader import read_partial
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import UID

Pixels = NDArray[Any]
ByteOrder = Literal["<", ">"]


# ---------------------------------------------------------------------------------- DICOM


def with_value(ds: FileDataset, keyword: str, vr: str, value: bytes) -> bytes:
    """The file in memory, explicit VR little endian, with a value that pydicom would not write.

    Args:
        ds: Uncompressed data set; an element with this keyword is replaced.
        keyword: Keyword of an element at the top level.
        vr: A VR with a length field of 16 bits.
        value: The bytes to write, of even or odd length.
    """
    if keyword in ds:
        del ds[keyword]
    content = factories.dicom_file(ds)
    tag = Tag(tag_for_keyword(keyword) or 0)
    file = BytesIO(content)
    at = read_partial(file, stop_when=lambda next_tag, vr, length: next_tag > tag) and file.tell()
    head = struct.pack("<HH2sH", tag.group, tag.element, vr.encode(), len(value))
    return content[:at] + head + value + content[at:]


def with_stream(ds: FileDataset, syntax: UID, *frames: bytes) -> FileDataset:
    """The data set with compressed frames instead of its pixels."""
    ds.PixelData = encapsulate(list(frames))
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = syntax
    return ds


def changed(content: bytes, **attributes: Any) -> bytes:
    """A file with other header values and unchanged pixel data."""
    ds = dcmread(BytesIO(content))
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return factories.dicom_file(ds)


def bare(content: bytes) -> bytes:
    """A file without preamble and meta information."""
    start = 144 + int.from_bytes(content[140:144], "little")
    return content[start:]


def groups(**macros: Dataset) -> Items:
    """A functional groups sequence of one item, with one item for each macro."""
    item = Dataset()
    for keyword, macro in macros.items():
        setattr(item, keyword, Items([macro]))
    return Items([item])


def item(**attributes: Any) -> Dataset:
    """An item of a sequence."""
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def compressed_like(ds: FileDataset, syntax: UID, folder: Path, **attributes: Any) -> bytes:
    """A compressed file with header values that were changed after compression."""
    return changed(factories.compressed(copy.deepcopy(ds), syntax, folder), **attributes)


# ---------------------------------------------------------------------------------- rasters


def tiff(
    values: Pixels,
    *,
    planes: bool = False,
    tile_px: int | None = None,
    deflated: bool = False,
    byte_order: ByteOrder = "<",
    extra: int | None = None,
    photometric: int | None = None,
    density: tuple[int, int] | None = None,
    orientation: int = 1,
) -> bytes:
    """A TIFF with one or more samples per pixel, for layouts that Pillow does not write.

    Args:
        values: (H, W) or (H, W, samples), uint8, uint16 or int16.
        planes: Whether each sample has separate strips or tiles.
        tile_px: Side of a tile in px, a multiple of 16; strips of ten rows when None.
        deflated: Whether strips and tiles are compressed.
        byte_order: ``<`` or ``>``.
        extra: Meaning of the last sample: 1 for premultiplied opacity, 2 for other opacity.
        photometric: The tag of that name; by default RGB for three or more samples, else black is
            zero.
        density: Resolution in px per unit, horizontal and vertical.
        orientation: As in EXIF.
    """
    if values.ndim == 2:
        values = values[..., None]
    height, width, samples = values.shape
    wide, high = (tile_px, tile_px) if tile_px else (width, 10)
    layers = [values[..., k : k + 1] for k in range(samples)] if planes else [values]
    parts = [
        _tile(layer[y : y + high, x : x + wide], (high, wide) if tile_px else None, byte_order)
        for layer in layers
        for y in range(0, height, high)
        for x in range(0, width, wide)
    ]
    parts = [zlib.compress(part) for part in parts] if deflated else parts
    short, long = "H", "I"
    fields: dict[int, tuple[str, Sequence[int]]] = {
        256: (long, [width]),
        257: (long, [height]),
        258: (short, [values.dtype.itemsize * 8] * samples),
        259: (short, [8 if deflated else 1]),
        262: (short, [(2 if samples > 2 else 1) if photometric is None else photometric]),
        274: (short, [orientation]),
        277: (short, [samples]),
        284: (short, [2 if planes else 1]),
        339: (short, [2 if values.dtype.kind == "i" else 1] * samples),
    }
    if tile_px:
        fields |= {322: (long, [wide]), 323: (long, [high])}
    else:
        fields[278] = (long, [high])
    if extra is not None:
        fields[338] = (short, [extra])
    if density is not None:
        fields |= {282: ("II", [density[0], 1]), 283: ("II", [density[1], 1]), 296: (short, [2])}
    places, lengths = (324, 325) if tile_px else (273, 279)
    starts = np.cumsum([8, *(len(part) + len(part) % 2 for part in parts)])
    fields[places] = (long, starts[:-1].tolist())
    fields[lengths] = (long, [len(part) for part in parts])
    data = b"".join(part + b"\0" * (len(part) % 2) for part in parts)
    head = (b"II" if byte_order == "<" else b"MM") + struct.pack(
        f"{byte_order}HI", 42, int(starts[-1])
    )
    return head + data + _directory(fields, int(starts[-1]), byte_order)


def _tile(part: Pixels, shape: tuple[int, int] | None, byte_order: ByteOrder) -> bytes:
    if shape is not None:
        missing = [(0, side - have) for side, have in zip(shape, part.shape, strict=False)]
        part = np.pad(part, [*missing, (0, 0)])
    return part.astype(part.dtype.newbyteorder(byte_order)).tobytes()


def _directory(fields: dict[int, tuple[str, Sequence[int]]], start: int, order: str) -> bytes:
    entries, beyond = b"", b""
    end = start + 2 + 12 * len(fields) + 4
    for tag, (code, values) in sorted(fields.items()):
        kind, count = {"H": 3, "I": 4, "II": 5}[code], len(values) // len(code)
        data = struct.pack(f"{order}{len(values)}{code[0]}", *values)
        if len(data) > 4:
            place = struct.pack(f"{order}I", end + len(beyond))
            beyond += data + b"\0" * (len(data) % 2)
            data = place
        entries += struct.pack(f"{order}HHI", tag, kind, count) + data.ljust(4, b"\0")
    return struct.pack(f"{order}H", len(fields)) + entries + bytes(4) + beyond


def png16(values: Pixels, *, interlaced: bool = False) -> bytes:
    """A PNG of 16 bits per sample, which Pillow does not write.

    Args:
        values: (H, W, 2) grey and opacity, (H, W, 3) RGB or (H, W, 4) RGBA.
        interlaced: Whether rows are stored in the seven passes of Adam7.
    """
    height, width, samples = values.shape
    colour = {2: 4, 3: 2, 4: 6}[samples]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, int(interlaced))
    passes = [(slice(y, None, b), slice(x, None, a)) for x, y, a, b in _ADAM7]
    parts = passes if interlaced else [(slice(None), slice(None))]
    body = b"".join(
        b"\0" + row.astype(">u2").tobytes()
        for rows, columns in parts
        if values[rows, columns].size
        for row in values[rows, columns]
    )
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


# For each pass: first column, first row, column step, row step.
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def bmp32(grey: Pixels, opacity: Pixels, header_bytes: Literal[56, 108, 124] = 124) -> bytes:
    """A BMP of 32 bits with a mask for opacity (versions 3 to 5).

    Args:
        grey: (H, W) uint8.
        opacity: (H, W) uint8.
        header_bytes: Size of the header in bytes.
    """
    height, width = grey.shape
    pixels = np.dstack([grey, grey, grey, opacity])[::-1].tobytes()
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    sizes = struct.pack(
        "<IiiHHIIiiII", header_bytes, width, height, 1, 32, 3, len(pixels), *[0] * 4
    )
    header = (sizes + masks).ljust(header_bytes, b"\0")
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + pixels
