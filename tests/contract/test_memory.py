"""Peak memory of a run on large radiographs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import factories
import numpy as np
import pytest
from processes import run_measured

ROOT = Path(__file__).parents[2]

MOST_MB = 1000
"""Limit for a run in MB, including networks and workers."""

if sys.platform != "linux":
    pytest.skip("only Linux has /proc", allow_module_level=True)


def large_pictures(folder: Path, count: int) -> None:
    """Create ``count`` DICOM and PNG files of 20 megapixels and 16 bits, as hard links."""
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
    words = ["--input", source, "--output", tmp_path / "out", "--weights", ROOT / "weights"]
    code = "from pipeline.cli import main; main()"
    options = ["--quiet", "--workers", 4, "--device", "cpu"]
    status, peak, _ = run_measured(
        [sys.executable, "-c", code, "run", *options, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert status == 0
    assert len((tmp_path / "out" / "results.csv").read_text("utf-8").splitlines()) == 1 + 8
    assert peak / 1e6 <= MOST_MB
