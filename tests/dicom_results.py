"""Outcomes for DICOM files, built without a network, and the DICOM objects written from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from factories import bone, dicom, dicom_file
from pydicom import dcmread
from pydicom.dataset import Dataset

from pipeline.config import RunConfig
from pipeline.domain import Flag, Heatmap, Placement, XrayImage
from pipeline.heatmap import to_heatmap
from pipeline.io import decode, read_file
from pipeline.outcome import FractureCall, OperatingPoint, Outcome, RegionCall, Status
from pipeline.preprocess import PreprocessSpec, preprocess
from pipeline.render import render
from pipeline.report.dicom.objects import DicomWriter

KINDS = ("hand-overlay", "marks", "report")
PIXELS = np.rint(bone(96, 80) * 4095).astype(np.uint16)
SPEC = PreprocessSpec(height_px=64, width_px=64)
POINT = OperatingPoint("balanced", 0.5, 0.3)
DIGESTS = {"region": "1" * 64, "fracture-hand": "2" * 64, "trunk": "3" * 64}


def spot(placement: Placement) -> Heatmap:
    """A heatmap with one peak, above and to the left of the centre of the canvas."""
    y, x = np.mgrid[0:8, 0:8].astype(np.float32)
    evidence = np.exp(-((y - 3.0) ** 2 + (x - 2.5) ** 2) / 2.0) - np.float32(0.05)
    return to_heatmap(evidence, SPEC, placement)


def judged(
    path: Path,
    probabilities: Mapping[str, float] | None = None,
    *,
    target: str = "fracture",
    point: OperatingPoint = POINT,
    heatmaps: bool = True,
    flags: Sequence[Flag] = (),
    fired: Mapping[str, float] | None = None,
    digests: Mapping[str, str] = DIGESTS,
) -> list[Outcome]:
    """One outcome for each picture of a file, all with the same findings.

    Args:
        path: The file.
        probabilities: Probability of the target, by specialist; hand 0.9 when None.
        target: What the specialists predict.
        point: Operating point of every specialist.
        heatmaps: Whether findings have a heatmap.
        flags: Flags of each picture.
        fired: Probability of each region that the router detects; 0.8 for the region of each
            specialist when None.
        digests: SHA-256 of the bundles that contributed, by name.
    """
    content, sha256 = read_file(path)
    by_region = {"hand": 0.9} if probabilities is None else probabilities
    seen = dict.fromkeys(by_region, 0.8) if fired is None else fired
    router = RegionCall(seen, dict.fromkeys(seen, 0.5)) if "all" not in seen else None

    def outcome(image: XrayImage) -> Outcome:
        _, placement = preprocess(image.pixels, SPEC)
        heatmap = spot(placement) if heatmaps else None
        return Outcome(
            image=image.source,
            status=Status.OK,
            region=router,
            findings=tuple(
                FractureCall(region, target, probability, point, heatmap)
                for region, probability in by_region.items()
            ),
            bundle_digests=digests,
            header=image.dicom,
            flags=tuple(flags),
            rendered=render(image.pixels),
        )

    return [outcome(image) for image in decode(content, path, sha256)]


def original(folder, pixels=PIXELS, syntax=None, name="x.dcm", **attributes):
    """Write a DICOM file, of 12 bits by default for uint16 pixels; returns its path."""
    path = folder / name
    bits = attributes.pop("bits", 12 if pixels.dtype == np.uint16 else None)
    path.write_bytes(dicom_file(dicom(pixels, bits=bits, **attributes), syntax))
    return path


def objects(folder, outcomes, **settings) -> dict[str, Dataset]:
    """The objects that the writer makes from outcomes, by the last part of the file name."""
    writer = DicomWriter(folder / "objects", RunConfig(**settings), DIGESTS)
    for outcome in outcomes:
        writer.write(outcome)
    paths = sorted((folder / "objects").iterdir())
    assert all(path.suffix == ".dcm" for path in paths)
    return {path.stem.partition("-")[2]: dcmread(path) for path in paths}
