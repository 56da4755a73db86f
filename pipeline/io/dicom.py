"""DICOM radiographs to grey values in [0, 1], bone bright, by pydicom.

No text of this module quotes a free header value: error messages reach logs and reports, and
patient identifiers must not.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ..bands import bands
from ..domain import Array, ImageRef, XrayImage
from ..errors import UnreadableImageError
from .colour import Coloured
from .frames import stored_frames
from .grey import display_values
from .kinds import check_judged
from .limits import MAX_INFLATED_BYTES, MAX_PICTURES, MAX_PIXELS
from .room import UNLIMITED, Room
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
        Windows in functional groups of enhanced objects are not looked at.

    Raises:
        UnsupportedError: What :func:`.kinds.check_judged` refuses.
        UnreadableImageError: Broken, too large, or no decoder for its compression.
        Exception: pydicom raises nearly anything on hostile input; the caller translates.
    """
    name = ref.path.name
    ds = parse(content, name, room)
    check_judged(ds, name)
    _check_picture(ds, name)
    _check_pixels(ds, name)
    header = _header(ds)
    identity = {keyword: str(ds.get(keyword) or "").strip() for keyword in _IDENTITY}
    spacing_mm = _spacing_mm(ds)
    several = int(ds.get("NumberOfFrames") or 1) > 1
    size = int(ds.Rows) * int(ds.Columns) * int(ds.SamplesPerPixel)
    frames = Coloured(stored_frames(ds, name))
    for index in itertools.count():
        with room.for_picture(size):
            pixels = next((_pixels(*frame, ds, name) for frame in frames), None)
            if pixels is None:
                return
            yield XrayImage(
                pixels=pixels,
                source=replace(ref, frame=index) if several else ref,
                bit_depth=int(ds.BitsStored),
                spacing_mm=spacing_mm,
                dicom=header,
                identity=identity,
                colour=frames.share,
            )
            del pixels


def read_study_uid(content: bytes) -> str | None:
    """The StudyInstanceUID of a DICOM file, whatever else it holds; None without one.

    Raises:
        Exception: As :func:`read_dicom`.
    """
    _inflated_size(content, "file")
    ds = dcmread(
        BytesIO(content), force=True, stop_before_pixels=True, specific_tags=["StudyInstanceUID"]
    )
    return str(ds.get("StudyInstanceUID") or "").strip() or None


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
    ds = dcmread(BytesIO(content), force=True, defer_size=_DEFER_BYTES)
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
    return size


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


def _pixels(frame: NDArray[Any], photometric: str, ds: Dataset, name: str) -> Array:
    """One decoded frame to (H, W) float32 in [0, 1]."""
    if frame.ndim == 2 and photometric in ("MONOCHROME1", "MONOCHROME2"):
        big_endian = ds.file_meta.TransferSyntaxUID == ExplicitVRBigEndian
        return display_values(frame, ds, big_endian=big_endian)
    if frame.ndim == 2 and photometric == "PALETTE COLOR":
        colours = apply_color_lut(frame, ds)[..., :3]
        return _luminance(colours, np.iinfo(colours.dtype).max)
    if frame.ndim == 3 and photometric == "RGB":
        return _luminance(frame, 2 ** int(ds.BitsStored) - 1)
    found = known("PhotometricInterpretation", photometric) or "an illegal value"
    raise UnreadableImageError(
        f"{name}: found photometric interpretation {found} with {frame.ndim} axes, "
        "wanted MONOCHROME1, MONOCHROME2, RGB, YBR or PALETTE COLOR"
    )


def _luminance(colours: NDArray[Any], white: int) -> Array:
    grey = np.empty(colours.shape[:2], np.float32)
    for rows in bands(*colours.shape[:2]):
        np.clip(colours[rows] @ (_LUMINANCE / np.float32(white)), 0.0, 1.0, out=grey[rows])
    return grey


def _header(ds: Dataset) -> dict[str, str]:
    """The header values that are passed on; none identifies a patient."""
    values = {keyword: known(keyword, ds.get(keyword)) for keyword in _HEADER}
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    values["TransferSyntaxUID"] = str(syntax) if syntax.name != syntax else None
    return {keyword: value for keyword, value in values.items() if value}


def _spacing_mm(ds: Dataset) -> tuple[float, float] | None:
    """(row, column) at the detector, else as calibrated; None when there is no legal value."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        values = ds.get(keyword)
        if values and len(values) == 2 and all(0.0 < float(value) < 100.0 for value in values):
            return float(values[0]), float(values[1])
    return None
