"""Decoders of the JPEG families, chosen by the type of the code stream.

All have permissive licences: Pillow for 8-bit JPEG, JPEG 2000 and High-Throughput JPEG 2000
(OpenJPEG 2.5 and newer); python-gdcm for lossless JPEG, 12-bit JPEG and JPEG-LS. GDCM runs in a
separate process (see :mod:`pipeline.io.gdcm_worker`), about 0.2 s per frame.
"""

from __future__ import annotations

import functools
import importlib.util
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

from ..errors import UnreadableImageError
from .codestream import CodeStream, Coding

CODINGS = {
    JPEGBaseline8Bit: Coding.JPEG,
    JPEGExtended12Bit: Coding.JPEG,
    JPEG2000Lossless: Coding.JPEG_2000,
    JPEG2000: Coding.JPEG_2000,
    HTJ2KLossless: Coding.HTJ2K,
    HTJ2KLosslessRPCL: Coding.HTJ2K,
    HTJ2K: Coding.HTJ2K,
    JPEGLossless: Coding.LOSSLESS_JPEG,
    JPEGLosslessSV1: Coding.LOSSLESS_JPEG,
    JPEGLSLossless: Coding.JPEG_LS,
    JPEGLSNearLossless: Coding.JPEG_LS,
}
"""Supported transfer syntaxes, with the expected family of their code streams."""
_FOR_GDCM = {
    Coding.JPEG: JPEGExtended12Bit,
    Coding.LOSSLESS_JPEG: JPEGLossless,
    Coding.JPEG_LS: JPEGLSLossless,
}
GDCM_WORKER = Path(__file__).with_name("gdcm_worker.py")
"""Script that decodes one frame with GDCM in a separate process."""

_GDCM_PACKAGE = "python-gdcm"
_WORKER_TIMEOUT_S = 60.0
_DAMAGE_WARNINGS = (b"premature end of data", b"bad Huffman code", b"instead of RST")
_HTJ2K_SINCE = (2, 5)

Frame = NDArray[Any]


def decode_stream(stream: bytes, code: CodeStream, ds: Dataset, name: str) -> tuple[Frame, str]:
    """Decode one frame.

    Args:
        stream: The frame.
        code: Header of the code stream.
        ds: Header of the file: photometric interpretation and pixel representation.
        name: File name, for errors.

    Returns:
        (H, W) or (H, W, 3) integers, the unused bits of signed ones as the decoder leaves them,
        and their photometric interpretation; YBR is converted to RGB.

    Raises:
        UnreadableImageError: The decoder is not installed, or the data is damaged.
        Exception: Any exception of pydicom on damaged data; the caller translates it.
    """
    if code.coding in (Coding.JPEG_2000, Coding.HTJ2K):
        return _by_pillow(JPEG2000, stream, code, ds, name)
    if code.coding is Coding.JPEG and code.bits == 8:
        return _by_pillow(JPEGBaseline8Bit, stream, code, ds, name)
    return _by_gdcm(stream, code, ds, name)


def _by_pillow(
    syntax: UID, stream: bytes, code: CodeStream, ds: Dataset, name: str
) -> tuple[Frame, str]:
    if "pillow" not in get_decoder(syntax).available_plugins or _too_old(code.coding):
        raise _decoder_missing(code.coding, name, "pillow")
    if code.coding is not Coding.JPEG and code.samples > 1 and code.bits > 8:
        raise UnreadableImageError(
            f"{name}: found colour of {code.bits} bits per sample in {code.coding.value}, "
            "expected 8"
        )
    options: dict[str, Any] = {
        "rows": code.rows,
        "columns": code.columns,
        "number_of_frames": 1,
        "samples_per_pixel": code.samples,
        "planar_configuration": 0,
        "bits_allocated": 8 if code.bits <= 8 else 16,
        "bits_stored": code.bits,
        "pixel_representation": int(ds.PixelRepresentation),
        "photometric_interpretation": str(ds.PhotometricInterpretation),
        "pixel_keyword": "PixelData",
    }
    frame, facts = get_decoder(syntax).as_array(
        encapsulate([stream]), index=0, decoding_plugin="pillow", **options
    )
    return frame, str(facts["photometric_interpretation"])


def _too_old(coding: Coding) -> bool:
    """Whether the OpenJPEG of Pillow lacks High-Throughput JPEG 2000."""
    if coding is not Coding.HTJ2K:
        return False
    version = (features.version("jpg_2000") or "0").split(".")
    return tuple(int(part) for part in version[:2]) < _HTJ2K_SINCE


def _by_gdcm(stream: bytes, code: CodeStream, ds: Dataset, name: str) -> tuple[Frame, str]:
    if importlib.util.find_spec("gdcm") is None:
        raise _decoder_missing(code.coding, name, _GDCM_PACKAGE)
    syntax = _FOR_GDCM[code.coding]
    signed = int(ds.PixelRepresentation)
    photometric = str(ds.PhotometricInterpretation)
    arguments = _arguments(syntax, photometric, code, signed)
    data = _run_worker(GDCM_WORKER, arguments, stream, code.coding, name)
    itemsize, rest = divmod(len(data), code.rows * code.columns * code.samples)
    if rest or itemsize not in (1, 2):
        raise UnreadableImageError(
            f"{name}: found {len(data)} bytes in a decoded frame of {code.columns} x {code.rows} "
            "px, expected 1 or 2 per sample"
        )
    frame = np.frombuffer(data, f"<{'i' if signed else 'u'}{itemsize}")
    if code.samples == 1:
        return frame.reshape(code.rows, code.columns), photometric
    colours = frame.reshape(code.rows, code.columns, code.samples)
    return convert_color_space(colours, photometric, "RGB"), "RGB"


def _arguments(syntax: UID, photometric: str, code: CodeStream, signed: int) -> list[str]:
    """Arguments of the worker, with the bit depth of the stream, not of the header."""
    allocated = 8 if code.bits <= 8 else 16
    numbers = code.rows, code.columns, code.samples, allocated, code.bits, signed
    return [str(syntax), photometric, *(str(number) for number in numbers)]


def _run_worker(
    worker: Path, arguments: list[str], stream: bytes, coding: Coding, name: str
) -> bytes:
    """Decode one frame in a separate process, which may crash."""
    # -P: modules of this folder must not shadow installed ones.
    command = [sys.executable, "-P", str(worker), *arguments]
    try:
        done = subprocess.run(
            command, input=stream, capture_output=True, timeout=_WORKER_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UnreadableImageError(
            f"{name}: GDCM did not decode a {coding.value} frame within "
            f"{_WORKER_TIMEOUT_S:.0f} s, expected a valid frame"
        ) from error
    if done.returncode != 0:
        raise UnreadableImageError(
            f"{name}: found damaged {coding.value} data (GDCM exited with {done.returncode}), "
            "expected a valid frame"
        )
    # libjpeg fills damaged parts with grey and only prints a warning.
    if any(warning in done.stderr for warning in _DAMAGE_WARNINGS):
        raise UnreadableImageError(
            f"{name}: found damaged {coding.value} data, expected a complete frame"
        )
    return done.stdout


def why_undecoded(syntax: UID) -> str:
    """Reason why code streams of a transfer syntax cannot be decoded here; empty if they can.

    For GDCM this decodes a tiny JPEG, because only that shows whether its library can be loaded.
    """
    coding = CODINGS[syntax]
    if coding in (Coding.JPEG_2000, Coding.HTJ2K) or syntax == JPEGBaseline8Bit:
        own = JPEGBaseline8Bit if coding is Coding.JPEG else JPEG2000
        if "pillow" not in get_decoder(own).available_plugins:
            return "pillow has no decoder for it"
        return "the OpenJPEG of pillow is older than 2.5" if _too_old(coding) else ""
    if importlib.util.find_spec("gdcm") is None:
        return f"{_GDCM_PACKAGE} is not installed"
    return why_no_gdcm()


@functools.cache
def why_no_gdcm(worker: Path = GDCM_WORKER) -> str:
    """Reason why the installed GDCM does not work; empty if it does. The result is cached.

    Args:
        worker: Script that decodes the sample.
    """
    stream = BytesIO()
    Image.new("L", (8, 8), 128).save(stream, "JPEG")
    code = CodeStream(Coding.JPEG, 8, 8, 1, 8, 0)
    arguments = _arguments(JPEGBaseline8Bit, "MONOCHROME2", code, 0)
    try:
        done = _run_worker(worker, arguments, stream.getvalue(), Coding.JPEG, "sample")
    except UnreadableImageError as error:
        return f"{_GDCM_PACKAGE} is installed but does not work: {error}"
    return "" if len(done) == 64 else f"{_GDCM_PACKAGE} returned {len(done)} bytes, expected 64"


def _decoder_missing(coding: Coding, name: str, package: str) -> UnreadableImageError:
    return UnreadableImageError(
        f"{name}: the decoder for {coding.value} is not installed, expected {package}",
        f"pip install {package}",
    )
