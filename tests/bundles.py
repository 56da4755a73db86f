"""Bundle contracts for tests, and painted pictures that determine the networks' outputs.

A canvas is a 4 x 4 grid of cells. The cells of the first row give P(region) of elbow, hand and
shoulder, from left to right; those of the second row give P(fracture) of the same regions; the
first cell of the third row gives P(fracture) of a specialist for all regions, the others the
fracture types. In the last row, one cell is black and one is white, so that the stretch of the
grey values changes nothing; the cell between them sets the density, which is 1 - cell.
``tiny_networks`` writes the networks that calculate these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import TypeAdapter

from pipeline.bundle import (
    BundleSpec,
    Density,
    Estimate,
    Kind,
    Precision,
    Provenance,
    StoredPoint,
)
from pipeline.domain import ANY_REGION, REGIONS
from pipeline.preprocess import Fit, PreprocessSpec

GRID = 4
GAIN = 20.0
TRUNK = "a" * 64
SPEC = PreprocessSpec(
    height_px=32, width_px=32, frame="whole", fit=Fit.SQUASH, clip_percent=(0.0, 100.0)
)
ROUTE_THRESHOLD = 0.5
STRANGE_CELL = (3, 1)
GATE = Density(dimensions=1, references=1, neighbours=1, threshold=0.25, refused=0.01, far=0.3)
POINTS = {"balanced": (0.5, 0.3), "specific": (0.95, 0.95)}

PROVENANCE = Provenance(
    fxpipe_version="0",
    run="test",
    created="2026-01-01T00:00:00Z",
    index_digest="0" * 64,
    data="painted",
    initial_weights="none",
    versions={},
)


def cell_of(row: int, region: str) -> tuple[int, int]:
    """(row, column) of a region's cell: row 0 for P(region), row 1 for P(fracture)."""
    return (2, 0) if region == ANY_REGION else (row, REGIONS.index(region))


def probability(cell: float) -> float:
    """The probability that a head outputs for a cell of this grey value in [0, 1]."""
    return float(1.0 / (1.0 + np.exp(-GAIN * (cell - 0.5))))


def paint(
    regions: Mapping[str, float],
    fractures: Mapping[str, float] | None = None,
    size_px: int = 32,
    strange: float = 0.1,
) -> np.ndarray:
    """A picture, (size_px, size_px) uint8.

    Args:
        regions: Grey value in [0, 1] of the P(region) cell, by region.
        fractures: Grey value in [0, 1] of the P(fracture) cell, by region.
        size_px: Height and width; by default those of the canvas, so that no resize blurs a cell.
        strange: Grey value in [0, 1] of the density cell.
    """
    grid = np.full((GRID, GRID), 0.1)
    for row, values in enumerate((regions, fractures or {})):
        for region, value in values.items():
            grid[cell_of(row, region)] = value
    grid[STRANGE_CELL] = strange
    grid[-1, 0], grid[-1, -1] = 0.0, 1.0
    cell = size_px // GRID
    return np.kron(np.round(grid * 255), np.ones((cell, cell))).astype(np.uint8)


def write_png(
    path: Path,
    regions: Mapping[str, float],
    fractures: Mapping[str, float] | None = None,
    strange: float = 0.1,
) -> Path:
    """Paint a picture and save it; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(paint(regions, fractures, strange=strange)).save(path)
    return path


def spec(name: str, kind: Kind, **changes: object) -> BundleSpec:
    """A valid contract of this kind, with changes."""
    values: dict[str, object] = {
        "name": name,
        "kind": kind,
        "precision": Precision.FP32,
        "preprocess": SPEC,
        "provenance": PROVENANCE,
    }
    if kind is Kind.ENSEMBLE:
        values["input"] = "members"
    else:
        values |= {"input": "image" if kind is Kind.TRUNK else "features", "trunk": TRUNK}
    labels: tuple[str, ...] = ()
    if kind is Kind.REGION:
        labels = REGIONS
        values["route_thresholds"] = dict.fromkeys(REGIONS, ROUTE_THRESHOLD)
        values["density"] = GATE
    elif kind.judges:
        labels = ("fracture",)
        unknown = Estimate(value=None, note="painted")
        values |= {
            "region": name.removeprefix("fracture-"),
            "target": "fracture",
            "default_point": "balanced",
            "operating_points": {
                point: StoredPoint(
                    threshold=threshold,
                    doubt_below=doubt,
                    rule="test",
                    sensitivity=unknown,
                    specificity=unknown,
                )
                for point, (threshold, doubt) in POINTS.items()
            },
        }
    if count := len(labels):
        values |= {"labels": labels, "temperature": (1.0,) * count, "bias": (0.0,) * count}
    return contract(values | changes)


def contract(values: Mapping[str, object]) -> BundleSpec:
    """The contract with these values; ``kind`` selects the model that validates them."""
    validated: BundleSpec = TypeAdapter(BundleSpec).validate_python(values)
    return validated


def standard_specs() -> list[BundleSpec]:
    """A trunk, a region stage and one specialist for each region."""
    return [
        spec("trunk", Kind.TRUNK),
        spec("region", Kind.REGION),
        *(spec(f"fracture-{region}", Kind.FRACTURE) for region in REGIONS),
    ]


def for_all() -> list[BundleSpec]:
    """A trunk and one specialist for all regions, without a region stage."""
    return [spec("trunk", Kind.TRUNK), spec("fracture-all", Kind.FRACTURE)]
