"""DICOM radiographs to grey values in [0, 1], bone bright, by pydicom.

No text of this module quotes a free header value: error messages reach logs and reports, and
patient identifiers must not.
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

from ..bands import bands
from ..domain import Array, Flag, ImageRef, XrayImage
from ..errors import UnreadableImageError
from .colour import Coloured
from .depth import white
from .frames import Stored, agree_on_size, stored_frames
from .grey import display_values
from .header import SPACINGS, header_text, mend, of_frame
from .kinds import check_judged
from .limits import MAX_INFLATED_BYTES, MAX_PICTURES, MAX_PIXELS
from .room import UNLIMITED, Room
from .square import square_shape, squared
from .terms import known

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
# Larger values than this are copied out of the file only when there is room for them.
_DEFER_BYTES = 2**24
_ELEMENT_HEAD_BYTES = 8
_MENDED = "header-mended"
# ITU-R 601, as in Pillow.
_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


def read_dicom(content: bytes, ref: ImageRef, room: Room) -> Iterator[XrayImage]:
    """Decode every frame of a DICOM file.

    Args:
        content: The whole file, with or without preamble.
        ref: The file, without a frame number.
        room: Taken for each frame until the next one is asked for.

    Yields:
        Images; only ``MONOCHROME`` frames go through LUTs and windows, colour becomes luminance.
        A header that was mended, and pixels that were not square, are flagged.

    Raises:
        UnsupportedError: What :func:`.kinds.check_judged` refuses.
        UnreadableImageError: Broken, too large, or no decoder for its compression.
        Exception: pydicom raises nearly anything on hostile input; the caller translates.
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
            found = next((_shown(frame, view, ds, name) for frame in frames), None)
            if found is None:
                return
            pixels, flags = squared(found[0], aspect)
            mended = "; ".join((*notes, *found[1]))
            yield XrayImage(
                pixels=pixels,
                source=replace(ref, frame=index) if several else ref,
                bit_depth=int(ds.BitsStored),
                spacing_mm=_spacing_mm(view, stored_shape, pixels.shape),
                dicom=header,
                identity=identity,
                flags=((Flag(_MENDED, f"Header mended: {mended}"),) if mended else ()) + flags,
                colour=frames.share,
            )
            del pixels, found


def read_study_uid(content: bytes) -> str | None:
    """The StudyInstanceUID of a DICOM file, whatever else it holds; None without one.

    Raises:
        Exception: As :func:`read_dicom`.
    """
    _inflated_size(content, "file")
    ds = dcmread(
        BytesIO(content), force=True, stop_before_pixels=True, specific_tags=["StudyInstanceUID"]
    )
    return header_text(ds, "StudyInstanceUID") or None


def picture_header(content: bytes, name: str, room: Room = UNLIMITED) -> tuple[Dataset, list[str]]:
    """Read the header of a radiograph and mend it where that is sure; pixel data stay encoded.

    Args:
        content: The whole file, with or without preamble.
        name: File name, for errors.
        room: Told how large deflated content is.

    Returns:
        The header, and what was found and mended or left out, as words for a flag.

    Raises:
        UnsupportedError: What :func:`.kinds.check_judged` refuses.
        UnreadableImageError: Truncated, too large, or without what pixels need.
        Exception: Whatever pydicom raises on hostile input; the caller translates.
    """
    ds = parse(content, name, room)
    notes = mend(ds)
    if "PixelData" not in ds and _is_cut(content):
        raise _cut(name)
    check_judged(ds, name)
    _check_picture(ds, name)
    _check_pixels(ds, name)
    return ds, notes + agree_on_size(ds)


def parse(content: bytes, name: str, room: Room = UNLIMITED) -> Dataset:
    """Read the header of a DICOM file; its pixel data stays encoded.

    Args:
        content: The whole file, with or without preamble.
        name: File name, for errors.
        room: Told how large deflated content is.

    Raises:
        UnreadableImageError: Its deflated content would grow too large.
        Exception: Whatever pydicom raises on hostile input; the caller translates.
    """
    room.hold(_inflated_size(content, name))
    # The content was sniffed, so a missing preamble is a flaw and not a sign of something else.
    try:
        ds = dcmread(BytesIO(content), force=True, defer_size=_DEFER_BYTES)
    except struct.error as error:  # half a number
        raise _cut(name) from error
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
    """Refuse a deflated file that would grow beyond all bounds: pydicom inflates it whole."""
    if content[128:132] != b"DICM" or content[132:138] != b"\x02\0\0\0UL":
        return len(content)
    start = 144 + int.from_bytes(content[140:144], "little")
    if DeflatedExplicitVRLittleEndian.encode() not in content[144:start]:
        return len(content)
    size = 0
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    # A megabyte at a time, so that the check itself stays small.
    for offset in range(start, len(content), 2**16):
        piece = content[offset : offset + 2**16]
        while piece:
            size += len(inflate.decompress(piece, 2**20))
            piece = inflate.unconsumed_tail
            if size > MAX_INFLATED_BYTES:
                raise UnreadableImageError(
                    f"{name}: found a deflated file that grows beyond {MAX_INFLATED_BYTES} bytes, "
                    "wanted a smaller one"
                )
    if not inflate.eof:
        raise UnreadableImageError(
            f"{name}: found deflated content without an end: the file is truncated, wanted a whole "
            "one"
        )
    return size


def _is_cut(content: bytes) -> bool:
    """Whether the last data element is shorter than it says, or the file ends within its head."""
    file = BytesIO(content)
    start = read_partial(file, stop_when=lambda *_: True, force=True)
    if start.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return False  # inflated whole, or refused
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
    rest = content[at:]  # too short for an element, or empty: what writers append
    return len(rest) >= _ELEMENT_HEAD_BYTES and any(rest)


def _cut(name: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"{name}: found a file that ends in the middle of a data element: it is truncated, wanted "
        "a whole one"
    )


def _check_picture(ds: Dataset, name: str) -> None:
    if "PixelData" not in ds:
        raise UnreadableImageError(
            f"{name}: found the header of a picture without its pixel data, wanted a whole file"
        )


def _check_pixels(ds: Dataset, name: str) -> None:
    if missing := [keyword for keyword in _NEEDED if ds.get(keyword) in (None, "")]:
        raise UnreadableImageError(
            f"{name}: found pixel data without {', '.join(missing)}, wanted a whole header"
        )
    rows, columns, bits = int(ds.Rows), int(ds.Columns), int(ds.BitsStored)
    if not 0 < rows * columns <= MAX_PIXELS:
        raise UnreadableImageError(
            f"{name}: found {columns} x {rows} px, wanted 1 to {MAX_PIXELS} px in all"
        )
    if not 1 <= bits <= 16:
        raise UnreadableImageError(f"{name}: found {bits} bits a pixel, wanted 1 to 16")
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames > MAX_PICTURES:
        raise UnreadableImageError(f"{name}: found {frames} frames, wanted at most {MAX_PICTURES}")


def _shown(stored: Stored, view: Dataset, ds: Dataset, name: str) -> tuple[Array, tuple[str, ...]]:
    """One decoded frame to (H, W) float32 in [0, 1], and what was mended."""
    frame, photometric = stored.values, stored.photometric
    if frame.ndim == 2 and photometric in ("MONOCHROME1", "MONOCHROME2"):
        return display_values(frame, view, big_endian=is_big_endian(ds)), stored.notes
    if frame.ndim == 2 and photometric == "PALETTE COLOR":
        return _luminance(apply_color_lut(frame, _palette(ds))[..., :3]), stored.notes
    if frame.ndim == 3 and photometric == "RGB":
        return _luminance(frame, int(ds.BitsStored)), stored.notes
    found = known("PhotometricInterpretation", photometric) or "an illegal value"
    raise UnreadableImageError(
        f"{name}: found photometric interpretation {found} with {frame.ndim} axes, "
        "wanted MONOCHROME1, MONOCHROME2, RGB, YBR or PALETTE COLOR"
    )


def is_big_endian(ds: Dataset) -> bool:
    """Whether look-up tables in a file have their high bytes first."""
    return bool(ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian)


def _palette(ds: Dataset) -> Dataset:
    """The palette with its first input signed as the pixels are (C.7.6.3.1.5), low bytes first."""
    palette = Dataset()
    palette.file_meta = ds.file_meta  # tells pydicom the byte order of segmented tables
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
    """The header values that are passed on; none identifies a patient."""
    values = {keyword: known(keyword, ds.get(keyword)) for keyword in _HEADER}
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    values["TransferSyntaxUID"] = str(syntax) if syntax.name != syntax else None
    return {keyword: value for keyword, value in values.items() if value}


def pixel_aspect(view: Dataset) -> float | None:
    """Height of a pixel divided by its width; None where the header does not say.

    Args:
        view: Of a frame, mended (:func:`.header.of_frame`).
    """
    for keyword in (*SPACINGS, "PixelAspectRatio"):
        if pair := view.get(keyword):
            return float(pair[0]) / float(pair[1])
    return None


def _spacing_mm(
    view: Dataset, stored: tuple[int, int], shape: tuple[int, ...]
) -> tuple[float, float] | None:
    """(row, column) at the detector, else as calibrated, after the pixels were made square."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        if pair := view.get(keyword):
            row, column = float(pair[0]), float(pair[1])
            return row * (stored[0] / shape[0]), column * (stored[1] / shape[1])
    return None
