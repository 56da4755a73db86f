"""Large radiographs fit into a small computer: peak memory of a whole run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import factories
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

MOST_MB = 1000
"""1 GB for a run, networks included."""

if sys.platform != "linux":
    pytest.skip("wait4 counts memory in another unit, or is missing", allow_module_level=True)


def large_pictures(folder: Path, count: int) -> None:
    """20 megapixels of 16 bits: as many DICOM files as PNG files, each kind written once."""
    pixels = np.tile(factories.ramp(500, 400, 0, 65535), (10, 10))
    first = {".dcm": folder / "0.dcm", ".png": folder / "0.png"}
    first[".dcm"].write_bytes(factories.dicom_file(factories.dicom(pixels)))
    first[".png"].write_bytes(factories.raster(pixels, "PNG", compress_level=1))
    for i in range(1, count):
        for suffix, path in first.items():
            (folder / f"{i}{suffix}").hardlink_to(path)


def test_large_pictures_stay_within_a_gigabyte(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    large_pictures(source, 4)
    words = [sys.executable, "-c", "from pipeline.cli import main; main()", "run", "--quiet"]
    words += ["--input", str(source), "--output", str(tmp_path / "out"), "--workers", "4"]
    words += ["--weights", str(ROOT / "weights"), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # wait4 and not resource.getrusage: that gives the greatest of all children so far.
    _, status, usage = os.wait4(os.posix_spawn(words[0], words, environment), 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert len((tmp_path / "out" / "results.csv").read_text("utf-8").splitlines()) == 1 + 8
    assert usage.ru_maxrss / 1024 <= MOST_MB
