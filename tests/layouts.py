"""Writers of small data sets in the layouts of the real ones, with pictures that can be learned.

Each returns the folder or file for ``fxpipe index --input``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import factories
import numpy as np
from PIL import Image
from tables import picture

from stages.samples import Sample

Rows = Iterable[Sequence[object]]


def draw(path: Path, seed: int, region: str = "hand", fractured: bool = False) -> Path:
    """Write one picture; each seed gives different bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture(region, fractured, seed)).convert("L").save(path)
    return path


def cut(path: Path) -> Path:
    """Truncate a file to half its size."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def sheet(path: Path, rows: Rows) -> Path:
    """Write a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def mura(home: Path, patients: int = 8, tables: bool = True) -> Path:
    """MURA-v1.1: one elbow and one wrist study per patient; every second patient is abnormal.

    Patient 1 has a shoulder study too. A quarter of the patients are in ``valid``. There is one
    hidden file of macOS, as in the original.
    """
    root = home / "MURA-v1.1"
    studies: dict[str, list[tuple[str, int]]] = {"train": [], "valid": []}
    for n in range(1, patients + 1):
        part = "valid" if n % 4 == 0 else "train"
        regions = ["XR_ELBOW", "XR_WRIST", *(["XR_SHOULDER"] if n == 1 else [])]
        for region in regions:
            word = "positive" if n % 2 else "negative"
            studies[part].append((f"{part}/{region}/patient{n:05d}/study1_{word}", n % 2))
    seed = 0
    for part, places in studies.items():
        pictures = [f"{place}/image{k}.png" for place, _ in places for k in (1, 2)]
        for place in pictures:
            seed += 1
            draw(root / place, seed)
        if tables:
            sheet(root / f"{part}_image_paths.csv", [[f"MURA-v1.1/{p}"] for p in pictures])
            rows = [[f"MURA-v1.1/{place}/", label] for place, label in places]
            sheet(root / f"{part}_labeled_studies.csv", rows)
    (root / studies["train"][0][0] / "._image1.png").write_bytes(b"\0\5\26\7")
    return root


DATASET_COLUMNS = (
    *("image_id", "hand", "leg", "hip", "shoulder", "mixed", "hardware", "multiscan"),
    *("fractured", "fracture_count", "frontal", "lateral", "oblique"),
)


def fracatlas(home: Path, rows: Sequence[Mapping[str, object]], annotations: str = "COCO") -> Path:
    """FracAtlas as its authors distribute it.

    Args:
        home: Parent of the new folder.
        rows: Rows of ``dataset.csv``; a missing column is 0.
        annotations: COCO, VOC or YOLO. Each fractured picture (64 px) has a box from (16, 8) to
            (48, 40).
    """
    root = home / "FracAtlas"
    sheet(root / "dataset.csv", [DATASET_COLUMNS,
          *([row.get(name, 0) for name in DATASET_COLUMNS] for row in rows)])  # fmt: skip
    for seed, row in enumerate(rows):
        folder = "Fractured" if row.get("fractured") else "Non_fractured"
        draw(root / "images" / folder / str(row["image_id"]), seed)
    for name in ("Fractured", "Non_fractured"):
        (root / "images" / name).mkdir(parents=True, exist_ok=True)
    broken = [str(row["image_id"]) for row in rows if row.get("fractured")]
    {"COCO": _coco, "VOC": _voc, "YOLO": _yolo}[annotations](root / "Annotations", broken)
    return root


def _coco(folder: Path, names: Sequence[str]) -> None:
    content = {
        "images": [
            {"id": i, "file_name": name, "width": 64, "height": 64} for i, name in enumerate(names)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [16, 8, 32, 32], "iscrowd": 0}
            for i, _ in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "fractured"}],
    }
    file = folder / "COCO JSON" / "COCO_fracture_masks.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))


def _voc(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        file = folder / "PASCAL VOC" / f"{Path(name).stem}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            f"<annotation><filename>{name}</filename>"
            "<size><width>64</width><height>64</height><depth>3</depth></size>"
            "<object><name>fractured</name><bndbox><xmin>16</xmin><ymin>8</ymin>"
            "<xmax>48</xmax><ymax>40</ymax></bndbox></object></annotation>"
        )


def _yolo(folder: Path, names: Sequence[str]) -> None:
    for name in names:
        file = folder / "YOLO" / f"{Path(name).stem}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("0 0.5 0.375 0.5 0.5\n")
    (folder / "YOLO" / "classes.txt").write_text("fractured\n")


def multi_region(home: Path, leaking: bool = True, count: int = 8) -> Path:
    """The multi-region set: three splits of two classes, with rotated copies in training.

    Args:
        home: Parent of the new folder.
        leaking: Whether byte-identical test pictures are in training too, as in the real set.
        count: Number of original pictures of each class.
    """
    root = home / "Bone_Fracture_Binary_Classification"
    for k, word in enumerate(("fractured", "not fractured")):
        for n in range(count):
            part = "test" if n == 0 else "val" if n == 1 else "train"
            original = draw(root / part / word / f"{n}.jpg", 100 * k + n, fractured=not k)
            if part == "train" or leaking:
                rotated = root / "train" / word / f"{n}-rotated1-rotated2.jpg"
                rotated.parent.mkdir(parents=True, exist_ok=True)
                with Image.open(original) as image:
                    image.rotate(90).save(rotated)
            if part == "test" and leaking:
                (root / "train" / word / f"{n}.jpg").write_bytes(original.read_bytes())
    (root / "Thumbs.db").write_bytes(b"x")
    return root


def studies(home: Path, headers: Sequence[Mapping[str, object]]) -> Path:
    """A folder of DICOM files, one for each header, with file names as in an archive."""
    root = home / "export"
    for n, header in enumerate(headers):
        pixels = picture("hand", bool(n % 2), seed=n).astype(np.uint16)
        ds = factories.dicom(pixels, bits=12, **{"SOPInstanceUID": f"2.25.9{n:03d}", **header})
        file = root / f"ST{n // 2:06d}" / f"IM{n:06d}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(factories.dicom_file(ds))
    return root


def by_place(rows: Iterable[Sample], root: Path) -> dict[str, Sample]:
    """Rows by the path of their picture relative to ``root``."""
    return {row.path.resolve().relative_to(root.resolve()).as_posix(): row for row in rows}
