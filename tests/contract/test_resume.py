"""A run that is killed repeatedly at random points has the outputs of an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from bundles import paint
from factories import dicom, dicom_file
from PIL import Image
from run_outputs import output_contents
from tiny_networks import write_bundles

ROOT = Path(__file__).parents[2]
KILLS = 50
MOST_PER_RUN = 12


def tiff(*frames: np.ndarray) -> bytes:
    """A TIFF with several pictures."""
    file = BytesIO()
    first, *others = (Image.fromarray(frame) for frame in frames)
    first.save(file, "TIFF", save_all=True, append_images=others)
    return file.getvalue()


def random_picture(chance: random.Random) -> np.ndarray:
    regions = ("elbow", "hand", "shoulder")
    return paint(
        {region: chance.random() for region in regions},
        {region: chance.random() for region in regions},
    )


def fill(folder: Path) -> None:
    """Write about 40 files: good, with several pictures, identical, broken, text, and DICOM."""
    chance = random.Random(7)
    for name in ("a", "b/c", "d"):
        (folder / name).mkdir(parents=True)
    for i in range(24):
        path = folder / ("a", "b/c", "d")[i % 3] / f"{i:02}.png"
        Image.fromarray(random_picture(chance)).save(path)
    (folder / "a/twin.png").write_bytes((folder / "a/00.png").read_bytes())
    for i in range(4):
        (folder / f"d/several-{i}.tif").write_bytes(
            tiff(*(random_picture(chance) for _ in range(3)))
        )
    cut = (folder / "d/several-0.tif").read_bytes()
    (folder / "b/cut.tif").write_bytes(cut[: len(cut) * 2 // 3])
    (folder / "b/broken.png").write_bytes((folder / "a/00.png").read_bytes()[:60])
    (folder / "b/zero.png").write_bytes(b"")
    (folder / "notes.txt").write_text("this is a letter")
    (folder / "d/=formula.png").write_bytes((folder / "a/03.png").read_bytes())
    for i in range(3):
        pixels = np.stack([random_picture(chance)] * 2) if i == 1 else random_picture(chance)
        uid = f"2.25.{2000 + i}"
        content = dicom_file(
            dicom(pixels.astype(np.uint16), bits=8, SOPInstanceUID=uid, StudyInstanceUID="2.25.7")
        )
        (folder / f"e{i}.dcm").write_bytes(content)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("default")
def test_outputs_after_fifty_kills_are_those_of_an_uninterrupted_run(tmp_path):
    fill(tmp_path / "in")
    write_bundles(tmp_path / "weights")
    options = ["--input", "in", "--weights", "weights", "--device", "cpu", "--report", "--fhir"]
    options += ["--parquet", "--dicom-out", "@/objects", "--identifiers", "keep"]
    # Files are read without worker processes: starting them fifty times takes a minute, and they
    # write nothing.
    options += ["--set", "isolate=false"]
    command = [
        sys.executable,
        ROOT / "tests/random_kills.py",
        KILLS,
        1,
        tmp_path,
        MOST_PER_RUN,
        *options,
    ]
    result = subprocess.run(
        [str(word) for word in command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    runs = [json.loads(line) for line in result.stdout.splitlines()]
    assert sum(run["kills"] for run in runs) >= KILLS
    assert {run["code"] for run in runs} == {1}  # some of the files are broken
    assert "resuming the unfinished run" in result.stderr
    whole = output_contents(tmp_path / "whole")
    assert len(whole["results.csv"]) == len(whole["results.jsonl"]) > 40
    assert {"report.html", "results.fhir.json", "results.parquet", "studies.csv"} < set(whole)
    assert any(row["heatmap"] for row in whole["results.parquet"])
    assert any(name.endswith(".dcm") for name in whole)
    for run in runs[1:]:
        assert output_contents(tmp_path / run["folder"]) == whole, (run, result.stderr)
