"""Builders of small raster and DICOM files of every kind, with invented patient identifiers."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    JPEG2000,
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

PATIENT_NAME = "Invented^Person"
PATIENT_ID = "NOBODY-0001"
BIRTH_DATE = "19010203"
IDENTIFIERS = ("Invented", "Person", PATIENT_ID, BIRTH_DATE)
"""No message, log line or report may contain any of them."""

Pixels = NDArray[Any]


# ---------------------------------------------------------------------------------- pixels


def ramp(height_px: int, width_px: int, low: int, high: int, dtype: Any = np.uint16) -> Pixels:
    """(H, W) integers that rise from ``low`` to ``high`` in reading order."""
    values = np.linspace(low, high, height_px * width_px)
    return np.rint(values).astype(dtype).reshape(height_px, width_px)


def bone(height_px: int = 48, width_px: int = 40) -> NDArray[np.float32]:
    """(H, W) float32 in [0, 1]: a bright bar on a dark ground, neither symmetric nor periodic."""
    y, x = np.mgrid[0:height_px, 0:width_px]
    shaft = np.exp(-(((x - 0.4 * width_px) / (0.15 * width_px)) ** 2))
    return np.asarray(0.8 * shaft * (0.3 + 0.7 * y / height_px) + 0.05, np.float32)


# ---------------------------------------------------------------------------------- rasters


def raster(image: Image.Image | Pixels, file_format: str, **options: Any) -> bytes:
    """A file in memory, written by Pillow; formats have the names that Pillow uses."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    file = BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def tiff(
    values: Pixels,
    *,
    photometric: int = 1,
    bits: int | None = None,
    byte_order: Literal["<", ">"] = "<",
    orientation: int = 1,
) -> bytes:
    """An uncompressed grey TIFF, for encodings that Pillow does not write.

    Args:
        values: (H, W) of any numeric dtype, whose kind defines the sample format.
        photometric: 0 for white is zero, 1 for black is zero.
        bits: Bits per sample; those of the dtype when None.
        byte_order: ``<`` or ``>``.
        orientation: As in EXIF.
    """
    data = values.astype(values.dtype.newbyteorder(byte_order)).tobytes()
    height, width = values.shape
    sample_format = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    short, long = 3, 4
    fields = [
        (256, long, width),
        (257, long, height),
        (258, short, bits or values.dtype.itemsize * 8),
        (259, short, 1),
        (262, short, photometric),
        (273, long, 0),
        (274, short, orientation),
        (277, short, 1),
        (278, long, height),
        (279, long, len(data)),
        (339, short, sample_format),
    ]
    data_start = 8 + 2 + 12 * len(fields) + 4
    magic = b"II*\0" if byte_order == "<" else b"MM\0*"
    parts = [magic, struct.pack(byte_order + "IH", 8, len(fields))]
    for tag, kind, value in fields:
        value = data_start if tag == 273 else value
        body = (byte_order + "HHIHH", value, 0) if kind == short else (byte_order + "HHII", value)
        parts.append(struct.pack(body[0], tag, kind, 1, *body[1:]))
    return b"".join([*parts, struct.pack(byte_order + "I", 0), data])


# ---------------------------------------------------------------------------------- DICOM


def dicom(pixels: Pixels | None, *, bits: int | None = None, **attributes: Any) -> FileDataset:
    """An uncompressed DICOM radiograph, explicit VR little endian.

    Args:
        pixels: Integers of shape (H, W), (N, H, W) for N frames (sets ``NumberOfFrames``), or
            (H, W, 3). None for an object without a picture.
        bits: Bits stored; those of the dtype when None.
        attributes: Header values by keyword, which replace the defaults; None removes an element.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = UID("2.25.1001")
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID = meta.MediaStorageSOPClassUID
    ds.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID = UID("2.25.1002"), UID("2.25.1003")
    ds.Modality = "DX"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = PATIENT_NAME, PATIENT_ID, BIRTH_DATE
    if pixels is not None:
        _set_pixels(ds, pixels, bits)
    for keyword, value in attributes.items():
        if value is not None:
            setattr(ds, keyword, value)
        elif keyword in ds:
            delattr(ds, keyword)
    return ds


def _set_pixels(ds: Dataset, pixels: Pixels, bits: int | None) -> None:
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        ds.NumberOfFrames = pixels.shape[0]
    ds.Rows, ds.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    ds.BitsAllocated = pixels.dtype.itemsize * 8
    ds.BitsStored = bits or ds.BitsAllocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"


def lut(table: Sequence[int], first: int, bits: int, data: bytes | None = None) -> DicomSequence:
    """A modality or VOI LUT sequence of one item.

    Args:
        table: The entries.
        first: Input value of the first entry.
        bits: Bits per entry.
        data: The entries as bytes (VR OW) instead of numbers (VR US).
    """
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(table) % 2**16, first, bits])
    item.add_new("LUTData", "US" if data is None else "OW", list(table) if data is None else data)
    item.ModalityLUTType = "US"
    return DicomSequence([item])


def dicom_file(ds: FileDataset, syntax: UID | None = None) -> bytes:
    """The file in memory, in an uncompressed or deflated transfer syntax; unchanged when None."""
    file = BytesIO()
    if syntax is None or syntax == ds.file_meta.TransferSyntaxUID:
        ds.save_as(file, enforce_file_format=True)
        return file.getvalue()
    if syntax == ExplicitVRBigEndian and ds.BitsAllocated == 16:
        ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
    ds.file_meta.TransferSyntaxUID = syntax
    implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
    dcmwrite(file, ds, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return file.getvalue()


def compressed(ds: FileDataset, syntax: UID, folder: Path) -> bytes:
    """The file in memory with its pixels compressed.

    Needs encoders that fxpipe itself does not need: pyjpegls for JPEG-LS, pylibjpeg-openjpeg for
    JPEG 2000, and GDCM for the older JPEG processes.

    Args:
        ds: Uncompressed data set, little endian; 8 bit for JPEG baseline.
        syntax: The transfer syntax of the result.
        folder: Folder for temporary files of GDCM.
    """
    return _COMPRESSORS[syntax](ds, syntax, folder)


def _by_pydicom(ds: FileDataset, syntax: UID, folder: Path) -> bytes:
    options: dict[str, Any] = {}
    if syntax == JPEGLSNearLossless:
        options["jls_error"] = 1
    if syntax == JPEG2000:
        options["j2k_psnr"] = [80]
    if syntax == RLELossless:
        options["encoding_plugin"] = "pydicom"  # the one of GDCM aborts the process on odd sizes
    ds.compress(syntax, generate_instance_uid=False, **options)
    return dicom_file(ds)


def _by_pillow(ds: FileDataset, syntax: UID, folder: Path) -> bytes:
    pixels = np.frombuffer(ds.PixelData, np.uint8)[: ds.Rows * ds.Columns]
    picture = raster(pixels.reshape(ds.Rows, ds.Columns), "JPEG", quality=100)
    ds.PixelData = encapsulate([picture])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = syntax
    return dicom_file(ds)


def _by_gdcm(ds: FileDataset, syntax: UID, folder: Path) -> bytes:
    import gdcm

    before, after = folder / "before.dcm", folder / "after.dcm"
    before.write_bytes(dicom_file(ds))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(before))
    assert reader.Read(), "GDCM cannot read its input"
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change(), f"GDCM cannot write {syntax.name}"
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(after))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write(), "GDCM cannot write its output"
    return after.read_bytes()


_COMPRESSORS: dict[UID, Callable[[FileDataset, UID, Path], bytes]] = {
    JPEGBaseline8Bit: _by_pillow,
    JPEGExtended12Bit: _by_gdcm,
    JPEGLossless: _by_gdcm,
    JPEGLosslessSV1: _by_gdcm,
    JPEGLSLossless: _by_pydicom,
    JPEGLSNearLossless: _by_pydicom,
    JPEG2000Lossless: _by_pydicom,
    JPEG2000: _by_pydicom,
    RLELossless: _by_pydicom,
}
