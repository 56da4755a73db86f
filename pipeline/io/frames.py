"""DICOM pixel data to arrays of stored values, whatever the compression.

Decoders, all under permissive licences: Pillow for JPEG baseline and JPEG 2000, pydicom's own for
RLE and uncompressed data, and python-gdcm for JPEG lossless, 12-bit JPEG and JPEG-LS. GDCM runs in
a process of its own (see :mod:`pipeline.io.gdcm_worker`), about 0.2 s a frame.
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import convert_color_space
from pydicom.pixels.utils import get_expected_length
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from ..errors import UnreadableImageError

# Named, so that pydicom never picks GDCM inside this process.
_PLUGINS = {
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: "pillow",  # 8 bit; deeper pictures go to GDCM
    JPEG2000Lossless: "pillow",
    JPEG2000: "pillow",
    RLELossless: "pydicom",
}
_BY_GDCM = (JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, JPEGLSNearLossless)
COMPRESSIONS = (*_PLUGINS, *_BY_GDCM)
"""The compressed transfer syntaxes that are read."""
_GDCM_PACKAGE = "python-gdcm"
_WORKER = Path(__file__).with_name("gdcm_worker.py")
_WORKER_TIMEOUT_S = 60.0
_COMPLAINTS = (b"premature end of data", b"bad Huffman code", b"instead of RST")


def stored_frames(ds: Dataset, name: str) -> Iterator[tuple[NDArray[Any], str]]:
    """Decode frame by frame.

    Args:
        ds: A header with pixel data and a transfer syntax.
        name: File name, for errors.

    Yields:
        (H, W) or (H, W, 3) integers and their photometric interpretation; YBR arrives as RGB.

    Raises:
        UnreadableImageError: No decoder for the compression, damaged data, or less than promised.
        Exception: Whatever pydicom raises on malformed headers; the caller translates.
    """
    syntax = UID(ds.file_meta.TransferSyntaxUID)
    deep = syntax == JPEGExtended12Bit and int(ds.BitsStored) > 8
    if syntax in _BY_GDCM or deep:
        yield from _gdcm_frames(ds, syntax, name)
        return
    plugin = _PLUGINS.get(syntax, "")
    if not syntax.is_transfer_syntax or (syntax.is_encapsulated and not plugin):
        raise UnreadableImageError(
            f"{name}: found pixels in transfer syntax {_name(syntax)}, which fxpipe does not "
            "read, wanted uncompressed, RLE, JPEG, JPEG-LS or JPEG 2000"
        )
    decoder = get_decoder(syntax)
    if plugin and plugin not in decoder.available_plugins:
        raise _decoder_missing(syntax, name, plugin)
    if not syntax.is_encapsulated:
        found, wanted = len(ds.PixelData), get_expected_length(ds, unit="bytes")
        if found < wanted:
            raise UnreadableImageError(
                f"{name}: found {found} bytes of pixel data, wanted {wanted}: the file is truncated"
            )
    for index in range(int(ds.get("NumberOfFrames") or 1)):
        yield _frame(decoder, ds, index, plugin)


def _frame(decoder: Decoder, ds: Dataset, index: int, plugin: str) -> tuple[NDArray[Any], str]:
    """One frame by pydicom; a function, so that the generator above keeps no frame."""
    # Not iter_array: its frames are read-only, and its own sign correction fails on them.
    frame, facts = decoder.as_array(ds, index=index, decoding_plugin=plugin)
    return frame, str(facts["photometric_interpretation"])


def why_unreadable(syntax: UID) -> str:
    """Why pictures in a compression cannot be decoded here; empty if they can.

    For GDCM a tiny JPEG is decoded, as only that shows whether its library can be loaded.
    """
    if syntax in _PLUGINS:
        available = get_decoder(syntax).available_plugins
        return "" if _PLUGINS[syntax] in available else f"{_PLUGINS[syntax]} has no decoder for it"
    if importlib.util.find_spec("gdcm") is None:
        return f"{_GDCM_PACKAGE} is not installed"
    return _why_no_gdcm()


@functools.cache
def _why_no_gdcm() -> str:
    stream = BytesIO()
    Image.new("L", (8, 8), 128).save(stream, "JPEG")
    numbers = ("8", "8", "1", "8", "8", "0")
    arguments = [str(JPEGBaseline8Bit), "MONOCHROME2", *numbers]
    try:
        done = _run_worker(arguments, stream.getvalue(), JPEGBaseline8Bit, "sample")
    except UnreadableImageError as error:
        return f"{_GDCM_PACKAGE} is installed and does not work: {error}"
    return "" if len(done) == 64 else f"{_GDCM_PACKAGE} gave {len(done)} bytes, wanted 64"


def _gdcm_frames(ds: Dataset, syntax: UID, name: str) -> Iterator[tuple[NDArray[Any], str]]:
    """Like :func:`stored_frames`, by GDCM."""
    if importlib.util.find_spec("gdcm") is None:
        raise _decoder_missing(syntax, name, _GDCM_PACKAGE)
    rows, columns, samples = int(ds.Rows), int(ds.Columns), int(ds.SamplesPerPixel)
    signed = int(ds.PixelRepresentation)
    photometric = str(ds.PhotometricInterpretation)
    numbers = rows, columns, samples, int(ds.BitsAllocated), int(ds.BitsStored), signed
    arguments = [str(syntax), photometric, *(str(number) for number in numbers)]
    for stream in generate_frames(
        ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames") or 1)
    ):
        # GDCM fills what a cut stream lacks with grey.
        if not stream.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
            raise UnreadableImageError(
                f"{name}: found a {syntax.name} frame without an end, wanted a whole one"
            )
        data = _run_worker(arguments, stream, syntax, name)
        itemsize, rest = divmod(len(data), rows * columns * samples)
        if rest or itemsize not in (1, 2):
            raise UnreadableImageError(
                f"{name}: found {len(data)} bytes in a decoded frame of {columns} x {rows} px, "
                "wanted 1 or 2 for each sample"
            )
        frame = np.frombuffer(data, f"<{'i' if signed else 'u'}{itemsize}")
        if samples == 1:
            yield frame.reshape(rows, columns), photometric
        else:
            colours = frame.reshape(rows, columns, samples)
            yield convert_color_space(colours, photometric, "RGB"), "RGB"


def _run_worker(arguments: list[str], stream: bytes, syntax: UID, name: str) -> bytes:
    """Decode one frame in a process that may die of it."""
    # -P: this folder's modules must not shadow installed ones.
    command = [sys.executable, "-P", str(_WORKER), *arguments]
    try:
        done = subprocess.run(
            command, input=stream, capture_output=True, timeout=_WORKER_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnreadableImageError(
            f"{name}: found a {syntax.name} frame that keeps GDCM busy for more than "
            f"{_WORKER_TIMEOUT_S:.0f} s, wanted a valid one"
        ) from error
    if done.returncode != 0:
        raise UnreadableImageError(
            f"{name}: found damaged {syntax.name} data (GDCM ended with {done.returncode}), "
            "wanted a valid frame"
        )
    # libjpeg fills what it cannot read with grey, and only says so.
    if any(complaint in done.stderr for complaint in _COMPLAINTS):
        raise UnreadableImageError(
            f"{name}: found damaged {syntax.name} data, wanted a whole frame"
        )
    return done.stdout


def _decoder_missing(syntax: UID, name: str, package: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"{name}: found pixels in transfer syntax {_name(syntax)}, wanted a decoder for it, "
        f"which {package} has",
        f"pip install {package}",
    )


def _name(syntax: UID) -> str:
    return f"{syntax.name} ({syntax})" if syntax.name != syntax else "that is not registered"
