"""Small training data: a FracAtlas folder with labels that are visible in the pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stages.samples import Sample

SIDE_PX = 64
REGION_NAMES = ("elbow", "hand", "shoulder", "leg")


def picture(region: str, fractured: bool, seed: int, side_px: int = SIDE_PX) -> NDArray[np.uint8]:
    """(side, side) uint8: the position of a bar is the region, a gap in it is a fracture."""
    random = np.random.default_rng(seed)
    canvas = random.normal(30, 6, (side_px, side_px))
    start = {"elbow": 4, "hand": side_px // 2 - 6, "shoulder": side_px - 16, "leg": None}[region]
    if start is None:
        canvas[side_px // 2 - 6 : side_px // 2 + 6, :] += 150  # a leg is horizontal
    else:
        canvas[:, start : start + 12] += 150
    if fractured:
        middle = side_px // 2 + int(random.integers(-4, 4))
        canvas[middle - 4 : middle + 4, :] = 30
        canvas[:, middle - 4 : middle + 4] *= 0.6
    return np.clip(canvas, 0, 255).astype(np.uint8)


def fracatlas_folder(folder: Path, per_cell: int = 14, side_px: int = SIDE_PX) -> Path:
    """Write a folder in the layout of FracAtlas: ``per_cell`` pictures of each region and label.

    Each group has two pictures. One additional file is truncated and has that flag.
    """
    images = folder / "images"
    images.mkdir(parents=True)
    rows: list[tuple[str, str, int, int, str, int, int]] = []
    for region in REGION_NAMES:
        for fractured in (False, True):
            for n in range(per_cell):
                name = f"IMG{len(rows):07d}.jpg"
                pixels = picture(region, fractured, seed=len(rows), side_px=side_px)
                Image.fromarray(pixels).save(images / name, quality=95)
                group = f"{region}{int(fractured)}{n // 2:03d}"
                rows.append((name, region, int(fractured), int(n == 0 and fractured), group, 0, 0))
    cut = images / "IMG9000000.jpg"
    whole = (images / rows[0][0]).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    rows.append((cut.name, "hand", 0, 0, "cut", 1, 0))
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["image_id", "region", "fractured", "hardware", "group", "truncated", "label_conflict"]
        )
        writer.writerows(rows)
    return folder


def sample(name: str, **changes: object) -> Sample:
    """One row of a table with default values, except ``changes``."""
    values: dict[str, object] = {
        "path": Path(name),
        "regions": "hand",
        "label": 0,
        "label_kind": "fracture",
        "group": name,
        "study": "",
        "split": "train",
        "origin": "made",
        "flags": "",
        "sha256": name,
    }
    return Sample(**{**values, **changes})  # type: ignore[arg-type]
