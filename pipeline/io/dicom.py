"""Conversion of DICOM radiographs to grey values in [0, 1], bone bright, with pydicom.

Error messages reach logs and reports, so no text of this module quotes free header values, which
may contain patient identifiers.
"""

from __future__ import annotations

import itertools
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator, read_partial
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ..domain import Array, Flag, ImageRef, XrayImage
from ..errors import UnreadableImageError
from ..row_bands import bands
from .bit_depth import white
from .colour import Coloured
from .dicom_terms import known
from .frames import Stored, agree_on_size, stored_frames
from .grey import display_values
from .header import SPACINGS, correct, header_text, of_frame
from .limits import MAX_INFLATED_BYTES, MAX_PICTURES, MAX_PIXELS
from .memory_budget import UNLIMITED, MemoryBudget
from .object_types import check_judged
from .square_pixels import square_shape, squared

_HEADER = (
    "Modality",
    "BodyPartExamined",
    "ViewPosition",
    "ImageLaterality",
    "Laterality",
    "PhotometricInterpretation",
)
_IDENTITY = (
    "PatientID",
    "PatientName",
    "AccessionNumber",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
)
_NEEDED = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "SamplesPerPixel",
    "PixelRepresentation",
    "PhotometricInterpretation",
)
# Larger values are read from the file only when they are used.
_DEFER_BYTES = 2**24
_ELEMENT_HEAD_BYTES = 8
_CORRECTED = "header-mended"
# ITU-R 601, as in Pillow.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def read_dicom(content: bytes, ref: ImageRef, room: MemoryBudget) -> Iterator[XrayImage]:
    """Decode every frame of a DICOM file.

    Args:
        content: The whole file, with or without preamble.
        ref: The file, without a frame number.
        room: Memory budget, reserved for each frame until the next one is requested.

    Yields:
        Images. LUTs and windows apply to ``MONOCHROME`` frames only; colour becomes luminance.
        Corrected headers and non-square pixels are flagged.

    Raises:
        UnsupportedError: See :func:`.object_types.check_judged`.
        UnreadableImageError: The file is damaged, too large, or has no decoder here.
        Exception: pydicom raises nearly any exception on hostile input; the caller translates it.
    """
    name = ref.name
    ds, notes = picture_header(content, name, room)
    header = _header(ds)
    identity = {keyword: header_text(ds, keyword) for keyword in _IDENTITY}
    several = int(ds.get("NumberOfFrames") or 1) > 1
    frames = Coloured(stored_frames(ds, name))
    for index in itertools.count():
        view = of_frame(ds, index)
        aspect = pixel_aspect(view)
        stored_shape = int(ds.Rows), int(ds.Columns)
        size = max(math.prod(stored_shape), math.prod(square_shape(stored_shape, aspect)))
        with room.for_picture(size * int(ds.SamplesPerPixel)):
            displayed = next((_display(frame, view, ds, name) for frame in frames), None)
            if displayed is None:
                return
            pixels, flags = squared(displayed[0], aspect)
            corrections = "; ".join((*notes, *displayed[1]))
            yield XrayImage(
                pixels=pixels,
                source=replace(ref, frame=index) if several else ref,
                bit_depth=int(ds.BitsStored),
                spacing_mm=_spacing_mm(view, stored_shape, pixels.shape),
                dicom=header,
                identity=identity,
                flags=(
                    (Flag(_CORRECTED, f"Header corrected: {corrections}"),) if corrections else ()
                )
                + flags,
                colour=frames.share,
            )
            del pixels, displayed


def read_study_uid(content: bytes) -> str | None:
    """The StudyInstanceUID of a DICOM file of any kind; None without one.

    Raises:
        Exception: See :func:`read_dicom`.
    """
    _inflated_size(content, "file")
    ds = dcmread(
        BytesIO(content), force=True, stop_before_pixels=True, specific_tags=["StudyInstanceUID"]
    )
    return header_text(ds, "StudyInstanceUID") or None


def picture_header(
    content: bytes, name: str, room: MemoryBudget = UNLIMITED
) -> tuple[Dataset, list[str]]:
    """Read the header of a radiograph and correct unambiguous errors; pixel data stay encoded.

    Args:
        content: The whole file, with or without preamble.
        name: File name, for errors.
        room: Memory budget for deflated content.

    Returns:
        The header, and notes on corrected or dropped values, as text for a flag.

    Raises:
        UnsupportedError: See :func:`.object_types.check_judged`.
        UnreadableImageError: The file is truncated, too large, or lacks elements for its pixels.
        Exception: Any exception of pydicom on hostile input; the caller translates it.
    """
    ds = parse(content, name, room)
    notes = correct(ds)
    if "PixelData" not in ds and _is_truncated(content):
        raise _truncated(name)
    check_judged(ds, name)
    _check_picture(ds, name)
    _check_pixels(ds, name)
    return ds, notes + agree_on_size(ds)


def parse(content: bytes, name: str, room: MemoryBudget = UNLIMITED) -> Dataset:
    """Read the header of a DICOM file; its pixel data stays encoded.

    Args:
        content: The whole file, with or without preamble.
        name: File name, for errors.
        room: Memory budget for deflated content.

    Raises:
        UnreadableImageError: The inflated content would be too large.
        Exception: Any exception of pydicom on hostile input; the caller translates it.
    """
    room.hold(_inflated_size(content, name))
    # The content is known to be DICOM, so a missing preamble is accepted.
    try:
        ds = dcmread(BytesIO(content), force=True, defer_size=_DEFER_BYTES)
    except struct.error as error:  # half a number
        raise _truncated(name) from error
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        ds.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian
            if implicit
            else ExplicitVRLittleEndian
            if little
            else ExplicitVRBigEndian
        )
    return ds


def _inflated_size(content: bytes, name: str) -> int:
    """Size of the content after inflation; a file that grows too large is refused."""
    if content[128:132] != b"DICM" or content[132:138] != b"\x02\0\0\0UL":
        return len(content)
    start = 144 + int.from_bytes(content[140:144], "little")
    if DeflatedExplicitVRLittleEndian.encode() not in content[144:start]:
        return len(content)
    size = 0
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    # In steps of a megabyte, to limit the memory of the check itself. pydicom inflates all at once.
    for offset in range(start, len(content), 2**16):
        piece = content[offset : offset + 2**16]
        while piece:
            size += len(inflate.decompress(piece, 2**20))
            piece = inflate.unconsumed_tail
            if size > MAX_INFLATED_BYTES:
                raise UnreadableImageError(
                    f"{name}: the deflated file grows beyond {MAX_INFLATED_BYTES} bytes, expected "
                    "a smaller file"
                )
    if not inflate.eof:
        raise UnreadableImageError(
            f"{name}: the deflated content has no end: the file is truncated, expected a complete "
            "file"
        )
    return size


def _is_truncated(content: bytes) -> bool:
    """Whether the last data element is shorter than its length, or its head is incomplete."""
    file = BytesIO(content)
    start = read_partial(file, stop_when=lambda *_: True, force=True)
    if start.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return False  # _inflated_size has checked it
    implicit, little = start.original_encoding
    at = file.tell()
    if at == len(content):  # nothing follows the meta information
        return True
    try:
        for element in data_element_generator(file, bool(implicit), bool(little)):
            at = file.tell()
            length = getattr(element, "length", 0)  # a parsed sequence has none
            if length != 0xFFFFFFFF and len(element.value or b"") < length:
                return True
    except (EOFError, struct.error):
        return True
    rest = content[at:]  # writers may append zeros, or less than an element
    return len(rest) >= _ELEMENT_HEAD_BYTES and any(rest)


def _truncated(name: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"{name}: the file ends in the middle of a data element: it is truncated, expected a "
        "complete file"
    )


def _check_picture(ds: Dataset, name: str) -> None:
    if "PixelData" not in ds:
        raise UnreadableImageError(
            f"{name}: found the header of a picture without its pixel data, expected a complete "
            "file"
        )


def _check_pixels(ds: Dataset, name: str) -> None:
    if missing := [keyword for keyword in _NEEDED if ds.get(keyword) in (None, "")]:
        raise UnreadableImageError(
            f"{name}: found pixel data without {', '.join(missing)}, expected a complete header"
        )
    rows, columns, bits = int(ds.Rows), int(ds.Columns), int(ds.BitsStored)
    if not 0 < rows * columns <= MAX_PIXELS:
        raise UnreadableImageError(
            f"{name}: found {columns} x {rows} px, expected 1 to {MAX_PIXELS} px in total"
        )
    if not 1 <= bits <= 16:
        raise UnreadableImageError(f"{name}: found {bits} bits per pixel, expected 1 to 16")
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames > MAX_PICTURES:
        raise UnreadableImageError(
            f"{name}: found {frames} frames, expected at most {MAX_PICTURES}"
        )


def _display(
    stored: Stored, view: Dataset, ds: Dataset, name: str
) -> tuple[Array, tuple[str, ...]]:
    """Convert a decoded frame to (H, W) float32 in [0, 1]; also returns its notes."""
    frame, photometric = stored.values, stored.photometric
    if frame.ndim == 2 and photometric in ("MONOCHROME1", "MONOCHROME2"):
        return display_values(frame, view, big_endian=is_big_endian(ds)), stored.notes
    if frame.ndim == 2 and photometric == "PALETTE COLOR":
        return _luminance(apply_color_lut(frame, _palette(ds))[..., :3]), stored.notes
    if frame.ndim == 3 and photometric == "RGB":
        return _luminance(frame, int(ds.BitsStored)), stored.notes
    term = known("PhotometricInterpretation", photometric) or "an illegal value"
    raise UnreadableImageError(
        f"{name}: found photometric interpretation {term} with {frame.ndim} axes, "
        "expected MONOCHROME1, MONOCHROME2, RGB, YBR or PALETTE COLOR"
    )


def is_big_endian(ds: Dataset) -> bool:
    """Whether look-up tables in a file are big endian."""
    return bool(ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian)


def _palette(ds: Dataset) -> Dataset:
    """The palette in little endian, with the first input signed like the pixels (C.7.6.3.1.5)."""
    palette = Dataset()
    palette.file_meta = ds.file_meta  # gives pydicom the byte order of segmented tables
    for colour in ("Red", "Green", "Blue"):
        keyword = f"{colour}PaletteColorLookupTableDescriptor"
        entries, first, bits = (int(word) & 0xFFFF for word in ds[keyword].value)
        signed = int(ds.PixelRepresentation) and first >= 2**15
        palette.add_new(keyword, "SS", [entries, first - 2**16 if signed else first, bits])
        keyword = f"{colour}PaletteColorLookupTableData"
        if keyword in ds:
            words = np.frombuffer(ds[keyword].value, ">u2" if is_big_endian(ds) else "<u2")
            palette.add_new(keyword, "OW", words.astype("<u2").tobytes())
        elif f"Segmented{keyword}" in ds:
            palette.add(ds[f"Segmented{keyword}"])
    return palette


def _luminance(colours: NDArray[Any], most_bits: int = 16) -> Array:
    weights = _LUMINANCE / np.float32(white(colours.max(), most_bits))
    grey = np.empty(colours.shape[:2], np.float32)
    for rows in bands(*colours.shape[:2]):
        np.clip(colours[rows] @ weights, 0.0, 1.0, out=grey[rows])
    return grey


def _header(ds: Dataset) -> dict[str, str]:
    """Header values for the results; none identifies a patient."""
    values = {keyword: known(keyword, ds.get(keyword)) for keyword in _HEADER}
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    values["TransferSyntaxUID"] = str(syntax) if syntax.name != syntax else None
    return {keyword: value for keyword, value in values.items() if value}


def pixel_aspect(view: Dataset) -> float | None:
    """Height of a pixel divided by its width; None if the header does not give it.

    Args:
        view: Corrected header of a frame (:func:`.header.of_frame`).
    """
    for keyword in (*SPACINGS, "PixelAspectRatio"):
        if pair := view.get(keyword):
            return float(pair[0]) / float(pair[1])
    return None


def _spacing_mm(
    view: Dataset, stored: tuple[int, int], shape: tuple[int, ...]
) -> tuple[float, float] | None:
    """(row, column) at the detector, else calibrated, after resampling to square pixels."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        if pair := view.get(keyword):
            row, column = float(pair[0]), float(pair[1])
            return row * (stored[0] / shape[0]), column * (stored[1] / shape[1])
    return None
