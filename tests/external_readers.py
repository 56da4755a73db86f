"""Readers by others, which know nothing of fxpipe: dcmtk for DICOM, ImageMagick for the rest.

Without them a test is skipped, and says so; in CI, where they are installed, it fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

DCMTK = ("dcm2pnm", "dcmj2pnm", "dcml2pnm")
"""Of dcmtk: uncompressed and RLE, JPEG, JPEG-LS."""

Grey = NDArray[np.float64]


def need(program: str, package: str) -> str:
    """The path of a program of another's package."""
    found = shutil.which(program)
    if found is None:
        words = f"{program} is not installed (Debian: {package})"
        if os.environ.get("CI") == "true":
            pytest.fail(words)
        pytest.skip(words)
    return found


def by_dcmtk(content: bytes, folder: Path, *options: str) -> Grey:
    """A DICOM picture as dcmtk shows it.

    Args:
        content: The file.
        folder: Where to write.
        options: ``+Wi 1`` for the first window, ``+Wl 1`` for the VOI LUT, ``+Wm`` for the range
            of the values.

    Returns:
        (H, W) in [0, 1], in 256 steps.
    """
    source, shown = folder / "judged.dcm", folder / "shown.pnm"
    source.write_bytes(content)
    shown.unlink(missing_ok=True)
    told = ""
    for name in DCMTK:
        words = [need(name, "dcmtk"), *options, str(source), str(shown)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        told += done.stderr
        if shown.exists():
            return np.asarray(Image.open(shown).convert("L"), np.float64) / 255
    pytest.fail(f"dcmtk cannot read it: {told}")


def by_imagemagick(content: bytes, folder: Path, suffix: str, *options: str) -> Grey:
    """A picture as ImageMagick shows it over black: (H, W) in [0, 1], ITU-R 601 luminance."""
    need("identify", "imagemagick")
    source, shown = folder / f"judged.{suffix}", folder / "shown.ppm"
    source.write_bytes(content)
    words = ["convert", str(source), *options, "-colorspace", "sRGB", "-depth", "16"]
    subprocess.run([*words, f"ppm:{shown}"], capture_output=True, check=True)
    colours = _ppm16(shown.read_bytes())
    return colours @ np.array([0.299, 0.587, 0.114])


def _ppm16(content: bytes) -> NDArray[np.float64]:
    """A binary PPM with 65,536 levels, which Pillow reads in 256."""
    kind, width, height, white, data = content.split(maxsplit=4)
    assert (kind, white) == (b"P6", b"65535")
    data = content[-int(width) * int(height) * 6 :]
    values = np.frombuffer(data, ">u2").reshape(int(height), int(width), 3)
    return values.astype(np.float64) / 65535
