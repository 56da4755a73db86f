"""Independent readers as references: dcmtk for DICOM, ImageMagick for the other formats.

Where they are not installed, a test is skipped with a reason; in CI it fails.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tools import need

DCMTK = ("dcm2pnm", "dcmj2pnm", "dcml2pnm")
"""Programs of dcmtk: for uncompressed and RLE, for JPEG, for JPEG-LS."""

Grey = NDArray[np.float64]


def by_dcmtk(content: bytes, folder: Path, *options: str) -> Grey:
    """Render a DICOM picture with dcmtk.

    Args:
        content: Content of the file.
        folder: Folder for temporary files.
        options: ``+Wi 1`` for the first window, ``+Wl 1`` for the VOI LUT, ``+Wm`` for the range
            of the values.

    Returns:
        (H, W) in [0, 1], in 256 steps.
    """
    source, output = folder / "judged.dcm", folder / "output.pnm"
    source.write_bytes(content)
    output.unlink(missing_ok=True)
    errors = ""
    for name in DCMTK:
        words = [need(name), *options, str(source), str(output)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        errors += done.stderr
        if output.exists():
            return np.asarray(Image.open(output).convert("L"), np.float64) / 255
    pytest.fail(f"dcmtk cannot read it: {errors}")


def by_imagemagick(content: bytes, folder: Path, suffix: str, *options: str) -> Grey:
    """Render a picture with ImageMagick over black: (H, W) in [0, 1], ITU-R 601 luminance."""
    need("identify")
    source, output = folder / f"judged.{suffix}", folder / "output.ppm"
    source.write_bytes(content)
    words = ["convert", str(source), *options, "-colorspace", "sRGB", "-depth", "16"]
    subprocess.run([*words, f"ppm:{output}"], capture_output=True, check=True)
    colours = _ppm16(output.read_bytes())
    return colours @ np.array([0.299, 0.587, 0.114])


def _ppm16(content: bytes) -> NDArray[np.float64]:
    """Decode a binary PPM with 65,536 levels; Pillow reduces it to 256."""
    kind, width, height, white, data = content.split(maxsplit=4)
    assert (kind, white) == (b"P6", b"65535")
    data = content[-int(width) * int(height) * 6 :]
    values = np.frombuffer(data, ">u2").reshape(int(height), int(width), 3)
    return values.astype(np.float64) / 65535
