"""Decoding of DICOM pixel data, compressed or not, to arrays of stored values.

pydicom decodes uncompressed and RLE data, :mod:`.decoders` decodes code streams. The header of a
code stream is compared with the DICOM header, which is often wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import UID, RLELossless

from ..errors import UnreadableImageError
from .bit_alignment import right_aligned
from .codestream import CodeStream, Coding, read_codestream
from .decoders import CODINGS, decode_stream, why_undecoded
from .rle import rows_end_at

COMPRESSIONS = (*CODINGS, RLELossless)
"""The supported compressed transfer syntaxes."""
_NEWER = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
"""Standard transfer syntaxes that the table of pydicom lacks."""
_ALLOCATED = (1, 8, 16, 32)
_ITEM, _ITEM_HEAD = b"\xfe\xff\x00\xe0", 8

Frame = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """One decoded frame.

    Attributes:
        values: (H, W) or (H, W, 3) integers, sign-extended if signed.
        photometric: Photometric interpretation of the values; YBR is converted to RGB.
        notes: Notes on corrections, as text for a flag.
    """

    values: Frame
    photometric: str
    notes: tuple[str, ...] = ()


def agree_on_size(ds: Dataset) -> list[str]:
    """Swap Rows and Columns of a header if the code stream of the first frame has them swapped.

    Args:
        ds: A header with pixel data and a transfer syntax; changed in place.

    Returns:
        Notes on a correction, as text for a flag.

    Raises:
        Exception: Any exception of pydicom on malformed pixel data; the caller translates it.
    """
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    rows, columns = int(ds.Rows), int(ds.Columns)
    if syntax not in COMPRESSIONS or not _is_encapsulated(ds.PixelData) or rows == columns:
        return []
    stream = next(_streams(ds), b"")
    code = read_codestream(stream)
    if code is not None:
        swapped = (code.rows, code.columns) == (columns, rows)
    else:
        swapped = (
            syntax == RLELossless and not rows_end_at(stream, columns) and rows_end_at(stream, rows)
        )
    if not swapped:
        return []
    ds.Rows, ds.Columns = columns, rows
    return ["Rows and Columns were swapped, compared with the code stream"]


def stored_frames(ds: Dataset, name: str) -> Iterator[Stored]:
    """Decode frame by frame.

    Args:
        ds: A header with pixel data and a transfer syntax, after :func:`agree_on_size`.
        name: File name, for errors.

    Raises:
        UnreadableImageError: The compression has no decoder, the data is damaged or incomplete, or
            contradicts the header.
        Exception: Any exception of pydicom on malformed headers; the caller translates it.
    """
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    if syntax in COMPRESSIONS:
        yield from _compressed_frames(ds, syntax, name)
    elif syntax.is_transfer_syntax and not syntax.is_encapsulated:
        yield from _native_frames(ds, syntax, name)
    else:
        raise UnreadableImageError(
            f"{name}: transfer syntax {_name(syntax)} is not supported, expected uncompressed, "
            "RLE, JPEG, JPEG-LS or JPEG 2000"
        )


# ---------------------------------------------------------------------------------- uncompressed


def _native_frames(ds: Dataset, syntax: UID, name: str) -> Iterator[Stored]:
    _check_not_compressed(ds.PixelData, syntax, name)
    allocated, stored = int(ds.BitsAllocated), int(ds.BitsStored)
    if allocated not in _ALLOCATED or stored > allocated:
        raise UnreadableImageError(
            f"{name}: found {stored} bits stored in {allocated} allocated, expected "
            f"{', '.join(map(str, _ALLOCATED))} bits allocated and at most as many stored"
        )
    length, expected = len(ds.PixelData), get_expected_length(ds, unit="bytes")
    if length < expected:
        raise UnreadableImageError(
            f"{name}: found {length} bytes of pixel data, expected {expected}: the file is "
            "truncated"
        )
    for index in range(int(ds.get("NumberOfFrames") or 1)):
        yield _by_pydicom(ds, index, syntax, name)


def _check_not_compressed(data: bytes, syntax: UID, name: str) -> None:
    encapsulated = _is_encapsulated(data)
    start = _offsets_end(data) + _ITEM_HEAD if encapsulated else 0
    code = read_codestream(data[start:] if start else data)
    if encapsulated or code:
        coding = code.coding.value if code else "encapsulated"
        raise UnreadableImageError(
            f"{name}: found compressed pixel data ({coding}) in transfer syntax {_name(syntax)}, "
            "expected uncompressed data, or the transfer syntax of the compression"
        )


def _by_pydicom(ds: Dataset, index: int, syntax: UID, name: str) -> Stored:
    """Decode one frame, uncompressed or RLE; a function, so that the caller keeps no frame."""
    grey = int(ds.SamplesPerPixel) == 1
    # Not iter_array: its frames are read-only, and its sign correction fails on them. Unused bits
    # of grey values are corrected here, because pydicom uses BitsStored and ignores HighBit.
    options: dict[str, Any] = {"correct_unused_bits": not grey}
    plugin = "pydicom" if syntax == RLELossless else ""
    frame, facts = get_decoder(syntax).as_array(ds, index=index, decoding_plugin=plugin, **options)
    photometric = str(facts["photometric_interpretation"])
    if not grey:
        if int(ds.get("HighBit", ds.BitsStored - 1)) != int(ds.BitsStored) - 1:
            raise UnreadableImageError(
                f"{name}: found colour whose HighBit is not BitsStored - 1, expected "
                "right-aligned values"
            )
        return Stored(frame, photometric)
    values, note = right_aligned(frame, ds, name)
    return Stored(values, photometric, (note,) if note else ())


# ---------------------------------------------------------------------------------- compressed


def _compressed_frames(ds: Dataset, syntax: UID, name: str) -> Iterator[Stored]:
    if not _is_encapsulated(ds.PixelData):
        raise UnreadableImageError(
            f"{name}: found pixel data that is not encapsulated, expected the compressed data of "
            f"transfer syntax {_name(syntax)}"
        )
    for index, stream in enumerate(_streams(ds)):
        code = read_codestream(stream)
        if code is None and syntax == RLELossless:
            yield _by_pydicom(ds, index, syntax, name)
        elif code is None:
            raise UnreadableImageError(
                f"{name}: found damaged or unknown data, expected a {syntax.name} code stream"
            )
        else:
            yield _decoded(stream, code, ds, syntax, name)


def _streams(ds: Dataset) -> Iterator[bytes]:
    """The compressed frames."""
    offsets = ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths")
    return generate_frames(
        ds.PixelData,
        number_of_frames=int(ds.get("NumberOfFrames") or 1),
        extended_offsets=offsets if all(offsets) else None,
    )


def _decoded(stream: bytes, code: CodeStream, ds: Dataset, syntax: UID, name: str) -> Stored:
    """Decode one frame of a JPEG family."""
    _check_code(stream, code, ds, name)
    notes = []
    if code.coding is not CODINGS.get(syntax):
        notes.append(f"transfer syntax {syntax.name} contains {code.coding.value}")
    if code.coding is Coding.JPEG and code.bits > 12:
        # GDCM writes wrong bit depths into 12-bit streams.
        code = replace(code, bits=int(ds.BitsStored))
    frame, photometric = decode_stream(stream, code, ds, name)
    if frame.ndim == 2:
        # Decoders right-align the values, unless the stream has more bits than the header.
        fits = code.bits <= int(ds.BitsStored)
        frame, note = right_aligned(frame, ds, name, decoded=fits)
        notes += [note] if note else []
    return Stored(frame, photometric, tuple(notes))


def _check_code(stream: bytes, code: CodeStream, ds: Dataset, name: str) -> None:
    rows, columns, samples = int(ds.Rows), int(ds.Columns), int(ds.SamplesPerPixel)
    for actual, expected, unit in (
        (f"{code.columns} x {code.rows}", f"{columns} x {rows}", "px"),
        (f"{code.samples}", f"{samples}", "samples per pixel"),
    ):
        if actual != expected:
            raise UnreadableImageError(
                f"{name}: found a code stream of {actual} {unit}, expected {expected} as in the "
                "header"
            )
    # Some decoders fill the missing part of a truncated stream with grey.
    if not stream[: code.end].rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise UnreadableImageError(
            f"{name}: the {code.coding.value} frame has no end: the file is truncated, expected a "
            "complete file"
        )


def why_unreadable(syntax: UID) -> str:
    """Reason why a compression cannot be decoded here; empty if it can.

    Args:
        syntax: One of :data:`COMPRESSIONS`.
    """
    return "" if syntax == RLELossless else why_undecoded(syntax)


def _is_encapsulated(data: bytes) -> bool:
    """Whether pixel data start with an offset table and an item (PS3.5 A.4)."""
    end = _offsets_end(data)
    return data[:4] == _ITEM and data[end : end + 4] in (_ITEM, b"")


def _offsets_end(data: bytes) -> int:
    return _ITEM_HEAD + int.from_bytes(data[4:8], "little")


def _name(syntax: UID) -> str:
    name = _NEWER.get(syntax, syntax.name)
    return f"{name} ({syntax})" if name != syntax else "that is not registered"
